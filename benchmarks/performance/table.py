"""The tables of all methods beside PyTorch in the docs, from the files in docs/performance.

    python -m benchmarks.performance.table
    python -m benchmarks.performance.table --write

The first command prints the tables, the second puts them between two comments of
docs/measured/speed.md.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import _common
from benchmarks.performance.jobs import EXPORTED
from flowad_jax import files
from flowad_jax.arguments import Parser
from flowad_jax.errors import UserError
from flowad_jax.report.results import markdown_table

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "measured" / "speed.md"
FOLDER = ROOT / "docs" / "performance"
BEGIN = "<!-- performance: python -m benchmarks.performance.table --write -->"
END = "<!-- /performance -->"
NAMES = {"cflow": "CFLOW-AD", "msflow": "MSFlow", "sanflow": "SANFlow", "ssnf": "SSNF"}
OURS, EAGER, COMPILED = "jax", "torch", "torch compile"
HEADER = (
    "method, batch",
    "training, images/s",
    "× eager",
    "× compile",
    "inference, images/s",
    "× eager",
    "× compile",
    "one image, ms",
    "× eager",
    "× compile",
    "memory, MiB: ours / eager / compile",
    "over floor: training / inference",
)
BY_BACKEND = ("× eager", "× compile", "× jax")
EXPORTED_HEADER = (
    HEADER[0],
    "run by",
    *("inference, images/s", *BY_BACKEND),
    *("one image, ms", *BY_BACKEND),
)
Entry = dict[str, Any]


def section(measured: Entry) -> str:
    """Title, device, command and table of one file."""
    versions = measured["versions"] | measured["peers"]
    named = ("jax", "torch", "FrEIA", "torchvision")
    about = ", ".join(f"{name} {versions[name]}" for name in named if name in versions)
    title = f"{measured['title']}: " if measured["title"] else ""
    lines = [
        f"{title}{measured['device']}, {measured['precision']}; {about}.",
        f"```\n{measured['command']}\n```",
        table(measured),
        *failures(measured),
    ]
    return "\n\n".join(lines)


def table(measured: Entry) -> str:
    """The tables in Markdown; a side that failed, or was not asked, has a dash.

    Sides that cannot train have a table of their own, and are alone if nothing was trained.
    """
    entries = measured["recipes"]
    exported = [
        _exported_row(entry, side)
        for entry in entries
        for side in (OURS, *EXPORTED)
        if entry["sides"].keys() & set(EXPORTED)
    ]
    tables = []
    if not exported or any("train" in entry["sides"].get(OURS, {}) for entry in entries):
        tables.append([HEADER, _rule(HEADER), *map(_row, entries)])
    if exported:
        tables.append([EXPORTED_HEADER, _rule(EXPORTED_HEADER), *exported])
    return "\n\n".join(map(markdown_table, tables))


def _rule(header: Sequence[str]) -> list[str]:
    return ["---" if name in EXPORTED_HEADER[:2] else "---:" for name in header]


def failures(measured: Entry) -> list[str]:
    """One line for every dash."""
    return [
        f"{NAMES.get(entry['method'], entry['method'])}, {side}, {job}: {found['error']}."
        for entry in measured["recipes"]
        for side, jobs in entry["sides"].items()
        for job, found in jobs.items()
        if "error" in found
    ]


def _title(entry: Entry) -> str:
    name, encoder = NAMES.get(entry["method"], entry["method"]), entry["encoder"]
    return f"{name}, `{encoder.rpartition('.')[2]}`, {entry['image_size']} px"


def _row(entry: Entry) -> list[str]:
    images = entry["images"]
    cells = [f"{_title(entry)}, {images['train']} / {images['infer']}"]
    for job in images:
        cells += _speed(entry, job, OURS, (EAGER, COMPILED))
    cells.append(" / ".join(_memory(entry, side) for side in (OURS, EAGER, COMPILED)))
    return [*cells, " / ".join(_over_floor(entry, job) for job in ("train", "infer"))]


def _exported_row(entry: Entry, side: str) -> list[str]:
    cells = [f"{_title(entry)}, {entry['images']['infer']}", side]
    for job in ("infer", "infer one"):
        cells += _speed(entry, job, side, (EAGER, COMPILED, OURS))
    return cells


def _speed(entry: Entry, job: str, side: str, others: Sequence[str]) -> list[str]:
    """Images per second, of one image milliseconds, and the seconds of others over the side's."""
    own = _seconds(entry, side, job)
    if not own:
        return ["-"] * (1 + len(others))
    theirs = (_seconds(entry, other, job) for other in others)
    shown = 1000 * own if job == "infer one" else entry["images"][job] / own
    return [f"{shown:.1f}", *(f"**{x / own:.2f}**" if x else "-" for x in theirs)]


def _seconds(entry: Entry, side: str, job: str) -> float | None:
    found: float | None = entry["sides"].get(side, {}).get(job, {}).get("median_s")
    return found


def _memory(entry: Entry, side: str) -> str:
    peak = entry["sides"].get(side, {}).get("train", {}).get("peak_bytes")
    return f"{peak / 2**20:.0f}" if peak else "-"


def _over_floor(entry: Entry, job: str) -> str:
    ours, floor = _seconds(entry, OURS, job), entry.get("floor", {}).get(job)
    return f"{ours / floor['floor_s']:.1f}" if ours and floor else "-"


def read(folder: Path = FOLDER) -> list[Entry]:
    """What was measured, file by file in the order of names.

    Raises:
      UserError: a file holds something else.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            measured = json.loads(path.read_text(encoding="utf-8"))
            section(measured)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: is no file of benchmarks.performance") from error
        found.append(measured)
    return found


def text(measured: list[Entry]) -> str:
    """All sections."""
    return "\n\n".join(map(section, measured))


def filled(page: str, sections: str) -> str:
    """The page with other tables.

    Raises:
      UserError: one of the comments around them is missing.
    """
    return _common.between(page, BEGIN, END, f"\n{sections}\n")


def main() -> None:
    """Prints the tables or writes them."""
    parser = Parser("python -m benchmarks.performance.table", __doc__)
    parser.add_argument("--write", action="store_true", help="put them into the page")
    options = parser.parse_args()
    try:
        sections = text(read())
        if options.write:
            files.write_text(PAGE, filled(PAGE.read_text(encoding="utf-8"), sections))
        else:
            print(sections)
    except UserError as error:
        parser.fail(error)


if __name__ == "__main__":
    main()
