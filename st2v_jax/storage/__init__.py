"""The file formats of weights, read without running anything that a file holds."""
