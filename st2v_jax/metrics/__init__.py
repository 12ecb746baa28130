"""Metrics: what long videos show, how they move, and what the paper measures."""
