"""Further files and forms of an export: the head, two files, uint8 frames, engines, Triton's repositories."""
