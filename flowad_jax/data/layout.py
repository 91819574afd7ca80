"""Folders of images: where a category and its files lie, and what to say if they do not."""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from flowad_jax.data.file_source import Entry, FileSource
from flowad_jax.data.image_file import SUFFIXES
from flowad_jax.data.images import WHITE
from flowad_jax.data.record import GOOD
from flowad_jax.errors import LayoutError, UserError

UNPACK = "unpack the set again"
_BOOKKEEPING = ("thumbs.db", "desktop.ini")  # which Windows puts into folders of images
_LISTED = 20  # names in an error message, so that it stays one readable line


def find_root(root: str | Path | None, archive: str = "") -> Path:
    """Returns the data root, or the folder in it that the archive of the set unpacks to.

    Raises:
      UserError: it is not set or no folder; the message names the nearest folder beside it.
    """
    if not root:
        raise UserError("data.root is not set: give it the folder that holds the images")
    path = Path(root).expanduser()
    if path.is_dir():
        return path / archive if (path / archive).is_dir() else path
    if path.exists():
        raise UserError(f"data.root '{path}' is a file, not a folder")
    parent = next((p for p in path.parents if p.is_dir()), Path())
    missing = path.relative_to(parent).parts[0] if parent in path.parents else path.name
    where = f"'{parent}' has no '{missing}'"
    raise LayoutError(f"data.root '{path}' does not exist: {where}: {hint(missing, parent)}")


def category_names(root: str | Path) -> list[str]:
    """Folders of the root that have a ``train`` folder; ``[""]`` if the root itself has one."""
    path = find_root(root)
    if (path / "train").is_dir():
        return [""]
    return [folder.name for folder in subfolders(path) if (folder / "train").is_dir()]


def category_folder(root: str | Path, category: str) -> Path:
    """Returns the folder of a category, or a UserError that lists those there are."""
    path = find_root(root)
    folder = path / category
    if not folder.is_dir():
        if (path / "train").is_dir():
            raise UserError(f"data.category={category!r}: '{path}' holds train/ itself, use ''")
        raise LayoutError(f"'{path}' has no category {category!r}: {hint(category, path)}")
    if not category and not (path / "train").is_dir() and (known := category_names(path)):
        raise UserError(f"data.category is not set: choose one of {', '.join(known)}")
    return folder


def folder_per_kind(
    category: Path,
    split: str,
    masks: str,
    *,
    mask_threshold: int = 0,
    white: int = WHITE,
    normal: str = GOOD,
    mask_suffixes: Sequence[str] = ("_mask", ""),
) -> FileSource:
    """Lists one split of a category in the shape of MVTec AD, in the order of folders and files.

        {category}/train/{normal}/*
        {category}/test/{kind}/*
        {category}/ground_truth/{kind}/{stem}{suffix}.*

    ``masks``, ``mask_threshold`` and ``white`` are those of `FileSource`; of ``mask_suffixes`` the
    first that is there counts.

    Raises:
      UserError: the split has no images, or as `FileSource`.
    """
    test = split == "test"
    kinds = subfolders(category / "test") if test else [category / "train" / normal]
    truth = subfolders(category / "ground_truth") if test and masks != "none" else []
    by_kind = {folder.name: by_stem(folder) for folder in truth}
    entries = [
        Entry(
            file,
            GOOD if kind.name == normal else kind.name,
            first(by_kind.get(kind.name, {}), (file.stem + suffix for suffix in mask_suffixes)),
        )
        for kind in kinds
        for file in images(kind)
    ]
    if not entries:
        where = f"no test images in '{category / 'test'}'"
        if test:
            raise LayoutError(f"{where}: put some into test/{normal} and test/KIND")
        place = kinds[0].parent
        nearby = [f", but some in '{one}'" for one in (place, *subfolders(place)) if images(one)]
        found = "".join(nearby[:1])
        raise LayoutError(f"no training images in '{kinds[0]}'{found}: put the normal images there")
    if masks == "auto" and any(by_kind.values()):
        masks = "require"  # masks that match nothing are a naming mistake, not a set without masks
    folders = [*kinds, *truth]
    return FileSource(entries, masks, mask_threshold=mask_threshold, white=white, folders=folders)


