"""Side-by-side measurements against the PyTorch peers, one command each, results as JSON."""
