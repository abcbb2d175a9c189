"""A server as one process, or as several that are looked after."""
