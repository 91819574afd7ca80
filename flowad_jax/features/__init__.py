"""Feature maps of image sets: computed batch by batch, or kept where there is room."""
