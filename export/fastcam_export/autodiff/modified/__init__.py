"""Rules that stand in for others while a sweep runs: guided backpropagation, relevance propagation."""
