"""The command ``flowad``: `main` finds the command, `scripts` runs those that take a config."""
