"""What a call returns: explanations, predictions, and sheets of them."""
