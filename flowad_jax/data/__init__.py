"""Image sources, one dataset layout per file, and the batches made from them."""
