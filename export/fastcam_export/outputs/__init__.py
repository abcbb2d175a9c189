"""What an exported file emits: classes, activations, weights, gradients, maps."""
