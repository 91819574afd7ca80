"""What holds for every data set: contents, order, copies, masks, and words about what is wrong."""

import inspect
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowad_jax import lookup
from flowad_jax.data import sources
from flowad_jax.data.record import count
from flowad_jax.errors import UserError
from tests.data import layouts

ALL = sorted(layouts.ALL)
WITH_MASK_FILES = [name for name in ALL if name != "stc"]
ARCHIVES = {"btad": "BTech_Dataset_transformed", "ksdd2": "KolektorSDD2", "stc": "shanghaitech"}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """All copies, which nothing may change."""
    root = tmp_path_factory.mktemp("sets")
    for name, (write, _) in layouts.ALL.items():
        write(root / name)
    return root


@pytest.fixture
def root(written, tmp_path, request):
    """A copy of its own, of the data set that the test is about."""
    name = request.node.callspec.params["name"]
    return Path(shutil.copytree(written / name, tmp_path / name))


def build(name, root, split="test", **options):
    return sources.build(name, root, layouts.ALL[name][1], split, **options)


def mask_files(source):
    """The mask files of the first anomalous image."""
    index = next(i for i in range(len(source)) if source.labels[i] == 1)
    return [Path(path) for path, _ in source.inspect_masks(index)]


def test_every_data_set_is_found_and_has_a_copy():
    assert {*ALL, "textures"} == set(sources.names()) == set(lookup.choices("flowad_jax.data.sets"))


def test_no_data_set_imports_jax():
    names = [f"flowad_jax.data.sets.{name}" for name in sources.names()]
    names += ["flowad_jax.data.loader", "flowad_jax.data.sources", "flowad_jax.cli.synthesis_sheet"]
    code = f"import sys, {', '.join(names)}; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", sources.names())
def test_every_data_set_says_what_it_is(name):
    card = sources.dataset_card(name)
    assert all(card._replace(categories="any"))
    assert "\n" not in card.layout
    assert len(set(card.categories)) == len(card.categories)


@pytest.mark.parametrize("name", ALL)
def test_splits_have_the_promised_records(name, written):
    test, train = build(name, written / name), build(name, written / name, "train")
    splits = [train, test]
    if "validation" in sources.dataset_card(name).splits:
        splits.append(build(name, written / name, "validation"))
        assert splits[-1].labels.tolist() == [0, 0]
    assert train.labels.tolist() == [0] * 4
    assert not train.has_masks
    assert sorted(test.labels) == [0, 0, 1, 1]
    assert test.has_masks
    assert len({path for source in splits for path in source.paths}) == sum(map(len, splits))
    for source in splits:
        assert source.labels.dtype == np.int32
        assert [kind != "good" for kind in source.kinds] == source.labels.tolist()
        for record, kind, path in zip(source, source.kinds, source.paths, strict=True):
            assert (record.label, record.kind, record.path) == (kind != "good", kind, path)
            assert record.image.shape == (*layouts.SIZE[::-1], 3)
            assert record.image.dtype == np.uint8
            np.testing.assert_array_equal(record.mask, layouts.DEFECT * bool(record.label))
    assert count(test) == {
        **{"images": 4, "good": 2, "anomalous": 2, "masks": True},
        "kinds": {kind: test.kinds.count(kind) for kind in sorted(test.kinds)},
    }


@pytest.mark.parametrize("name", [name for name in ALL if name != "csv"])
def test_records_are_in_the_order_of_their_names(name, written):
    for split in ("train", "test"):
        paths = build(name, written / name, split).paths
        assert paths == sorted(paths)


@pytest.mark.parametrize("name", ALL)
def test_categories_are_those_of_the_set_that_are_there(name, root):
    assert sources.categories(name, root) == [layouts.ALL[name][1]]
    if sources.dataset_card(name).categories:
        (root / "other" / "train").mkdir(parents=True)
        assert sources.categories(name, root) == [layouts.ALL[name][1]]


@pytest.mark.parametrize("name", ARCHIVES)
def test_the_root_may_be_the_folder_that_the_archive_unpacks_to(name, written):
    inner = written / name / ARCHIVES[name]
    assert sources.categories(name, inner) == sources.categories(name, written / name)
    assert build(name, inner).paths == build(name, written / name).paths


@pytest.mark.parametrize("name", ALL)
def test_a_source_may_be_copied_and_shared(name, written):
    test = build(name, written / name)
    copied = pickle.loads(pickle.dumps(test))
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(test, pool.map(copied.__getitem__, range(4)), strict=True):
            np.testing.assert_array_equal(one.image, other.image)
            np.testing.assert_array_equal(one.mask, other.mask)


# --- masks ---


@pytest.mark.parametrize("name", ALL)
def test_masks_may_be_ignored_and_labels_stay(name, written):
    plain, blind = build(name, written / name), build(name, written / name, masks="none")
    assert not blind.has_masks
    assert blind.labels.tolist() == plain.labels.tolist()
    assert not any(record.mask.any() for record in blind)
    for split in ("train", "test"):
        with pytest.raises(UserError, match=r"data\.options\.masks='some': choices are auto"):
            build(name, written / name, split, masks="some")


@pytest.mark.parametrize("name", [n for n in WITH_MASK_FILES if n != "dagm"])
def test_a_missing_mask_is_named_unless_masks_are_off(name, root):
    image = next(r.path for r in build(name, root) if r.label == 1)
    for file in mask_files(build(name, root)):
        file.unlink()
    for rule in ("require", "auto"):
        with pytest.raises(UserError, match=r"has no mask|has no file") as caught:
            build(name, root, masks=rule)
        assert Path(image).stem in str(caught.value)
    if name != "ksdd2":
        assert not build(name, root, masks="none").has_masks


