"""A long video as something one works on: chunks in a folder, in a tree whose branches have names."""
