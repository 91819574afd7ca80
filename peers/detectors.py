"""Detectors of every dialect in PyTorch: what they save, and what they say about feature maps.

Importing this needs no torch, calling it does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

DIALECTS = ("cflow", "sanflow", "msflow", "ssnf", "anomalib")
DEFAULTS: dict[str, dict[str, Any]] = {
    "cflow": {"condition": 128, "blocks": 8, "clamp": 1.9, "permutation": "soft"},
    "sanflow": {"condition": 512, "blocks": 8, "clamp": 1.9, "permutation": "hard"},
    "msflow": {"condition": 64, "blocks": (2, 5, 8), "clamp": 1.9},
    "ssnf": {"blocks": 10, "hidden": 128, "heads": 4, "clamp": 2.0},
    "anomalib": {"condition": 128, "blocks": 8, "clamp": 1.9, "permutation": "hard"},
}


class Detector:
    """The trained part of a detector.

    Attributes:
      dialect: one of `DIALECTS`.
      freia: version of the coupling blocks, see `peers.freia`.
      flows: torch modules, shallow first; for MSFlow and SSNF a single one.
      net: the network that predicts SANFlow's variance, else None.
    """

    def __init__(
        self, dialect: str, channels: tuple[int, ...], freia: str, options: Mapping[str, Any]
    ):
        """Draws fresh modules; see `build`."""
        from peers import sanflow

        self.dialect, self.freia = dialect, freia
        known = DEFAULTS[dialect]
        self._options = known | {name: options[name] for name in known if name in options}
        self._parametrized = bool(options.get("parametrized"))
        self.flows = self._made(channels)
        self.net = sanflow.VarianceNet().eval() if dialect == "sanflow" else None

    def _made(self, channels: tuple[int, ...]) -> list[Any]:
        from peers import freia, msflow, ssnf

        given, version = self._options, self.freia
        if self.dialect == "msflow":
            return [msflow.MSFlow(channels, **given, version=version)]
        if self.dialect == "ssnf":

            def subnet(wide: int, out: int) -> Any:
                return ssnf.ResidualNet(
                    wide, out, given["hidden"], given["heads"], self._parametrized
                )

            shape = (channels[0], 1, 1)
            chain = (0, given["blocks"], given["clamp"], "hard", subnet, version)
            return [freia.chain(shape, *chain)]
        return [freia.chain((count,), **given, version=version) for count in channels]

    def content(
        self, encoder: Mapping[str, Any] | None = None, prefix: str = "flow_model."
    ) -> dict[str, Any]:
        """What ``torch.save`` is given.

        Args:
          encoder: its state dict, for dialects that hold one.
          prefix: of SSNF's names.
        """
        from peers import freia

        states = [freia.named(flow.state_dict(), self.freia) for flow in self.flows]
        if self.dialect == "ssnf":
            return {prefix + key: tensor for key, tensor in states[0].items()}
        if self.dialect == "msflow":
            return _msflow_content(self.flows[0])
        if self.dialect == "anomalib":
            return _anomalib_content(states, encoder or {}, self._options)
        found = {"encoder_state_dict": dict(encoder or {}), "decoder_state_dict": states}
        return found | ({"variance": self.net.state_dict()} if self.net else {})

    def load(self, content: Mapping[str, Any]) -> None:
        """Takes over the flows of a checkpoint, strictly.

        Raises:
          RuntimeError: names or shapes differ.
        """
        from peers import freia

        for flow, state in zip(self.flows, _states(self.dialect, content), strict=True):
            flow.load_state_dict(_tensors(freia.today(state)))
        if self.net is not None:
            self.net.load_state_dict(_tensors(content["variance"]))

    def log_probs(self, maps: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Log-likelihood maps (B, h, w) as our methods have them.

        Args:
          maps: (B, h, w, C), shallow first; for SANFlow the image (B, H, W, 3) is the last.
        """
        import torch

        from peers import ssnf

        tensors = [torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))) for x in maps]
        with torch.no_grad():
            if self.dialect == "msflow":
                return [x.numpy() for x in self.flows[0].log_probs(tensors)]
            if self.dialect == "ssnf":
                z, _ = self.flows[0](tensors[0])
                return [ssnf.normality(z).numpy()]
            logs = self.net(tensors.pop()) if self.net else None
            return [self._rows(flow, x, logs) for flow, x in zip(self.flows, tensors, strict=True)]

    def _rows(self, flow: Any, feature_map: Any, logs: Any) -> np.ndarray:
        from peers import cflow, msflow, sanflow

        images, channels, height, width = feature_map.shape
        rows = feature_map.permute(0, 2, 3, 1).reshape(-1, channels)
        code = msflow.position_code(self._options["condition"], height, width)
        code = code[0].flatten(1).T.repeat(images, 1)
        if logs is None:
            out = cflow.log_prob(flow, rows, code)
        else:
            own = sanflow.corners(logs, (height, width)).reshape(-1, 2)
            z, log_det = flow(rows, [code])
            out = sanflow.log_prob(z, log_det, own)
        return out.numpy().reshape(images, height, width)


