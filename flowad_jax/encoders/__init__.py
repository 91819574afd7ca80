"""Frozen feature extractors: one architecture family per file."""
