"""The recipe of the tests of kept features."""

import pytest


@pytest.fixture(name="config")
def _config(tiny_config):
    """Six training images in batches of four: the last batch is padded."""
    tiny_config.data.rotation_degrees = 0.0
    return tiny_config
