"""Explanations behind an endpoint: models, batches and limits, and the protocols by which clients ask."""
