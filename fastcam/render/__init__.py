"""Colour maps, overlays, text, sheets of pictures."""
