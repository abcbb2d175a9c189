"""Protocols: what is measured of each picture's maps, and what the rows of many pictures say; one file a benchmark."""
