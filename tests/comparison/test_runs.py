"""Two runs on the same images: what differs, how sure that is, and what cannot be compared."""

import json
import sys

import numpy as np
import pytest

from flowad_jax.cli import compare as command
from flowad_jax.comparison import runs
from flowad_jax.errors import UserError
from flowad_jax.evaluation import metrics, outcome
from tests.evaluation.test_intervals import made_up


def write_run(folder, better=0.0, labels=None, names=None, flags=True):
    """A finished run whose scores are better or worse than those of others."""
    own, scores, masks, maps = made_up(60, shift=1.0)
    labels = own if labels is None else labels
    names = [f"{index}.png" for index in range(len(labels))] if names is None else names
    scores, maps = scores + better * own, maps + np.float32(better) * masks
    flagged = scores > np.median(scores) if flags else None
    folder.mkdir()
    outcome.write(folder, outcome.gather(names, labels, scores, flagged, masks, maps))
    found = metrics.evaluate(own, scores, masks, maps)
    (folder / "results.json").write_text(json.dumps({"columns": {"last": found}}))
    return str(folder)


def compared(*folders):
    return runs.compare([runs.read(folder) for folder in folders])


def test_a_better_run_is_found_better(tmp_path):
    one, two = write_run(tmp_path / "a"), write_run(tmp_path / "b", better=2.0)
    (pair,) = compared(one, two)
    assert (pair.images, pair.only_one) == (60, 0)
    for name, (before, after) in pair.values.items():
        assert after > before
        assert pair.differences[name].value == after - before
        assert np.subtract(*pair.differences[name].interval) < 0
        assert pair.differences[name].p_value < 0.05
    assert pair.decided.second > pair.decided.first
    assert pair.decided.first + pair.decided.second + pair.decided.both <= 60


def test_images_are_matched_by_name_and_others_left_out(tmp_path):
    one = write_run(tmp_path / "a")
    names = [f"{index}.png" for index in range(60)]
    labels = made_up(60, shift=1.0)[0]
    names[0], names[59] = "new.png", "other.png"
    two = write_run(tmp_path / "b", labels=labels, names=names)
    (pair,) = compared(one, two)
    assert (pair.images, pair.only_one) == (58, 4)
    assert pair.differences["image_auroc"].value == 0
    assert "4 that only one of them did are left out" in runs.markdown(one, [pair])


def test_what_cannot_be_compared_is_one_line(tmp_path):
    one = write_run(tmp_path / "a")
    other = write_run(tmp_path / "b", names=[f"x{index}" for index in range(60)])
    with pytest.raises(UserError, match=r"have no test image in common"):
        compared(one, other)
    swapped = write_run(tmp_path / "c", labels=1 - made_up(60, shift=1.0)[0])
    with pytest.raises(UserError, match=r"disagree whether .*\.png is anomalous"):
        compared(one, swapped)
    (tmp_path / "b" / outcome.FILE).unlink()
    with pytest.raises(UserError, match=r"outcome\.npz is missing: flowad eval"):
        compared(one, other)


def test_p_values_of_several_comparisons_are_raised():
    assert runs.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert runs.holm([0.9, 0.8]) == [1.0, 1.0]
    assert runs.holm([]) == []


def test_the_command_prints_and_keeps(tmp_path, monkeypatch, capsys):
    one, two = write_run(tmp_path / "a"), write_run(tmp_path / "b", better=2.0, flags=False)
    for suffix in ("json", "md"):
        monkeypatch.setattr(sys, "argv", ["x", one, two, f"--output={tmp_path / 'o'}.{suffix}"])
        command.main()
    printed = capsys.readouterr().out
    assert "| image AUROC |" in printed
    assert "Decisions" not in printed
    kept = json.loads((tmp_path / "o.json").read_text())
    assert kept["others"][0]["differences"]["image_auroc"]["p_value"] < 0.05
    assert (tmp_path / "o.md").read_text() in printed


def test_a_page_has_all_runs_and_their_curves(tmp_path, monkeypatch):
    one, two = write_run(tmp_path / "a$b$"), write_run(tmp_path / "b", better=2.0)
    page = tmp_path / "c.html"
    monkeypatch.setattr(sys, "argv", ["x", one, two, two, f"--output={page}"])
    command.main()
    text = page.read_text()
    assert text.count("<h2>") == 4  # metrics, two pairs, curves
    assert text.count("data:image/svg+xml") == 2
    assert "McNemar" in text
    (tmp_path / "evil").mkdir()
    strange = write_run(tmp_path / "evil" / "<b>x")
    monkeypatch.setattr(sys, "argv", ["x", one, strange, f"--output={page}"])
    command.main()
    assert "<b>x" not in page.read_text()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "name two folders or more"),
        (["a", "b", "--output=x.txt"], "x.txt: the name has to end in .json or .md or .html"),
        (["a", "b", "--plot=x.gif"], "x.gif: the name has to end in .png or .svg or .pdf"),
        (["a", "b"], "a/results.json cannot be read (No such file or directory): name a folder"),
    ],
)
def test_wrong_words_are_one_line(words, line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["flowad compare", *words])
    with pytest.raises(SystemExit):
        command.main()
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1
