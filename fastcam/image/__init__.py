"""Pictures: decoding, resizing, normalising, and the way back to original pixels."""
