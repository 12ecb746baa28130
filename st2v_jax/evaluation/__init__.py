"""Studies of whole models, and the pages that are written of them."""
