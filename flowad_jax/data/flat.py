"""Normal images that were not sorted into folders: a folder of pictures, several, or patterns.

Nothing but their place says that these images are normal. So whatever hints at others, such as
folders beside the pictures or a set's own test images, is refused with a word on what to do.
"""

from __future__ import annotations

import os
from pathlib import Path

from flowad_jax.data import inputs, layout
from flowad_jax.data.file_source import Entry, FileSource
from flowad_jax.data.image_file import SUFFIXES
from flowad_jax.data.images import WHITE
from flowad_jax.data.record import GOOD
from flowad_jax.errors import LayoutError, UserError

_OURS = {"config.json", "predictions.jsonl"}  # in a workdir, or an output of predict.py
_SORT = "move the normal images to train/good and any others to test/KIND"


def source(root: str | Path, split: str, white: int = WHITE) -> FileSource:
    """Lists the images of a root, all of them to train on; its other splits are empty.

    Args:
      root: a folder, or several folders, files and patterns, with commas between them.
      split: ``"train"`` or another.
      white: value of a 16-bit image that is shown as white.

    Raises:
      UserError: there are none, or some may not be normal.
    """
    found: dict[str, Path] = {}
    folders = []
    for item in inputs.split([str(root)], "data.root"):
        path = Path(item).expanduser()
        if path.is_dir():
            _check_folder(path)
            folders.append(path)
            images = layout.images(path)
        elif path.is_file() and path.suffix.lower() not in SUFFIXES:
            raise UserError(f"data.root '{path}' is no image: for a table set data.name=csv")
        else:
            images = list(inputs.look_up(str(path)).images.values())
        if not images:
            give = "give a folder with images, or a pattern such as 'images/*.png'"
            raise LayoutError(f"data.root: '{item}' matches no image: {give}")
        for image in images:
            _check_place(image)
            found.setdefault(inputs.resolved(image), image)
    entries = [Entry(image, GOOD) for image in found.values() if split == "train"]
    return FileSource(entries, white=white, folders=folders)


def _check_folder(folder: Path) -> None:
    """Raises a LayoutError if a folder holds other folders with images."""
    names = [sub.name for sub in layout.subfolders(folder) if _holds_images(sub)]
    if not names:
        return
    count, some = len(layout.images(folder)), ", ".join(f"'{folder / name}'" for name in names[:3])
    some += f" and {len(names) - 3} more" if len(names) > 3 else ""
    if count:
        raise LayoutError(
            f"'{folder}' holds {count} images, but there are more in {some}: {_SORT}, or, if those "
            f"in '{folder}' itself are all normal, set data.root='{folder / '*'}'"
        )
    if wrong := [name for name in names if name.strip().casefold() in ("train", "training")]:
        raise LayoutError(f"'{folder}' has no folder 'train': rename '{wrong[0]}'")
    both = ",".join(str(folder / name) for name in names[:2])
    raise LayoutError(
        f"'{folder}' itself holds no images, but there are some in {some}: name the folders whose "
        f"images are all normal, as in data.root='{both}', or {_SORT}"
    )


def _holds_images(folder: Path) -> bool:
    """Whether there are images in a folder or below, apart from the pictures that we write."""
    for at, folders, names in os.walk(folder):
        if _OURS.intersection(names):
            folders.clear()
        elif layout.images(Path(at)):
            return True
    return False


def _check_place(image: Path) -> None:
    """Raises a LayoutError if an image lies where a data set keeps others than normal ones."""
    split = image.absolute().parent.parent
    if split.name == "ground_truth" or (split.name == "test" and (split.parent / "train").is_dir()):
        good = split.parent / "train" / "good"
        raise LayoutError(
            f"data.root: '{image}' is no image to train on, as it lies in '{split.name}': "
            f"set data.root='{split.parent}', which trains on '{good}'"
        )
