"""The networks that are measured, and the bundled one's training."""
