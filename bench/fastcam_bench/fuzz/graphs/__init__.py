"""Small models, and what can be wrong with one."""
