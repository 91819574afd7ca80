"""Moves tensors between PyTorch's names and layouts and ours, completely or not at all.

An encoder family states its naming once, as ``torch_key(path) -> key``; the table of `rules` that
follows from it drives the conversion in both directions.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from flowad_jax.errors import UserError, one_line, printable
from flowad_jax.weights.unpickler import shown

TorchKey = Callable[[tuple[str, ...]], str]


class ConversionError(UserError):
    """A file and a network do not fit.

    Attributes:
      missing: our variables without a tensor in the file, as ``"variable <- torch key"``.
      mismatched: tensors of another shape or kind of number than their variable.
      unused: torch keys that no variable uses and that may not be ignored.
    """

    def __init__(
        self,
        source: str,
        missing: list[str],
        mismatched: list[str],
        unused: list[str],
        advice: str = "name the architecture it was saved from",
    ):
        self.missing = missing
        self.mismatched = mismatched
        self.unused = unused
        counts = (
            f"{len(missing)} variables without a tensor{_first(missing)}, "
            f"{len(mismatched)} tensors of another shape{_first(mismatched)}, "
            f"{len(unused)} tensors unused{_first(unused)}"
        )
        super().__init__(f"{source} does not fit the network: {counts}; {advice}")

    def lists(self) -> str:
        """All three lists in full, one entry per line."""
        named = {
            "variables without a tensor": self.missing,
            "tensors of another shape": self.mismatched,
            "tensors unused": self.unused,
        }
        return "\n".join(
            "\n  ".join([f"{len(entries)} {name}:", *map(one_line, entries)])
            for name, entries in named.items()
            if entries
        )


class Rule(NamedTuple):
    """One line of the conversion table.

    Attributes:
      path: our variable, e.g. ``("params", "layer1_0", "conv1", "kernel")``.
      key: its torch name, e.g. ``"layer1.0.conv1.weight"``.
      shape: in our layout.
      torch_shape: in torch's.
      dtype: ours.
    """

    path: tuple[str, ...]
    key: str
    shape: tuple[int, ...]
    torch_shape: tuple[int, ...]
    dtype: np.dtype


def rules(target: Any, torch_key: TorchKey) -> list[Rule]:
    """The conversion table of a network.

    Args:
      target: variables as arrays or, from ``jax.eval_shape``, `jax.ShapeDtypeStruct`.
      torch_key: the torch name of a variable path.
    """
    return [
        Rule(path, torch_key(path), leaf.shape, _torch_shape(path, leaf.shape), leaf.dtype)
        for path, leaf in flatten_dict(target).items()
    ]


def to_flax(
    flat: Mapping[str, np.ndarray],
    target: Any,
    torch_key: TorchKey,
    ignorable: Sequence[str],
    source: str,
) -> dict[str, Any]:
    """Converts a torch state dict; every tensor has to be used and every variable set.

    Args:
      flat: ``{torch key: tensor}``.
      target: variables as `jax.ShapeDtypeStruct`.
      torch_key: the torch name of a variable path.
      ignorable: regular expressions of torch keys that may stay unused.
      source: what the tensors come from, for messages.

    Returns:
      Variables shaped like ``target``. Where the type of number fits they are views of the
      tensors, so that a large file is in memory once; they may be read-only.

    Raises:
      ConversionError: anything is missing, left over or of another shape.
      UserError: a tensor holds what `require_finite` refuses.
    """
    table = rules(target, torch_key)
    used = {rule.key for rule in table}
    ignored = re.compile("|".join(f"(?:{pattern})" for pattern in ignorable) or r"(?!)")
    missing = [f"{'/'.join(rule.path)} <- {rule.key}" for rule in table if rule.key not in flat]
    mismatched = [mismatch(rule, flat[rule.key]) for rule in table if rule.key in flat]
    mismatched = [text for text in mismatched if text]
    unused = [key for key in flat if key not in used and not ignored.fullmatch(key)]
    if missing or mismatched or unused:
        raise ConversionError(source, missing, mismatched, unused)
    with np.errstate(over="ignore"):  # what is too large for a type becomes infinite
        variables = {
            rule.path: np.asarray(_from_torch(rule.path, flat[rule.key]), rule.dtype)
            for rule in table
        }
    require_finite({rule.key: variables[rule.path] for rule in table}, source)
    return unflatten_dict(variables)


def require_finite(tensors: Mapping[str, np.ndarray], source: str) -> None:
    """Makes sure that weights are numbers, and variances no negative ones.

    Args:
      tensors: by name; names of ours and PyTorch's tell which are variances.
      source: what the tensors come from, for messages.

    Raises:
      UserError: the first tensor with another value; the message names it.
    """
    for name, tensor in tensors.items():
        wrong = ""
        if tensor.size == 0 or tensor.dtype.kind in "biu":
            continue
        with np.errstate(invalid="ignore"):
            low, high = np.min(tensor), np.max(tensor)  # NaN if any value is
        if tensor.dtype.kind == "c":
            wrong = "complex numbers"
        elif not (np.isfinite(low) and np.isfinite(high)):
            wrong = "NaN or infinite values"
        elif low < 0 and name.endswith(("running_var", "/var")):
            wrong = "negative variances"
        if wrong:
            raise UserError(
                f"{source}: the tensor {shown(name)} holds {wrong}, so nothing that it computes "
                "means anything: fetch the file again, or take one from before training failed"
            )


def to_torch(variables: Any, torch_key: TorchKey) -> dict[str, np.ndarray]:
    """The inverse of `to_flax`: ``{torch key: tensor}``, ignorable tensors left out."""
    views = to_torch_views(variables, torch_key)
    return {key: np.array(tensor, order="C") for key, tensor in views.items()}


def to_torch_views(variables: Any, torch_key: TorchKey) -> dict[str, np.ndarray]:
    """The same as views, so that a large file is in memory once; in any order in memory."""
    return {
        torch_key(path): _to_torch(path, np.asarray(leaf))
        for path, leaf in flatten_dict(variables).items()
    }


def require_shapes(variables: Any, target: Any, source: str, **options: str) -> None:
    """Compares variables with what a network needs.

    Args:
      variables: nested dict of arrays.
      target: the same of `jax.ShapeDtypeStruct`.
      source: what the variables come from, for messages.
      **options: of `ConversionError`.

    Raises:
      ConversionError: names or shapes differ.
    """
    found = {"/".join(path): leaf.shape for path, leaf in flatten_dict(variables).items()}
    needed = {"/".join(path): leaf.shape for path, leaf in flatten_dict(target).items()}
    if found == needed:
        return
    raise ConversionError(
        source,
        missing=sorted(needed.keys() - found.keys()),
        mismatched=[
            f"{path}: {found[path]}, needed {shape}"
            for path, shape in needed.items()
            if found.get(path, shape) != shape
        ],
        unused=sorted(found.keys() - needed.keys()),
        **options,
    )


def cast(variables: Any, target: Any, source: str) -> dict[str, Any]:
    """The same variables in the target's types of number; a view wherever the type fits.

    Raises:
      UserError: a number is too large for its type.
    """
    wanted = flatten_dict(target)
    with np.errstate(over="ignore"):
        found = {
            path: np.asarray(leaf, wanted[path].dtype)
            for path, leaf in flatten_dict(variables).items()
        }
    require_finite({"/".join(path): leaf for path, leaf in found.items()}, source)
    return unflatten_dict(found)


def mismatch(rule: Rule, tensor: np.ndarray) -> str:
    """What keeps a tensor from becoming a variable, or an empty string."""
    fits = tensor.shape == rule.torch_shape and np.can_cast(tensor.dtype, rule.dtype, "same_kind")
    found = f"{tensor.shape} {tensor.dtype}"
    return "" if fits else f"{rule.key}: {found}, needed {rule.torch_shape} {rule.dtype}"


def _has_channels_first(path: tuple[str, ...], rank: int) -> bool:
    """Torch keeps kernels as (out, in, *window), Flax as (*window, in, out)."""
    return path[-1] == "kernel" and rank >= 2


def _from_torch(path: tuple[str, ...], tensor: np.ndarray) -> np.ndarray:
    return (
        np.moveaxis(tensor, (0, 1), (-1, -2)) if _has_channels_first(path, tensor.ndim) else tensor
    )


def _to_torch(path: tuple[str, ...], tensor: np.ndarray) -> np.ndarray:
    return (
        np.moveaxis(tensor, (-1, -2), (0, 1)) if _has_channels_first(path, tensor.ndim) else tensor
    )


def _torch_shape(path: tuple[str, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[-1], shape[-2], *shape[:-2]) if _has_channels_first(path, len(shape)) else shape


def _first(entries: list[str], count: int = 3) -> str:
    if not entries:
        return ""
    more = ", ..." if len(entries) > count else ""
    return f" ({', '.join(printable(entry)[:120] for entry in entries[:count])}{more})"
