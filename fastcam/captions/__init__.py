"""Captions: a model that says what it sees in words, and where it looked for each of them (Grad-CAM paper, 8.1)."""

from fastcam.captions.captioner import Captioner
from fastcam.captions.result import Caption

__all__ = ["Caption", "Captioner"]
