"""Servers of the tests, and the browser that visits them."""
