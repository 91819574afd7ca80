"""Finding defects in images with normalizing flows, in JAX."""

__version__ = "0.1.0"
