"""Small models that several test files share."""
