"""The page of `st2v web`: sessions of one folder, worked on in a browser. Sessions on disk are its only state."""
