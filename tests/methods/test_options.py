"""A wrong option of a method is named in one line."""

import re

import pytest

from flowad_jax import lookup
from flowad_jax.errors import UserError

NAN = float("nan")
WRONG = [
    ("cflow msflow sanflow ssnf", {"clamp_kind": "tan"}, "method.clamp_kind='tan': did you mean"),
    ("cflow sanflow", {"permutation": "sof"}, "method.permutation='sof': did you mean 'soft'"),
    ("cflow sanflow", {"condition": 6}, "multiple of 4"),
    ("cflow sanflow", {"blocks": 0}, "method.blocks=0: must be at least 1"),
    ("msflow ssnf", {"compute": "bfloat61"}, "method.compute='bfloat61': did you mean 'bfloat16'"),
    ("cflow", {"objective": "log_sigmod"}, "did you mean 'log_sigmoid'"),
    ("cflow", {"fibre_size": 0}, "fibre_size=0"),
    ("cflow", {"fibre_steps": -1}, "fibre_steps=-1: must be 1 or more"),
    ("msflow", {"condition": 6}, "condition=6"),
    ("msflow", {"blocks": (2, 0, 1)}, "method.blocks=(2, 0, 1)"),
    ("msflow", {"blocks": ()}, "method.blocks=()"),
    ("msflow", {"top": 0.0}, "method.top=0.0"),
    ("msflow", {"top": 3.0}, "method.top=3.0"),
    ("sanflow", {"prior_p": 0}, "method.prior_p=0: must be above"),
    ("sanflow", {"prior_p": 1.4}, "method.prior_p=1.4"),
    ("sanflow", {"prior_level": 0.0}, "method.prior_level=0.0: must be above 0"),
    ("sanflow", {"anomalous_mean": NAN}, "method.anomalous_mean=nan: must be a finite number"),
    ("sanflow", {"variance_clip": -1.0}, "method.variance_clip=-1.0"),
    ("sanflow", {"variance_floor": 5.0}, "must be at least 0 and below variance_clip=5.0"),
    ("sanflow", {"log_alpha_clip": (0.0, 1.0)}, "log_alpha_clip=(0.0, 1.0): must be two values"),
    ("sanflow", {"log_alpha_clip": (1.0,)}, "method.log_alpha_clip"),
    ("sanflow", {"cross_entropy_weight": -0.1}, "cross_entropy_weight=-0.1: must be at least 0"),
    ("sanflow", {"log_variance_weight": 0.0}, "method.log_variance_weight=0.0"),
    ("sanflow", {"cross_entropy": "double"}, "method.cross_entropy='double'"),
    ("sanflow", {"mask_pool": "corners"}, "did you mean 'corner'"),
    ("sanflow", {"mask_pool": "corners", "legacy": True}, "did you mean 'corner'"),
    ("sanflow", {"mask_share": 0.0}, "method.mask_share=0.0"),
    ("sanflow", {"variance_pool": "max"}, "method.variance_pool='max'"),
    ("ssnf", {"positive_weight": "switched"}, "method.positive_weight='switched'"),
    ("ssnf", {"score": "densities"}, "method.score='densities': did you mean 'density'"),
    ("ssnf", {"negative_weight": 1.0}, "method.negative_weight=1.0"),
    ("ssnf", {"negative_weight": -0.1}, "method.negative_weight=-0.1"),
    ("ssnf", {"negative_cap": NAN}, "method.negative_cap=nan"),
    ("ssnf", {"cap_dimensions": 0}, "method.cap_dimensions=0"),
    ("ssnf", {"top": 1.5}, "method.top=1.5"),
    ("ssnf", {"heads": 3}, "heads=3"),
    ("ssnf", {"blocks": 0}, "blocks=0"),
    ("ssnf", {"drop": 1.0}, "drop=1.0"),
    ("ssnf", {"blocks": 1, "layout": ["conv", "attn"]}, "layout names 2 blocks"),
    ("ssnf", {"layout": "attention"}, "layout='attention'"),
]


@pytest.mark.parametrize(("methods", "options", "message"), WRONG)
def test_wrong_options_are_named(methods, options, message):
    for name in methods.split():
        with pytest.raises(UserError, match=re.escape(message)) as caught:
            lookup.find("flowad_jax.methods", name)(**options)
        assert "\n" not in str(caught.value)
