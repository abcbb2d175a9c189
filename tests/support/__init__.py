"""What several test files share: models, oracles, cases."""
