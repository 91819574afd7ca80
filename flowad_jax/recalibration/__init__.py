"""New thresholds for a trained detector, from images that people confirmed as good."""
