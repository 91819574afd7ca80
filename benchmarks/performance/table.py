"""The tables of all methods beside PyTorch in the docs, from the files in docs/performance.

    python -m benchmarks.performance.table
    python -m benchmarks.performance.table --write

The first command prints the tables, the second puts them between two comments of
docs/measured/speed.md.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import _common
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
    """The table in Markdown; a side that failed, or was not asked, has a dash."""
    rule = ["---", *["---:"] * (len(HEADER) - 1)]
    return markdown_table([HEADER, rule, *map(_row, measured["recipes"])])


def failures(measured: Entry) -> list[str]:
    """One line for every dash."""
    return [
        f"{NAMES.get(entry['method'], entry['method'])}, {side}, {job}: {found['error']}."
        for entry in measured["recipes"]
        for side, jobs in entry["sides"].items()
        for job, found in jobs.items()
        if "error" in found
    ]


def _row(entry: Entry) -> list[str]:
    images = entry["images"]
    name = NAMES.get(entry["method"], entry["method"])
    title = (
        f"{name}, `{entry['encoder'].rpartition('.')[2]}`, {entry['image_size']} px, "
        f"{images['train']} / {images['infer']}"
    )
    cells = [title]
    for job in ("train", "infer"):
        ours = _seconds(entry, OURS, job)
        cells.append(f"{images[job] / ours:.1f}" if ours else "-")
        cells += _ratios(entry, job)
    one = _seconds(entry, OURS, "infer one")
    cells += [f"{1000 * one:.1f}" if one else "-", *_ratios(entry, "infer one")]
    cells.append(" / ".join(_memory(entry, side) for side in (OURS, EAGER, COMPILED)))
    return [*cells, " / ".join(_over_floor(entry, job) for job in ("train", "infer"))]


def _seconds(entry: Entry, side: str, job: str) -> float | None:
    found: float | None = entry["sides"].get(side, {}).get(job, {}).get("median_s")
    return found


def _ratios(entry: Entry, job: str) -> list[str]:
    """The seconds of PyTorch over ours."""
    ours = _seconds(entry, OURS, job)
    theirs = (_seconds(entry, side, job) for side in (EAGER, COMPILED))
    return [f"**{x / ours:.2f}**" if ours and x else "-" for x in theirs]


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
