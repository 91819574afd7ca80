"""Scores a run on its test images: the command ``flowad eval``, from a checkout."""

from flowad_jax.cli.eval import main

if __name__ == "__main__":
    main()
