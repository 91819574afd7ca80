"""Judges images with a trained detector: the command ``flowad predict``, from a checkout."""

from flowad_jax.cli.predict import main

if __name__ == "__main__":
    main()
