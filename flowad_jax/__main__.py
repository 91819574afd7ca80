"""``python -m flowad_jax`` is the command ``flowad``."""

from flowad_jax.cli.main import main

if __name__ == "__main__":
    main()
