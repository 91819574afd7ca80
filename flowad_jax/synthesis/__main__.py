"""Starts `flowad_jax.cli.synthesis_sheet`, by name, as it stands above synthesis and data."""

import runpy

if __name__ == "__main__":
    runpy.run_module("flowad_jax.cli.synthesis_sheet", run_name="__main__")
