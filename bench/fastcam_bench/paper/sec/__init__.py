"""Seed, expand and constrain: segmentation learned from seeds and image-level labels (Grad-CAM paper, 4.2)."""
