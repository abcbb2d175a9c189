"""A model repository of Triton's: the exported file, and an ensemble around it that takes pictures and gives boxes."""
