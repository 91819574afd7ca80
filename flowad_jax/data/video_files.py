"""Videos become folders of JPEG files, once, whole or not at all, in the memory of one frame.

    {folder}/{video}/00000000.jpg, ...   frames of a video, in their order
    {folder}/{video}/made.json           how they were made; absent where others made them

A video is decoded into ``{folder}/.unfinished-{video}-*``, which is renamed when it is complete,
so that neither an interrupted run nor a second one at the same time leaves half a video. A run
that is killed leaves that folder behind; it can be removed.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType

from tqdm import tqdm

from flowad_jax import schema
from flowad_jax.data import layout
from flowad_jax.errors import LayoutError, UserError

_MADE = "made.json"
_MADE_SCHEMA = schema.table({"quality": schema.integer(), "frames": schema.integer()})
# Containers also count what shows nothing, such as the empty frames of packed MPEG-4.
_DECODABLE = 0.9
_log = logging.getLogger("flowad_jax")


def in_order(folder: Path) -> list[Path]:
    """JPEG files of a folder by the numbers in their names: 999 comes before 1000."""

    def numbers(file: Path) -> list[str | int]:
        parts = re.split("([0-9]+)", file.stem)  # text and numbers take turns
        return [int(part) if i % 2 else part for i, part in enumerate(parts)]

    return sorted(layout.images(folder, (".jpg", ".jpeg")), key=numbers)


def frames(
    folder: Path, names: Iterable[str], videos: Mapping[str, Path], quality: int
) -> dict[str, list[Path]]:
    """Lists the frames of videos and decodes those that have none yet.

    ``folder`` holds a folder of frames for each name; frames that others made are taken as they
    are. ``videos`` are files by their names.

    Raises:
      UserError: frames were made with another quality or some are gone, there are neither frames
        nor a video, a video is damaged, the folder cannot be written, PyAV is missing.
    """
    found = {name: _made(folder / name, quality) for name in names}
    missing = [name for name, files in found.items() if not files]
    for name in missing:
        if name not in videos:
            raise LayoutError(f"'{folder / name}' holds no frames: remove it or fill it")
    if missing:
        _log.info("decoding %d videos into '%s'", len(missing), folder)
    for name in tqdm(missing, desc="decode", unit="video", disable=None, leave=False):
        if not in_order(folder / name):  # else another process was faster
            _extract(videos[name], folder / name, quality)
        found[name] = _made(folder / name, quality)
    return found


def _made(folder: Path, quality: int) -> list[Path]:
    """Returns the frames of a folder, none if there is none."""
    files = in_order(folder)
    if not (folder / _MADE).is_file():
        return files
    made = schema.read(folder / _MADE, _MADE_SCHEMA, f"remove '{folder}'")
    if made["quality"] != quality:
        raise UserError(
            f"the frames in '{folder}' were made with quality {made['quality']}, not {quality}: "
            f"remove '{folder.parent}', or set data.options.quality to {made['quality']}"
        )
    if len(files) != made["frames"]:
        what = f"{len(files)} frames, not {made['frames']} as it was made"
        raise UserError(f"'{folder}' has {what}: remove '{folder}' and its video is decoded again")
    return files


def _extract(video: Path, target: Path, quality: int) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        name = tempfile.mkdtemp(prefix=f".unfinished-{target.name}-", dir=target.parent)
        try:
            count = _decode(video, Path(name), quality)
            text = json.dumps({"quality": quality, "frames": count})
            Path(name, _MADE).write_text(text, encoding="utf-8")
            os.chmod(name, 0o755)
            os.rename(name, target)
        except OSError:
            if not in_order(target):  # else another process was faster
                raise
        finally:
            shutil.rmtree(name, ignore_errors=True)
    except OSError as error:
        fix = "set data.options.frames to a folder with space that can be written"
        why = error.strerror or str(error)
        raise UserError(f"cannot write frames to '{target.parent}': {why}: {fix}") from error


def _decode(video: Path, folder: Path, quality: int) -> int:
    """Writes frames as they come; returns their number."""
    av, count = _import_av(video), 0
    try:
        with av.open(str(video)) as container:
            if not container.streams.video:
                raise _damaged(video, "it has no pictures")
            stream = container.streams.video[0]
            for frame in container.decode(stream):
                frame.to_image().save(folder / f"{count:08d}.jpg", quality=quality)
                count += 1
            declared = stream.frames
    except av.error.FFmpegError as error:
        raise _damaged(video, error.strerror or str(error)) from error
    if count == 0 or count < _DECODABLE * declared:
        raise _damaged(video, f"{count} of {declared} frames can be decoded")
    if count < declared:
        _log.warning("'%s': %d of %d frames can be decoded", video, count, declared)
    return count


def _import_av(video: Path) -> ModuleType:
    try:
        import av
        import av.error
    except ImportError as error:
        fix = 'pip install av, or pip install "flowad_jax[video]"'
        raise UserError(f"'{video}' has to be decoded and PyAV is missing: {fix}") from error
    return av


def _damaged(video: Path, why: str) -> UserError:
    fix = "unpack the set again, or put its frames as JPEG files where data.options.frames says"
    return UserError(f"video '{video}' is damaged ({why}): {fix}")