def has_no_test(category: Path) -> bool:
    """Whether a category has normal images alone, to train on.

    Raises:
      LayoutError: a folder beside ``train`` looks like that of test images with another name.
    """
    names = [folder.name for folder in subfolders(category)]
    if "test" in names:
        return False
    close = {name.casefold(): name for name in names if name != "train"}
    if found := difflib.get_close_matches("test", close, n=1, cutoff=0.7):
        raise LayoutError(f"'{category}' has no folder 'test': rename '{close[found[0]]}'")
    if "ground_truth" in names:
        raise LayoutError(f"'{category}' has a folder 'ground_truth', but no 'test': restore it")
    return True


def by_stem(folder: Path) -> dict[str, Path]:
    """The image files of a folder by their names without suffix; none if it does not exist."""
    return {file.stem: file for file in images(folder)}


def first(files: Mapping[str, Path], stems: Iterable[str]) -> tuple[Path, ...]:
    """The first file that has one of the names, as the masks of an `Entry`."""
    return next(((files[stem],) for stem in stems if stem in files), ())


def some_images(folder: Path) -> list[Path]:
    """The image files of a folder, or a LayoutError if there are none."""
    if not (files := images(folder)):
        raise LayoutError(f"no images in '{folder}': {UNPACK}")
    return files


def file_below(folder: Path, where: str, name: str, fix: str, absent: str = UNPACK) -> Path:
    """Returns a file that a table or list (``where``) names, relative to a folder.

    Raises:
      UserError: the path is empty, absolute or leaves the folder; ends with ``fix``.
      LayoutError: there is no such file; ends with ``absent``.
    """
    relative = PurePosixPath(name)
    if not relative.parts or relative.is_absolute() or ".." in relative.parts:
        raise UserError(f"{where}: {name!r} is no path of a file below '{folder}': {fix}")
    path = folder / relative
    if not os.path.isfile(path):  # unlike Path.is_file, false for impossible names too
        raise LayoutError(f"{where}: '{folder}' has no file {name!r}: {absent}")
    return path


def hint(missing: str, parent: Path) -> str:
    """Returns the subfolders that do exist, with the nearest name to a missing one."""
    names = [folder.name for folder in subfolders(parent)]
    return holdings(missing, names) if names else "it has no subfolders"


def holdings(missing: str, names: Sequence[str]) -> str:
    """Returns the names that there are, with the nearest to a missing one."""
    close = difflib.get_close_matches(missing, names, n=1)
    guess = f"did you mean '{close[0]}'? " if close else ""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{guess}it holds {', '.join(names[:_LISTED])}{more}"


def subfolders(folder: Path) -> list[Path]:
    """Visible folders directly inside a folder, sorted by name; none if it does not exist."""
    return [path for path in _visible(folder) if path.is_dir()]


def images(folder: Path, suffixes: Collection[str] = SUFFIXES) -> list[Path]:
    """The image files of `listing`."""
    return listing(folder, suffixes)[0]


def listing(folder: Path, suffixes: Collection[str] = SUFFIXES) -> tuple[list[Path], list[Path]]:
    """Sorts the visible files directly inside a folder; empty lists if it does not exist.

    Returns:
      The image files and the skipped ones, each sorted by name. Skipped are files with other
      extensions, broken links, and pipes, sockets and devices whatever they are called.
    """
    others = [path for path in _visible(folder) if not path.is_dir()]
    images = [path for path in others if path.suffix.lower() in suffixes and path.is_file()]
    return images, sorted(set(others) - set(images))


def _visible(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    try:
        found = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        return [path for path in found if path.name.lower() not in _BOOKKEEPING]
    except OSError as error:
        raise UserError(f"cannot list '{folder}': {error.strerror}") from error
