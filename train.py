"""Trains a defect detector: the command ``flowad train``, from a checkout."""

from flowad_jax.cli.train import main

if __name__ == "__main__":
    main()
