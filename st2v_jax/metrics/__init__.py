"""Metrics turn the frames of a video into numbers. They depend on no model."""
