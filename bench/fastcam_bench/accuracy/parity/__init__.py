"""FastCAM's maps beside those of other tools, on the same weights: ``python -m fastcam_bench.accuracy.parity``."""
