"""The published systems: one paper per file."""
