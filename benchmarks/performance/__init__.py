"""All four methods beside PyTorch; `python -m benchmarks.performance --help`."""
