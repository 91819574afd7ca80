"""Converts PyTorch weights, and back: the command ``flowad convert``, from a checkout."""

from flowad_jax.cli.convert import main

if __name__ == "__main__":
    main()
