"""Fuzz targets for every parser and every conversation: see ``targets.py``."""
