"""The notebooks of the documentation run from top to bottom, as Jupyter would run them."""

import ast
from pathlib import Path

import pytest

from docs import hooks

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "tutorials").glob("*.py"))


# What a machine for tests does instead of minutes of training: all else is as it is read.
SHORTER = ("image_size=128, epochs=8", "image_size=64, epochs=1, blocks=(1, 1, 1)")


def run(notebook):
    """Executes all cells; returns what they show, an expression at their end."""
    names, shown, script = {}, [], notebook.read_text()
    assert SHORTER[0] in script
    for is_code, text in hooks.cells(script.replace(*SHORTER)):
        if not is_code:
            continue
        *body, last = ast.parse(text).body
        ends = isinstance(last, ast.Expr)
        exec(compile(ast.Module(body if ends else [*body, last], []), notebook.name, "exec"), names)
        if ends:
            value = eval(compile(ast.Expression(last.value), notebook.name, "eval"), names)
            shown.append(value)
            getattr(value, "_repr_html_", value.__repr__)()
    return shown


@pytest.mark.whole
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = run(notebook)
    assert repr(shown[0]).startswith("Detector(msflow, efficientnet_lite.efficientnet_lite0")
    assert shown[1]["promised"] == pytest.approx(0.1)
    assert (tmp_path / "bricks" / "report.html").is_file()
    assert (tmp_path / "overlay.png").is_file()


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_page_of_a_notebook_has_all_of_it(notebook):
    text = notebook.read_text()
    page = hooks.as_page(text)
    assert notebook.with_suffix(".md").read_text() == f"<!-- notebook: {notebook.name} -->\n"
    assert page.startswith("# ")
    assert page.count("```python\n") == text.count("# %%\n")
    for line in filter(None, map(str.strip, text.splitlines())):
        assert line.startswith("# %%") or line.removeprefix("#").strip() in page
