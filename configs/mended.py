"""From a published recipe to the one that we would use: the same system without its faults.

docs/deviations.md says what is mended, and what the published form does.
"""

from ml_collections import config_dict

from flowad_jax.recipes.base import base


def mended(config: config_dict.ConfigDict) -> config_dict.ConfigDict:
    """Takes from base.py what decides how a published system learns and what its scores mean.

    The method and the synthesis lose the faults of the released code; some normal images are held
    out, to set thresholds and to choose an epoch; an epoch visits every image, also an incomplete
    last batch; training and test images are resized alike; and a score depends on its image alone.
    """
    plain = base(config.method.name, config.data.name)
    config.method, config.synthesis = plain.method, plain.synthesis
    for key in ("holdout", "drop_last"):
        config.data[key] = plain.data[key]
    config.eval.scoring = plain.eval.scoring
    return config
