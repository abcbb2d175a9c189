"""What the bodies of requests hold: forms, tensors, and either compressed."""
