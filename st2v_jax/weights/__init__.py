"""Trained models on disk: the networks that a config implies (layout), and folders in our format (folder)."""