@pytest.mark.parametrize("name", WITH_MASK_FILES)
def test_a_mask_of_another_size_or_damaged_is_named(name, root):
    file = mask_files(build(name, root))[-1]
    Image.new("L", (5, 4), 255).save(file)
    with pytest.raises(UserError, match=rf"{file.name}' is 5 x 4 .*' is 64 x 48"):
        build(name, root)
    file.write_bytes(b"nothing")
    with pytest.raises(UserError, match=rf"cannot read '.*{file.name}'"):
        build(name, root)


@pytest.mark.parametrize("name", WITH_MASK_FILES)
def test_threshold(name, root):
    path = next(r.path for r in build(name, root) if r.label == 1)
    for file in mask_files(build(name, root)):
        layouts.mask(file, value=90)
    for threshold, marked in ((0, True), (127, False)):
        source = build(name, root, mask_threshold=threshold)
        assert source[source.paths.index(path)].mask.any() == marked


# --- what is wrong ---


@pytest.mark.parametrize("name", ALL)
def test_a_damaged_image_is_named(name, written, root):
    train = build(name, root, "train")
    Path(train.paths[0]).write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match=rf"cannot read '{train.paths[0]}'"):
        train[0]


@pytest.mark.parametrize("name", ALL)
def test_a_wrong_place_is_told_in_one_line(name, written, tmp_path):
    root, category = written / name, layouts.ALL[name][1]
    for arguments, message in (
        (("", category, "train"), r"data\.root is not set: give it the folder"),
        ((root.parent / f"{name}s", category, "train"), f"has no '{name}s': did you mean '{name}'"),
        ((tmp_path, category, "train"), r"\(expected {root}/.*\)"),
        ((root, category, "vald"), "split='vald': (did you mean 'validation'|choices are)"),
        ((root, "../x", "test"), r"no categor(y '\.\./x'|ies, use '')"),
    ):
        with pytest.raises(UserError, match=message):
            sources.build(name, *arguments)


@pytest.mark.parametrize("name", [n for n in ALL if len(sources.dataset_card(n).categories) > 1])
def test_categories_of_the_set_are_suggested(name, written):
    absent = sources.dataset_card(name).categories[1]
    title, one = sources.dataset_card(name).title, layouts.ALL[name][1]
    with pytest.raises(UserError, match=f"{title} has no category '{one}_': did you mean '{one}'"):
        sources.build(name, written / name, f"{one}_", "train")
    with pytest.raises(UserError, match=f"{title} has no category '': choices are "):
        sources.build(name, written / name, "", "train")
    with pytest.raises(
        UserError, match=f"{absent}.*expected {{root}}"
    ):  # of the set, but not there
        sources.build(name, written / name, absent, "test")


@pytest.mark.parametrize(
    ("name", "split", "folder"),
    [
        ("mvtec", "train", "bottle/train/good"),
        ("mvtec", "test", "bottle/test"),
        ("dagm", "train", "Class1/Train/Label"),
        ("magnetic_tile", "train", "MT_Free"),
        ("ksdd2", "train", "KolektorSDD2/train"),
        *((name, split, f"{layouts.ALL[name][1]}/{split}/good") for name in ("mvtec_loco",)
          for split in ("train", "validation", "test")),
        ("mvtec_loco", "test", "breakfast_box/test/logical_anomalies"),
        ("mvtec_ad2", "train", "can/train/good"),
        ("mvtec_ad2", "validation", "can/validation/good"),
        ("mvtec_ad2", "test", "can/test_public/good"),
        ("mvtec_ad2", "test", "can/test_public/bad"),
        ("mvtec_ad2", "test_private", "can/test_private"),
        ("mvtec_ad2", "test_private_mixed", "can/test_private_mixed"),
        ("visa", "train", "split_csv"),
        ("real_iad", "train", "realiad_1024"),
        ("stc", "test", "shanghaitech/testing/frames"),
        ("stc", "test", "shanghaitech/testing/test_frame_mask"),
    ],
)  # fmt: skip
def test_a_part_that_is_missing_is_told_with_the_layout(name, split, folder, root):
    shutil.rmtree(root / folder)
    with pytest.raises(UserError, match=rf"'.*{Path(folder).name}.*\(expected {{root}}/"):
        build(name, root, split)


def test_an_option_of_another_type_or_name(written):
    with pytest.raises(UserError, match=r"data\.options\.mask_threshold='x': must be a whole num"):
        build("mvtec", written / "mvtec", mask_threshold="x")
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        build("mvtec", written / "mvtec", colour=1)
    for name in sources.names():
        keywords = list(inspect.signature(sources.find(f"tfds:{name}")).parameters)
        assert keywords[:3] == ["root", "category", "split"]


def test_a_data_set_of_someone_else(tmp_path, monkeypatch):
    (tmp_path / "elsewhere.py").write_text("def build(root, category, split): return [root, split]")
    monkeypatch.syspath_prepend(tmp_path)
    name = "elsewhere:build"
    assert sources.build(name, Path("there"), "", "test") == [Path("there"), "test"]
    assert sources.dataset_card(name) is None
    with pytest.raises(UserError, match="'elsewhere:build' cannot list its categories"):
        sources.categories(name, "")
    with pytest.raises(UserError, match=r"unknown name 'mvtce': did you mean 'mvtec'"):
        sources.build("mvtce", tmp_path, "", "train")
