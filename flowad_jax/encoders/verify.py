"""Compares a converted network with its PyTorch original, layer by layer.

PyTorch stays outside: who asks for the comparison passes in what computes the other side.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from flowad_jax.encoders.architecture import Architecture, known_options, rules
from flowad_jax.encoders.weight_files import renamed
from flowad_jax.errors import UserError
from flowad_jax.types import EncoderSpec, Tree

# Float32 sums in another order; of deep networks the worst layer measured is at 1e-5.
LIMIT = 1e-4

# (names of torch modules, image (1, H, W, 3)) -> their outputs, maps channels last; the names of
# modules that do not exist are left out.
Peer = Callable[[Sequence[str], np.ndarray], Mapping[str, np.ndarray]]


class Report(NamedTuple):
    """What a comparison found, in the order in which layers are computed.

    Attributes:
      layers: of every torch module the largest difference over the largest value.
      taps: the torch modules whose outputs are the feature maps, shallow first.
      not_compared: torch keys of variables whose layer has no output of its own in both networks.
      size: height and width of the image.
    """

    layers: dict[str, float]
    taps: tuple[str, ...]
    not_compared: tuple[str, ...]
    size: tuple[int, int]

    @property
    def worst(self) -> float:
        """The largest difference."""
        return max(self.layers.values())

    def card(self) -> dict[str, Any]:
        """Returns what the card says about the comparison."""
        return {
            "image": list(self.size),
            "worst": self.worst,
            "layers": self.layers,
            "taps": list(self.taps),
            "not_compared": list(self.not_compared),
        }


def side(spec: EncoderSpec) -> int:
    """Returns the side of the image to compare on: no position code has to be interpolated."""
    return spec.size or min(224, 2 * max(spec.strides))


def trunk(architecture: Architecture, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the tensors of a PyTorch file that our network has, too, named by `torch_key`."""
    used = {rule.key for rule in rules(architecture)}
    named = renamed(architecture, tensors)
    return {key: tensor for key, tensor in named.items() if key in used}


def compare(architecture: Architecture, variables: Tree, peer: Peer) -> Report:
    """Runs both networks on one random image.

    Args:
      architecture: what `architecture.find` returns.
      variables: of the complete network.
      peer: the other network, with the weights that ``variables`` were converted from.
    """
    size = side(architecture.spec)
    image = np.random.default_rng(0).standard_normal((1, size, size, 3), np.float32)
    taps, found = outputs(architecture, variables, image)
    torch_key = architecture.family.torch_key
    ours = {torch_key(("params", *path, "kernel")).rpartition(".")[0]: path for path in found}
    theirs = peer(list(ours), image)
    layers = {
        name: difference(found[path], theirs[name]) for name, path in ours.items() if name in theirs
    }
    blocks = {name: found[ours[name]] for name in layers if len(ours[name]) == 1}
    tokens = [name for name, block in blocks.items() if block.ndim == 3]
    # A transformer's maps are its blocks' outputs, or would be without the last norm.
    tapped = tokens[: len(taps)] or [
        name for tap in taps for name, block in blocks.items() if np.array_equal(block, tap)
    ]
    left_out = [r.key for r in rules(architecture) if r.key.rpartition(".")[0] not in layers]
    return Report(layers, tuple(tapped), tuple(left_out), (size, size))


def check(report: Report, source: str) -> None:
    """Raises a `UserError` that names the first layer that differs by more than `LIMIT`."""
    if not report.layers:
        raise UserError(f"{source}: PyTorch's network has none of our layers; nothing was written")
    wrong = [name for name, error in report.layers.items() if not error <= LIMIT]
    if wrong:
        raise UserError(
            f"{source}: layer '{wrong[0]}' differs from PyTorch's by {report.layers[wrong[0]]:.1e} "
            f"of its largest value, the first of {len(wrong)} that differ by more than {LIMIT:g}; "
            "nothing was written"
        )


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Returns the largest difference over the largest value; infinite where shapes differ."""
    if theirs.ndim == 3:
        theirs = theirs[:, -ours.shape[1] :]  # CaiT's last norm sees a class token in front
    if ours.shape != theirs.shape:
        return float("inf")
    error, scale = np.abs(ours - theirs).max(), np.abs(theirs).max()
    return float(error / scale) if scale > 0 else (0.0 if error == 0 else float("inf"))


def table(report: Report, count: int = 5) -> str:
    """Returns the layers that differ most and the feature maps as text."""
    errors = {name: np.nan_to_num(error, nan=np.inf) for name, error in report.layers.items()}
    worst = sorted(errors, key=lambda name: -errors[name])[:count]
    kept = dict.fromkeys([*worst, *report.taps])
    width = max(map(len, kept))
    lines = [f"{len(report.layers)} layers compared; largest difference over largest value:"]
    for name in kept:
        tap = f"  tap {report.taps.index(name)}" if name in report.taps else ""
        lines.append(f"  {name.ljust(width)}  {report.layers[name]:.1e}{tap}")
    if report.not_compared:
        alike = dict.fromkeys(re.sub(r"\.\d+\.", ".*.", key) for key in report.not_compared)
        lines.append(f"not compared, no output of their own: {', '.join(alike)}")
    return "\n".join(lines)


def outputs(
    architecture: Architecture, variables: Tree, image: np.ndarray
) -> tuple[list[np.ndarray], dict[tuple[str, ...], np.ndarray]]:
    """Returns all feature maps, and the outputs of modules by path, in the order of computation."""
    order: dict[tuple[str, ...], None] = {}
    options = known_options(architecture, padding="zeros", final_norm=True, tap_at="block")
    every = tuple(range(len(architecture.spec.channels)))
    network = architecture.factory(taps=every, **options)

    def keep(module: Any, method: str) -> bool:
        order.pop(module.path, None)
        order[module.path] = None
        return method == "__call__"

    @jax.jit
    def run(variables: Tree, image: jax.Array) -> Any:
        return network.apply(
            variables, image, capture_intermediates=keep, mutable=["intermediates"]
        )

    # Accelerators would take shorter numbers for products.
    with jax.default_matmul_precision("highest"):
        taps, state = run(variables, image)
    # The last call of each: a norm behind every tap is, in PyTorch, behind the deepest.
    last = {path[:-1]: calls[-1] for path, calls in flatten_dict(state["intermediates"]).items()}
    found = {}
    for path in filter(None, order):
        output = last.get(path)
        if isinstance(output, dict):  # a block that can be tapped in several places
            output = output["block"]
        if output is not None and not isinstance(output, tuple):
            found[path] = np.asarray(output)
    return [np.asarray(tap) for tap in taps], found
