"""Trained models on disk: the networks that a config implies (layout), and our folders of them (folder)."""
