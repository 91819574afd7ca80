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

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from flowad_jax.data import frames as frame_files
from flowad_jax.data import layout, video_files
from flowad_jax.data.dataset_card import DatasetCard
from flowad_jax.data.file_source import MASK_RULES, Entry, FileSource
from flowad_jax.data.frames import Frame, FrameSource
from flowad_jax.data.layout import UNPACK
from flowad_jax.data.record import GOOD, Source
from flowad_jax.errors import LayoutError, UserError
from flowad_jax.lookup import check_choice
from flowad_jax.schema import within

CARD = DatasetCard(
    title="ShanghaiTech Campus",
    licence="none in writing; for research",
    metric="frame AUROC, pixel AUROC",
    source="https://svip-lab.github.io/dataset/campus_dataset.html",
    layout="{root}/training/videos/{camera}_{n}.avi, testing/frames/{video}/*.jpg, "
    "testing/test_frame_mask/{video}.npy and testing/test_pixel_mask/{video}.npy",
)
_CAMERAS = tuple(f"{number:02d}" for number in range(1, 13))


def build(
    root: str | Path,
    category: str,
    split: str,
    *,
    masks: str = "require",
    every: Annotated[int, within(1)] = 1,
    quality: Annotated[int, within(1, 100)] = 95,
    frames: str | None = None,
    decode: bool = True,
) -> Source:
    """Lists the frames of one camera, video after video; decodes training videos at first.

    Args:
      root: folder of the data set.
      category: camera, ``"01"`` to ``"12"``.
      split: ``"train"`` or ``"test"``.
      masks: as in ``folder.build``.
      every: takes every so-many-th frame of each video, of both splits; all are decoded.
      quality: of the JPEG files that training videos become; CFLOW-AD has 80.
      frames: folder for the frames of training videos, where the root cannot be written;
        None for ``training/frames`` of the root.
      decode: false refuses training videos without frames, and nothing is written.

    Raises:
      UserError: the camera is none of the 12, a folder or file is missing or damaged, the numbers
        or sizes of frames and masks differ, frames of another quality are there.
    """
    if category not in _CAMERAS:
        why = "camera 13 has no ground truth, " if category == "13" else ""
        raise UserError(f"STC has no category {category!r}: {why}choices are 01 to 12")
    check_choice("data.options.masks", masks, MASK_RULES)
    path = _root(root)
    if split == "test":
        return FrameSource(_test_frames(path / "testing", category, masks, every))
    folder = Path(frames).expanduser() if frames else path / "training" / "frames"
    found = _training_frames(path, category, folder, quality, decode)
    return FileSource([Entry(file, GOOD) for files in found for file in files[::every]], folders=())


def categories(root: str | Path) -> list[str]:
    """The cameras of which there are videos or frames, sorted; never camera 13."""
    path = _root(root)
    folders = [path / "training" / "frames", path / "testing" / "frames"]
    names = {found.name for folder in folders for found in layout.subfolders(folder)}
    names |= {file.stem for file in layout.images(path / "training" / "videos", (".avi",))}
    return [camera for camera in _CAMERAS if any(n.startswith(f"{camera}_") for n in names)]


def _root(root: str | Path) -> Path:
    path = layout.find_root(root, "shanghaitech")
    if not any((path / folder).is_dir() for folder in ("training", "testing")):
        raise LayoutError(f"'{path}' has neither training nor testing: {layout.hint('', path)}")
    return path


def _of_camera(paths: list[Path], camera: str) -> dict[str, Path]:
    """Folders and files of videos, by the names of the videos."""
    shown = [path for path in paths if path.name.startswith(f"{camera}_")]
    return {path.name if path.is_dir() else path.stem: path for path in shown}


def _training_frames(
    root: Path, camera: str, folder: Path, quality: int, decode: bool
) -> Iterable[list[Path]]:
    videos = _of_camera(layout.images(root / "training" / "videos", (".avi",)), camera)
    missing = [name for name in videos if not video_files.in_order(folder / name)]
    if missing and not decode:
        flags = ["--name=stc", f"--data={root}", f"--category={camera}"]
        flags += [f"--set=quality={quality}", f"--set=frames={folder}"]
        raise UserError(
            f"'{folder}' lacks the frames of {len(missing)} videos such as '{missing[0]}', and "
            "data.options.decode=False, as in every stored config, writes none; if that folder is "
            f"right, decode them with: flowad doctor {shlex.join(flags)}"
        )
    names = sorted({*videos, *_of_camera(layout.subfolders(folder), camera)})
    if not names:
        where = root / "training" / "videos"
        raise LayoutError(f"no videos '{where}/{camera}_*.avi', nor their frames in '{folder}'")
    return video_files.frames(folder, names, videos if decode else {}, quality).values()


def _test_frames(testing: Path, camera: str, rule: str, every: int) -> list[Frame]:
    folders = _of_camera(layout.subfolders(testing / "frames"), camera)
    if not folders:
        raise LayoutError(f"no test videos '{testing}/frames/{camera}_*': {UNPACK}")
    labels, masks = (
        _of_camera(layout.images(testing / f"test_{what}_mask", (".npy",)), camera)
        for what in ("frame", "pixel")
    )
    if strays := [file for name, file in labels.items() if name not in folders]:
        raise LayoutError(f"'{strays[0]}' has no frames beside it in testing/frames: {UNPACK}")
    if rule == "auto" and not masks:
        rule = "none"
    found = []
    for folder in folders.values():
        found += _frames_of(folder, testing, rule)[::every]
    return found


def _frames_of(folder: Path, testing: Path, rule: str) -> list[Frame]:
    files = video_files.in_order(folder)
    if not files:
        raise LayoutError(f"'{folder}' holds no frames: {UNPACK}")
    truth, masks = (
        testing / f"test_{what}_mask" / f"{folder.name}.npy" for what in ("frame", "pixel")
    )
    if not truth.is_file():
        raise LayoutError(f"'{truth}' is missing: only it tells anomalous frames, {UNPACK}")
    labels = frame_files.read_labels(truth, files).tolist()
    masked = rule != "none" and any(labels)
    if masked and not masks.is_file():
        raise LayoutError(f"'{masks}' is missing: {frame_files.OR_NO_MASKS}")
    if masked:
        frame_files.check_masks(masks, files)
    pairs = enumerate(zip(files, labels, strict=True))
    return [Frame(f, label, masks if masked and label else None, i) for i, (f, label) in pairs]
