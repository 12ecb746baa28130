"""The diffusion process: noise levels, predictions and guidance, solvers, sampling, loss."""
