"""Which values of a graph can be explained, and how they lie in it."""
