"""Who may import whom: lower layers never import higher ones."""

import ast
import graphlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "flowad_jax"
# Modules by layer, lowest first. Within a layer modules may import each other, unless APART.
LAYERS = (
    {
        "errors",
        "flowad_runtime",
        "canvas",
        "annotations",
        "arguments",
        "types",
        "lookup",
        "files",
        "archive",
        "schema",
        "settings",
        "lock",
        "jax_config",
        "parallel",
        "interrupt",
        "memory",
        "version",
    },
    {"ops", "weights", "recipes", "onnx"},
    {"flows", "encoders"},
    {"synthesis"},
    {"data"},
    {"methods"},
    {"features", "evaluation"},
    {"detector", "report"},
    {"training", "inference"},
    {"sweep", "conversion", "bundle", "feedback", "reproduction", "comparison"},
    {"recalibration", "submission"},
    {"api", "doctor", "serve"},
    {"cli", "__main__"},
)
APART = (
    {"flows", "encoders"},
    {"features", "evaluation"},
    {"detector", "report"},
    {"training", "inference"},
    {"sweep", "conversion", "bundle", "feedback", "reproduction", "comparison"},
)
# What a part must not import although it is lower, or foreign packages it has to do without.
FORBIDDEN = {
    "onnx": {"ops", "weights", "recipes", "flax"},
    "flows": {"weights"},
    "data": {"jax", "flax", "weights", "flows", "encoders"},
    "synthesis": {"jax", "flax", "weights", "flows", "encoders"},
    "methods": {"encoders", "data", "optax"},
    "features": {"flows", "encoders", "methods", "optax"},
    "evaluation": {"encoders", "data", "optax"},
}
FILES = sorted([*PACKAGE.rglob("*.py"), *(PACKAGE / "recipes").rglob("*.py")])  # that is a link


def part_of(file):
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(file):
    """Dotted names that a file imports, at the top or inside functions, not for annotations."""
    tree = ast.parse(file.read_text())
    annotations = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in annotations:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(part):
    return next(index for index, members in enumerate(LAYERS) if part in members)


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_point_downwards(file):
    part = part_of(file)
    if part == "__init__":
        return
    for name in imports(file):
        top, *rest = name.split(".")
        other = rest[0] if top == "flowad_jax" and rest else top
        assert other not in FORBIDDEN.get(part, set()), f"{part} must not import {name}"
        assert top != "torch", "PyTorch is for tests and benchmarks only"
        if top != "flowad_jax" or not any(other in members for members in LAYERS):
            continue
        assert layer(other) <= layer(part_of(file)), f"{part} must not import {name}"
        apart = any({part, other} <= group and part != other for group in APART)
        assert not apart, f"{part} and {other} must not know each other"


def test_the_runtime_of_exported_detectors_does_without_the_package():
    """It has no own names at the top, is copied as it is, and needs no more than it says."""
    runtime = PACKAGE / "flowad_runtime"
    known = {*sys.stdlib_module_names, "numpy", "PIL", "onnxruntime", "openvino"}
    for file in [PACKAGE / "bundle" / "run.py", *runtime.glob("*.py")]:
        relative = {"flowad_runtime", *(other.stem for other in runtime.glob("*.py"))}
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                assert {alias.name.partition(".")[0] for alias in node.names} <= known, file.name
            if isinstance(node, ast.ImportFrom):
                top = (node.module or node.names[0].name).partition(".")[0]
                is_ours = top in relative and (node.level or file.name == "run.py")
                assert is_ours or top in known, f"{file.name} must not import {top}"


def test_no_module_imports_itself_by_detours():
    names = {
        ".".join(("flowad_jax", *f.relative_to(PACKAGE).with_suffix("").parts)): f for f in FILES
    }
    graph = {
        name: {n if n in names else n.rpartition(".")[0] for n in imports(file)} & names.keys()
        for name, file in names.items()
    }
    assert set(graphlib.TopologicalSorter(graph).static_order()) == names.keys()


def test_every_part_has_a_layer():
    parts = {part_of(file) for file in FILES} - {"__init__"}
    assert parts == set().union(*LAYERS)


def test_only_one_module_imports_distrax():
    users = [file.name for file in FILES if any(n.startswith("distrax") for n in imports(file))]
    assert users == ["bijector.py"]


def test_only_one_module_imports_orbax():
    users = [file.name for file in FILES if any(n.startswith("orbax") for n in imports(file))]
    assert users == ["checkpoint.py"]


def calls(file):
    """Dotted names of what a file calls."""
    return {
        ast.unparse(n.func)
        for n in ast.walk(ast.parse(file.read_text()))
        if isinstance(n, ast.Call)
    }


def test_only_one_module_makes_configs_of_what_is_stored():
    """It refuses names that would import code: whatever reads a config has to go through it."""
    users = [file.name for file in FILES if any(n.endswith("ConfigDict") for n in calls(file))]
    assert users == ["config_schema.py", "sections.py"]


def test_json_of_others_is_read_by_one_module():
    """These read what has no fixed shape, or what may be damaged without a word."""
    others = {"outputs.py", "config_schema.py", "lock.py", "output_lines.py", "store.py"}
    runtime = PACKAGE / "flowad_runtime"  # which does without the package
    files = [file for file in FILES if not file.is_relative_to(runtime)]
    users = {file.name for file in files if {"json.loads", "json.load"} & calls(file)}
    assert users == others | {"schema.py"}


def test_recipes_import_only_recipes_and_what_makes_sections():
    for file in (PACKAGE / "recipes").rglob("*.py"):
        for name in imports(file):
            known = name.startswith(("flowad_jax.recipes.", "ml_collections.", "typing."))
            assert known or name == "flowad_jax.settings.sections.section", f"{file.name}: {name}"
