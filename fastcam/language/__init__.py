"""Texts that go into a network: how they become the ids of words."""
