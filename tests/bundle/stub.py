"""A small exported detector: mean brightness is the map, its largest value the score."""

import functools
import hashlib
import json
from types import SimpleNamespace

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from flowad_jax.bundle.runtime import copy
from flowad_jax.canvas import Canvas
from flowad_jax.evaluation.decisions import Decisions
from flowad_jax.inference.predictor import Predictor
from flowad_jax.types import Scores

BACKENDS = ("onnxruntime", "openvino")
SIDE = 32
NORMAL = [[*np.linspace(0.1, 0.5, 19)]]


@functools.cache
def model(folds=1, height=SIDE, width=SIDE, batch="B", pad=False, broken=False):
    """Scores are brightness times 1, 2, ... for the parts of the detector."""
    factors = np.arange(1, folds + 1, dtype=np.float32)[None]
    named = {
        "full": np.float32(765),
        "colours": np.int64([3]),
        "sides": np.int64([1, 2]),
        "factors": factors,
        "last": np.int64([1]),
        "none": np.float32(0),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["floats", "colours"], ["sum"], keepdims=0),
        helper.make_node("Div", ["sum", "full"], ["plain"]),
    ]
    info = helper.make_tensor_value_info
    if broken:  # 0 / 0
        named["full"] = np.float32(np.nan)
    inputs = [info("image", TensorProto.UINT8, [batch, height, width, 3])]
    if pad:  # an input that nothing needs may be dropped
        nodes += [
            helper.make_node("Cast", ["place"], ["place_floats"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", ["place_floats", "last"], ["total"], keepdims=1),
            helper.make_node("Mul", ["total", "none"], ["nothing"]),
            helper.make_node("Unsqueeze", ["nothing", "last"], ["nothings"]),
            helper.make_node("Add", ["plain", "nothings"], ["map"]),
        ]
        inputs.append(info("place", TensorProto.INT32, [batch, 4]))
    else:
        nodes.append(helper.make_node("Identity", ["plain"], ["map"]))
    nodes += [
        helper.make_node("ReduceMax", ["map", "sides"], ["most"], keepdims=0),
        helper.make_node("Unsqueeze", ["most", "last"], ["column"]),
        helper.make_node("Mul", ["column", "factors"], ["score"]),
    ]
    outputs = [
        info("score", TensorProto.FLOAT, [batch, folds]),
        info("map", TensorProto.FLOAT, [batch, height, width]),
    ]
    weights = [numpy_helper.from_array(np.asarray(x), name) for name, x in named.items()]
    graph = helper.make_graph(nodes, "bright", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def card(content, *, normal=NORMAL, peak=None, rate=0.1, kind="split", threshold=None, **image):
    """What `flowad export` says about a detector with these normal scores."""
    peak = normal if peak is None else peak
    decisions = Decisions(
        *([np.array(x) for x in y] for y in (normal, peak)), rate, kind, threshold
    )
    canvas = {"height": SIDE, "width": SIDE, "fit": "stretch", "filter": "lanczos", "white": 65535}
    return {
        "format": 1,
        "name": "bright",
        "image": {**canvas, **image},
        "batch": {"dynamic": True, "most": 4},
        "calibration": {"kind": kind, "false_alarm_rate": rate, "image": normal, "peak": peak},
        "threshold": threshold,
        "card": decisions.card,
        "position": 1.0,
        "min_region": None,
        "files": {"model.onnx": {"sha256": hashlib.sha256(content).hexdigest()}},
    }


def write(folder, graph=None, change=None, runtime=False, **options):
    """Writes the detector into a folder, with a card that ``change`` may spoil."""
    folder.mkdir(parents=True, exist_ok=True)
    if graph is None:
        sizes = {k: options[k] for k in ("height", "width") if k in options}
        pad = options.get("fit") == "pad"
        graph = model(len(options.get("normal", NORMAL)), pad=pad, **sizes).SerializeToString()
    about = card(graph, **options)
    if change:
        change(about)
    (folder / "model.onnx").write_bytes(graph)
    (folder / "detector.json").write_text(json.dumps(about))
    if runtime:
        copy(folder)
    return folder


def read(folder):
    """The card of an exported detector."""
    return json.loads((folder / "detector.json").read_text())


class Bright(Predictor):
    """The same detector in the package, by the card of the exported one."""

    name, filter, white, batch_size = "bright", "lanczos", 65535, 4

    def __init__(self, card, rate=None, threshold=None):
        image, calibration = card["image"], card["calibration"]
        folds = [[np.array(x) for x in calibration[name]] for name in ("image", "peak")]
        self.normal = folds[0]
        rate = calibration["false_alarm_rate"] if rate is None else rate
        self._decisions = Decisions(*folds, rate, calibration["kind"], threshold)
        self.thresholds, self._logged = self._decisions.card, set()
        self.canvas = Canvas(image["height"], image["width"], image["fit"])
        self.position, self._folds = card["position"], len(folds[0])
        setting = {"min_region": card["min_region"]}
        self.model = SimpleNamespace(config=SimpleNamespace(eval=SimpleNamespace(**setting)))

    def log_probs(self, images):
        maps = np.stack(images).sum(-1).astype(np.float32) / np.float32(765)
        return [[maps * np.float32(1)] for _ in range(self._folds)]

    def _scores(self, log_probs, size=None):
        maps = [one for (one,) in log_probs]
        return [Scores(np.float32(k) * x.max((1, 2)), x, None) for k, x in enumerate(maps, 1)]
