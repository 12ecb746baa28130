"""Metrics: from the frames of a video to numbers. They know no models."""
