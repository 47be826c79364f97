"""Stands where a package of PyTorch stands."""
