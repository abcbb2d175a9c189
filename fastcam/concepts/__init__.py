"""Deep feature factorisation: concepts that pictures share."""

from fastcam.concepts.dff import Concepts, concepts

__all__ = ["Concepts", "concepts"]
