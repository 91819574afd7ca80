"""Recipes: one ml_collections file each, the published settings in `papers`.

`base.py` holds every key and its default.
"""
