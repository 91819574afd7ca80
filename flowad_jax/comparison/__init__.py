"""Runs beside each other: two on the same test images, or several methods over many categories."""
