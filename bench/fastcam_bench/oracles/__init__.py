"""Independent answers to compare with, and the machine they are computed on."""