def build(
    dialect: str,
    channels: tuple[int, ...],
    *,
    freia: str = "0.2",
    seed: int = 0,
    strength: float = 4.0,
    **options: Any,
) -> Detector:
    """A detector with weights in which every tensor shows, as after training.

    Args:
      dialect: one of `DIALECTS`.
      channels: of the feature maps, shallow first.
      freia: version of the coupling blocks, see `peers.freia`.
      seed: of all weights.
      strength: factor of the sub-networks' last layers; with 4 the log-scales come near their
        bound, where few channels allow it: many would blow rounding up.
      **options: of our method; those that no PyTorch module has are ignored.
    """
    import torch

    torch.manual_seed(seed)
    np.random.seed(seed)
    made = Detector(dialect, channels, freia, options)
    for module in (*made.flows, *([made.net] if made.net else [])):
        for name, tensor in module.state_dict().items():
            _shake(name, tensor, strength)
    return made


def load(
    dialect: str,
    content: Mapping[str, Any],
    channels: tuple[int, ...],
    *,
    freia: str = "0.2",
    **options: Any,
) -> Detector:
    """The detector of a checkpoint, whose leaves may be tensors or arrays; see `build`.

    Raises:
      RuntimeError: names or shapes differ from those of the modules.
    """
    tensors = content if dialect == "ssnf" else {}
    newer = any("parametrizations" in key for key in tensors)
    made = Detector(dialect, channels, freia, {**options, "parametrized": newer})
    made.load(content)
    return made


def _shake(name: str, tensor: Any, strength: float) -> None:
    """Moves a tensor away from how it starts, in place."""
    import torch

    if not tensor.is_floating_point() or "perm" in name:
        return
    if name.endswith("running_var"):
        tensor.uniform_(0.5, 2.0)
    elif name.endswith(("subnet.2.weight", "conv2.weight", "gate2.weight")) and tensor.ndim > 1:
        tensor.mul_(strength)
    else:
        tensor.add_(0.2 * torch.randn_like(tensor) * max(float(tensor.abs().mean()), 0.2))


def _states(dialect: str, content: Mapping[str, Any]) -> list[dict[str, Any]]:
    if dialect == "ssnf":
        return [{key.removeprefix("flow_model."): value for key, value in content.items()}]
    if dialect == "msflow":
        flows = {
            f"parallel_flows.{index}.{key}": value
            for index, state in enumerate(content["parallel_flows"])
            for key, value in state.items()
        }
        return [flows | _in_scale_order(content["fusion_flow"], content["parallel_flows"])]
    if dialect == "anomalib":
        flat, count = content["state_dict"], 0
        found = []
        while any(key.startswith(f"model.decoders.{count}.") for key in flat):
            start = f"model.decoders.{count}."
            found.append({k.removeprefix(start): v for k, v in flat.items() if k.startswith(start)})
            count += 1
        return found
    return [dict(state) for state in content["decoder_state_dict"]]


def _in_scale_order(
    fusion: Mapping[str, Any], parallel: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The fusion flow with every channel order under the scale of its length."""
    counts = [state["module_list.0.global_scale"].shape[1] for state in parallel]
    found = {}
    for key, value in fusion.items():
        last = key.rpartition(".")[2]
        if last in ("perm", "perm_inv"):
            key = f"module_list.{counts.index(len(value))}.{last}"
        found[f"fusion_flow.{key}"] = value
    return found


def _msflow_content(network: Any) -> dict[str, Any]:
    """With the scales' orders the other way round, as they may come, and an optimizer's state."""
    import torch

    fusion, count = network.fusion_flow.state_dict(), len(network.parallel_flows)
    turned = {}
    for key, value in fusion.items():
        index = int(key.split(".")[1])
        if index < count:
            key = key.replace(f".{index}.", f".{count - 1 - index}.")
        turned[key] = value
    adam = torch.optim.Adam(p for p in network.parameters() if p.requires_grad)
    return {
        "epoch": 3,
        "fusion_flow": turned,
        "parallel_flows": [flow.state_dict() for flow in network.parallel_flows],
        "optimizer": adam.state_dict(),
    }


def _anomalib_content(
    states: Sequence[Mapping[str, Any]], encoder: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    import torch

    tensors = {f"model.encoder.feature_extractor.{key}": value for key, value in encoder.items()}
    for index, state in enumerate(states):
        tensors |= {f"model.decoders.{index}.{key}": value for key, value in state.items()}
    tensors |= {
        "image_threshold.value": torch.tensor(0.5),
        "pixel_threshold.value": torch.tensor(1),
    }
    return {
        "epoch": 7,
        "global_step": 80,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": tensors,
        "loops": {},
        "callbacks": {},
        "optimizer_states": [],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {
            "backbone": "resnet18",
            "layers": ("layer2", "layer3"),
            "condition_vector": options["condition"],
            "coupling_blocks": options["blocks"],
            "clamp_alpha": options["clamp"],
            "permute_soft": options["permutation"] == "soft",
            "fiber_batch_size": 64,
            "lr": 1e-4,
        },
    }


def _tensors(state: Mapping[str, Any]) -> dict[str, Any]:
    import torch

    return {
        key: torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value
        for key, value in state.items()
    }
