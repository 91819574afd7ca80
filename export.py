"""Writes a detector that runs without JAX: the command ``flowad export``, from a checkout."""

from flowad_jax.cli.export import main

if __name__ == "__main__":
    main()
