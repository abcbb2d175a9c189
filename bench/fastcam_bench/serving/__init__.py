"""Servers under load: a load generator, and FastCAM's server beside others."""
