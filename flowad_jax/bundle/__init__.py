"""Detectors that leave the laboratory: a folder with graph, constants and a runtime without JAX."""
