"""The way from pictures to an explanation."""
