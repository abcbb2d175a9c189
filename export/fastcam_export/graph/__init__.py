"""Reading a graph, what it is without running it, tidying it, and writing it."""
