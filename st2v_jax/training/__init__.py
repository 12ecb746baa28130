"""Training: the objectives, the step, and the loop around it."""
