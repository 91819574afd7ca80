r"""CFLOW-AD on your own images, wherever they lie, with a table that says what they are.

flowad train --config=cflow_csv --workdir=runs/screws --config.data.root=/path/to/screws.csv

The table has the columns image, split (train, test) and label (good, or a kind of defect), and mask
where there are some; `flowad data --name=csv` says more. Hardware and time: see
docs/measured/accuracy.md; accuracy depends on your images.
"""

from ml_collections import config_dict

from flowad_jax.recipes.cflow_textures import short_run


def get_config() -> config_dict.ConfigDict:
    """The short run on a table."""
    return short_run("csv")
