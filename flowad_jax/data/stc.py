"""ShanghaiTech Campus: 13 cameras over a campus; people walk, anything else is an anomaly.

W. Luo, W. Liu, S. Gao, "A Revisit of Sparse Coding Based Anomaly Detection in Stacked RNN
Framework", ICCV 2017. For research, without a licence text. A category is a camera, by which the
names of videos begin; camera 13 has no ground truth and is left out.

    {root}/training/videos/{camera}_{n}.avi         normal videos to learn from
    {root}/training/frames/{video}/*.jpg            their frames, written on the first use
    {root}/testing/frames/{video}/*.jpg             frames of the test videos
    {root}/testing/test_frame_mask/{video}.npy      (T,), 1 for anomalous frames
    {root}/testing/test_pixel_mask/{video}.npy      (T, H, W), not 0 on anomalies

The root may be the folder ``shanghaitech`` or the one that holds it. Where the pixels of a normal
frame are marked all the same, its label counts, as in CFLOW-AD.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flowad_jax.data import _files, _frames, _video
from flowad_jax.data._files import Entry, FileSource
from flowad_jax.data._frames import Frame, FrameSource
from flowad_jax.data.about import About
from flowad_jax.data.record import GOOD, Source
from flowad_jax.errors import LayoutError, UserError

ABOUT = About(
    title="ShanghaiTech Campus",
    licence="none in writing; for research",
    metric="frame AUROC, pixel AUROC",
    source="https://svip-lab.github.io/dataset/campus_dataset.html",
    layout="{root}/training/videos/{camera}_{n}.avi, testing/frames/{video}/*.jpg, "
    "testing/test_frame_mask/{video}.npy and testing/test_pixel_mask/{video}.npy",
)
CATEGORIES = tuple(f"{number:02d}" for number in range(1, 13))
_ARCHIVE = "shanghaitech"


def build(
    root: str | Path,
    category: str,
    split: str,
    *,
    masks: str = "require",
    every: int = 1,
    quality: int = 95,
    frames: str = "",
) -> Source:
    """Lists the frames of one camera, video after video; decodes training videos at first.

    Args:
      root: folder of the data set.
      category: camera, ``"01"`` to ``"12"``.
      split: ``"train"`` or ``"test"``.
      masks: as in ``folder.build``.
      every: takes every so-many-th frame of each video, of both splits; all are decoded.
      quality: of the JPEG files that training videos become; CFLOW-AD has 80.
      frames: folder for the frames of training videos, where the root cannot be written; by
        default ``training/frames`` of the root.

    Raises:
      UserError: the camera is none of the 12, a folder or file is missing or damaged, the numbers
        or sizes of frames and masks differ, frames of another quality are there.
    """
    _files.check_choice("split", split, _files.SPLITS)
    _files.check_choice("data.options.masks", masks, _files.MASK_RULES)
    _check(category, every, quality)
    path = _root(root)
    if split == "test":
        return FrameSource(list(_test(path / "testing", category, masks, every)))
    return FileSource(_train(path / "training", category, frames, quality, every), folders=())


def categories(root: str | Path) -> list[str]:
    """The cameras of which there are videos or frames, sorted; never camera 13."""
    path = _root(root)
    folders = [path / "training" / "frames", path / "testing" / "frames"]
    names = {found.name for folder in folders for found in _files.subfolders(folder)}
    names |= set(_videos(path / "training"))
    return [camera for camera in CATEGORIES if any(_shows(name, camera) for name in names)]


def _check(category: str, every: int, quality: int) -> None:
    if category not in CATEGORIES:
        why = "camera 13 has no ground truth, " if category == "13" else ""
        raise UserError(f"STC has no category {category!r}: {why}choices are 01 to 12")
    if every < 1:
        raise UserError(f"data.options.every={every} takes no frame: use 1 or more")
    if not 1 <= quality <= 100:
        raise UserError(f"data.options.quality={quality} is unknown to JPEG: use 1 to 100")


def _root(root: str | Path) -> Path:
    path = _files.check_root(root)
    below = path / _ARCHIVE if (path / _ARCHIVE).is_dir() else path
    if not any((below / folder).is_dir() for folder in ("training", "testing")):
        raise LayoutError(f"'{below}' has neither training nor testing: {_files.hint('', below)}")
    return below


def _shows(video: str, camera: str) -> bool:
    return video.startswith(f"{camera}_")


def _videos(training: Path) -> dict[str, Path]:
    return {file.stem: file for file in _files.images(training / "videos", (".avi",))}


def _train(training: Path, camera: str, frames: str, quality: int, every: int) -> list[Entry]:
    folder = Path(frames).expanduser() if frames else training / "frames"
    videos = {name: file for name, file in _videos(training).items() if _shows(name, camera)}
    there = {found.name for found in _files.subfolders(folder) if _shows(found.name, camera)}
    if not videos and not there:
        where = training / "videos"
        raise LayoutError(f"no videos '{where}/{camera}_*.avi', nor their frames in '{folder}'")
    found = _video.frames(folder, sorted(there | set(videos)), videos, quality)
    return [Entry(file, GOOD) for files in found.values() for file in files[::every]]


def _test(testing: Path, camera: str, rule: str, every: int) -> Iterator[Frame]:
    folders = [f for f in _files.subfolders(testing / "frames") if _shows(f.name, camera)]
    if not folders:
        raise LayoutError(f"no test videos '{testing}/frames/{camera}_*': unpack the set again")
    _check_strays(testing / "test_frame_mask", camera, {folder.name for folder in folders})
    if rule == "auto" and not _arrays(testing / "test_pixel_mask", camera):
        rule = "none"
    for folder in folders:
        yield from _frames_of(folder, testing, rule)[::every]


def _frames_of(folder: Path, testing: Path, rule: str) -> list[Frame]:
    files = _video.in_order(folder)
    if not files:
        raise LayoutError(f"'{folder}' holds no frames: unpack the set again")
    truth = testing / "test_frame_mask" / f"{folder.name}.npy"
    if not truth.is_file():
        raise LayoutError(f"'{truth}' is missing: only it tells anomalous frames, unpack again")
    labels = _frames.read_labels(truth, files).tolist()
    masks = _masks_of(folder.name, testing, files) if rule != "none" and any(labels) else None
    pairs = enumerate(zip(files, labels, strict=True))
    return [Frame(file, label, masks if label else None, i) for i, (file, label) in pairs]


def _masks_of(video: str, testing: Path, files: list[Path]) -> Path:
    masks = testing / "test_pixel_mask" / f"{video}.npy"
    if not masks.is_file():
        fix = "unpack the set again, or set data.options.masks to 'none'"
        raise LayoutError(f"'{masks}' is missing: {fix}")
    _frames.check_masks(masks, files)
    return masks


def _check_strays(folder: Path, camera: str, names: set[str]) -> None:
    for file in _arrays(folder, camera):
        if file.stem not in names:
            raise LayoutError(f"'{file}' has no frames beside it in testing/frames: unpack again")


def _arrays(folder: Path, camera: str) -> list[Path]:
    return [file for file in _files.images(folder, (".npy",)) if _shows(file.stem, camera)]
