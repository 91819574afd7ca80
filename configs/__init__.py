"""Recipes: one ml_collections file each. `base.py` holds every key and its default."""
