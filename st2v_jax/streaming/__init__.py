"""Long videos, chunk after chunk."""
