"""What a config holds: every key with its default, its bounds and its meaning, stated once."""
