"""Detectors: where their outputs keep boxes and scores, and how a box's sides follow from its numbers."""
