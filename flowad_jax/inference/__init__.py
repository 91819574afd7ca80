"""A trained detector on new images: decisions, regions, tiles, and the files they go to."""
