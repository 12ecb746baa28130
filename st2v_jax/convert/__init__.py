"""Published weights to our folders and back: strict tables, and what tells files, networks and sizes."""
