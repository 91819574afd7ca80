"""The documents lead to files, headings, recipes and symbols that exist.

A link to code is written ``[`module.symbol`](path/module.py)``: the module is the file's name, or
the folder's for an ``__init__.py``; the symbol may have dots, as in ``flow.Flow.inverse``.
"""

import ast
import re
from pathlib import Path

import pytest

from benchmarks import encoder_parity, encoder_table
from benchmarks.performance import table as performance_table
from flowad_jax import lookup
from flowad_jax.encoders import architecture, verify

ROOT = Path(__file__).parents[1]
MATHS = ROOT / "docs" / "maths.md"
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
METHODS = sorted(p for p in (ROOT / "flowad_jax" / "methods").glob("*.py") if p.stem[0] != "_")

FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
NAMED = re.compile(r"`(\w+)\.([\w.]+)`")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def prose(document):
    """The text outside of fenced blocks."""
    return FENCE.sub("", document.read_text(encoding="utf-8"))


def links(document):
    """(text, file, anchor) of every relative link and picture."""
    for text, target in LINK.findall(prose(document)):
        if "://" not in target and not target.startswith("mailto:"):
            path, _, anchor = target.partition("#")
            yield text, (document.parent / path).resolve() if path else document, anchor


def anchors(document):
    """The anchors that GitHub gives to headings."""
    kept = (re.sub(r"[^\w\- ]", "", title.lower()) for title in HEADING.findall(prose(document)))
    return {title.replace(" ", "-") for title in kept}


def symbol_links():
    """(document, module, symbol, file) of every link to code that names a symbol."""
    for document in DOCUMENTS:
        for text, file, _ in links(document):
            named = NAMED.fullmatch(text)
            if named and file.suffix == ".py" and named[2] != "py":
                yield document.name, named[1], named[2], file


def defines(source, symbol):
    """Whether a module, given as text, itself defines a symbol: imported names do not count."""
    body = ast.parse(source).body
    for name in symbol.split("."):
        nodes = [node for node in body if name in _names(node)]
        if not nodes:
            return False
        body = getattr(nodes[0], "body", [])
    return True


def _names(node):
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    return {target.id for target in targets if isinstance(target, ast.Name)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_links_lead_somewhere(document):
    for text, file, anchor in links(document):
        assert file.exists(), f"{document.name}: [{text}] leads to {file}"
        if anchor:
            assert anchor in anchors(file), f"{document.name}: {file.name} has no #{anchor}"


def test_named_symbols_are_defined_where_the_links_say():
    found = list(symbol_links())
    assert found
    for document, module, symbol, file in found:
        own = file.parent.name if file.stem == "__init__" else file.stem
        assert module == own, f"{document}: {module}.{symbol} leads to {own}"
        assert defines(file.read_text(encoding="utf-8"), symbol), f"{document}: {module}.{symbol}"


def test_every_link_of_the_maths_to_code_names_a_symbol():
    code = [text for text, file, _ in links(MATHS) if file.suffix == ".py"]
    assert [text for text in code if not NAMED.fullmatch(text)] == []


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.stem)
def test_the_maths_leads_to_every_method(method):
    assert method in {file for _, file, _ in links(MATHS)}


def test_maths_survives_markdown():
    """GitHub wants a formula whole, and takes a backslash before punctuation for an escape."""
    inline = re.findall(r"\$([^$]+)\$", prose(MATHS))
    assert prose(MATHS).count("$") == 2 * len(inline) > 0
    for formula in inline:
        assert re.fullmatch(r"\S(.*\S)?", formula), f"${formula}$ is cut or has blanks at its ends"
        assert not re.search(r"\\[^a-zA-Z]", formula), f"${formula}$ would lose a backslash"


def test_the_table_of_encoders_is_what_its_command_prints():
    page = encoder_table.PAGE.read_text(encoding="utf-8")
    rows = encoder_table.table(encoder_parity.read(encoder_table.PARITY))
    assert rows in page, "run: python -m benchmarks.encoder_table --write"
    assert encoder_table.filled(page, rows) == page


def test_the_tables_of_performance_are_what_their_command_prints():
    page = performance_table.PAGE.read_text(encoding="utf-8")
    sections = performance_table.text(performance_table.read())
    wanted = "run: python -m benchmarks.performance.table --write"
    assert performance_table.filled(page, sections) == page, wanted


def test_every_encoder_was_compared_with_pytorch():
    rows = encoder_parity.read(encoder_table.PARITY)
    names = lookup.choices(architecture.PACKAGE)
    assert sorted(rows) == names, "run: python -m benchmarks.encoder_parity --output=..."
    for name in names:
        spec = architecture.find(name).spec
        assert rows[name]["peer"] == (spec.peer or None)
        assert bool(spec.peer) == bool(spec.weights)
        if spec.peer:
            assert rows[name]["worst"] < verify.LIMIT, name
            assert rows[name]["image"] == [verify.side(spec)] * 2


@pytest.mark.parametrize(
    "name",
    ["efficientnet_lite.efficientnet_lite0", "resnet.resnet50", "vit.dinov2_vits14_reg"],
)
def test_the_table_counts_parameters_as_the_network_has_them(name):
    """Of the others, too, they come from a card; tracing all networks takes 20 seconds."""
    rows = encoder_parity.read(encoder_table.PARITY)
    assert rows[name]["parameters"] == encoder_table.parameters(architecture.find(name))


@pytest.mark.parametrize(
    ("symbol", "there"),
    [
        ("rate", True),
        ("Adam", True),
        ("Adam.eps", True),
        ("Adam.idle_step", True),
        ("LIMITS", True),
        ("rest", False),
        ("Adam.rate", False),
        ("Adam.eps.rest", False),
        ("optax", False),
    ],
)
def test_defines(symbol, there):
    source = "\n".join(
        [
            "import optax",
            "LIMITS = (1, 2)",
            "def rate(step): return step",
            "class Adam:",
            "    eps: float = 1e-8",
            "    def idle_step(self): pass",
        ]
    )
    assert defines(source, symbol) is there
