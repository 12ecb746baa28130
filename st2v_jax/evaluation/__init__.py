"""Studies of whole models, and the pages about them."""
