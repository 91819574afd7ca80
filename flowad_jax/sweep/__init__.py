"""Many trainings at once: categories, seeds and settings of one recipe."""
