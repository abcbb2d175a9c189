"""What is explained: classes, combinations of them, cotangents, and how each is said in words."""

from fastcam.labels import read_labels, short_label
from fastcam.targets.classes import Targets

__all__ = ["Targets", "read_labels", "short_label"]
