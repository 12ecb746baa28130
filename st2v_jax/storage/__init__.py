"""Bytes: the containers that weights come in, read without running anything that they hold."""
