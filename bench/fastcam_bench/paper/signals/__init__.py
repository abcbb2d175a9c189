"""A one-dimensional CNN on recorded signals, and what its heat under the curve shows."""
