"""What a detector said on the line, and what the operator says of it."""
