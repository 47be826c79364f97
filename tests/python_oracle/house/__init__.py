"""Estimators of a house: a package, because that is what the original can be told to look for classes in."""
