"""For the site: links from a page to files outside of docs/ become plain text; notebooks are pages.

A page that consists of the line `<!-- notebook: python.py -->` shows that file, a notebook in
Jupytext's percent format.
"""

import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+[^)\s]+)\)")
_NOTEBOOK = re.compile(r"^<!-- notebook: (\w+\.py) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Drops the targets that only a checkout has, such as `../flowad_jax/methods/cflow.py`."""
    docs, folder = Path(config.docs_dir), Path(page.file.abs_src_path).parent

    def plain(link: re.Match[str]) -> str:
        target = (folder / link[2].partition("#")[0]).resolve()
        return link[0] if target.is_relative_to(docs) else link[1]

    markdown = _NOTEBOOK.sub(lambda found: as_page((folder / found[1]).read_text()), markdown)
    return _LINK.sub(plain, markdown)


def cells(notebook: str) -> list[tuple[bool, str]]:
    """Returns the cells of a notebook in percent format: whether one is code, and its text."""
    found = re.split(r"^# %%(.*)\n", notebook, flags=re.MULTILINE)[1:]
    kinds = [kind.strip() != "[markdown]" for kind in found[::2]]
    return list(zip(kinds, map(str.strip, found[1::2]), strict=True))


def as_page(notebook: str) -> str:
    """Returns a notebook in percent format as Markdown."""
    return "\n\n".join(
        f"```python\n{text}\n```" if is_code else re.sub(r"^# ?", "", text, flags=re.MULTILINE)
        for is_code, text in cells(notebook)
    )
