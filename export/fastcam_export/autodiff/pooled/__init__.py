"""The spatial mean of a gradient, without building the gradient."""
