"""Published weights to our folders and back: strict tables, and code that recognises files, networks and sizes."""
