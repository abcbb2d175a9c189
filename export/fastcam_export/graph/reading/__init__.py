"""What :mod:`fastcam_export.graph.load` does to a file: damage refused, hints repaired, old and odd forms rewritten."""
