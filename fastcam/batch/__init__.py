"""Millions of pictures explained into a table: sources, parts of the table, and who works on them."""
