"""A paper's recipe on the user's own copy of its data, beside the figures that were published."""
