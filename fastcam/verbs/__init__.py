"""The verbs of the command ``fastcam``, one a file: a function with its options, and ``EXAMPLES``."""
