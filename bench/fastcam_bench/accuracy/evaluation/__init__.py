"""Maps measured on pictures with marks: all methods in one table, faithfulness beside random maps, and a peer."""
