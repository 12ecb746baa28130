"""Training: objectives, the step, the loop around it."""
