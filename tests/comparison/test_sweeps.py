"""Methods over categories: ranks, tests and the picture, against Demšar's example and SciPy."""

import json
import sys

import numpy as np
import pytest
from scipy import stats

from flowad_jax.cli import compare as command
from flowad_jax.comparison import diagram, sweeps
from flowad_jax.errors import UserError

CATEGORIES = [f"c{index}" for index in range(8)]


def write_sweep(folder, shift, seeds=(0, 1), encoders=("lite0",), categories=CATEGORIES):
    """A table of runs whose figures are higher by a shift."""
    rng = np.random.default_rng(0)
    common = rng.uniform(0.7, 0.9, len(CATEGORIES))
    rows = [
        {
            "category": category,
            "encoder": encoder,
            "seed": seed,
            "columns": {"last": {"image_auroc": common[int(category[1])] + shift + 0.001 * seed}},
        }
        for category in categories
        for encoder in encoders
        for seed in seeds
    ]
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps({"runs": rows}))
    return str(folder)


def test_the_critical_difference_is_that_of_the_paper():
    """Four classifiers on 14 data sets, section 3.2.2 of Demšar (2006): 2.569 and 1.25."""
    assert sweeps.critical_difference(14, 4) == pytest.approx(1.25, abs=0.005)


def test_methods_are_ranked_over_the_categories_that_all_have(tmp_path):
    folders = [
        write_sweep(tmp_path / name, shift)
        for name, shift in zip("abc", (0, 0.05, 0.02), strict=True)
    ]
    folders.append(write_sweep(tmp_path / "d", -0.1, categories=CATEGORIES[1:]))
    found = sweeps.rank(folders, "image_auroc")
    assert found.categories == CATEGORIES[1:]
    np.testing.assert_array_equal(found.ranks, [3, 1, 2, 4])
    assert found.p_value == pytest.approx(stats.friedmanchisquare(*found.values.T).pvalue)
    text = sweeps.markdown(found)
    assert f"{folders[1]} is better than {folders[3]}".replace("_", "_") in text
    assert "| mean rank | 3.00 | 1.00 | 2.00 | 4.00 |" in text


def test_two_methods_have_the_test_of_signed_ranks_and_no_critical_difference(tmp_path):
    one, two = write_sweep(tmp_path / "a", 0), write_sweep(tmp_path / "b", 0.01)
    found = sweeps.rank([one, two], "image_auroc")
    assert found.critical is None
    assert found.p_value == pytest.approx(2 / 2**8)
    assert "Wilcoxon" in sweeps.markdown(found)
    same = sweeps.rank([one, write_sweep(tmp_path / "c", 0)], "image_auroc")
    assert same.p_value == 1


def test_encoders_of_one_sweep_are_methods(tmp_path):
    found = sweeps.rank([write_sweep(tmp_path / "a", 0, encoders=("x", "y"))], "image_auroc")
    assert [name.rpartition(", ")[2] for name in found.names] == ["x", "y"]


def test_sweeps_that_cannot_be_compared_are_one_line(tmp_path):
    one = write_sweep(tmp_path / "a", 0)
    with pytest.raises(UserError, match=r"one method; name a second sweep"):
        sweeps.rank([one], "image_auroc")
    with pytest.raises(UserError, match=r"0 categories with pixel_auroc in common"):
        sweeps.rank([one, write_sweep(tmp_path / "b", 0)], "pixel_auroc")
    for content in ("[]", "{", "\x00", '{"runs": 3}'):
        (tmp_path / "b" / "results.json").write_text(content)
        with pytest.raises(UserError, match=r"results\.json(:| cannot be read)"):
            sweeps.is_sweep(str(tmp_path / "b"))


def test_bars_join_what_does_not_differ():
    ranks = np.array([1.0, 1.5, 2.2, 3.9, 4.0])
    assert diagram.groups(ranks, 1.0) == [(0, 1), (1, 2), (3, 4)]
    assert diagram.groups(ranks, 10.0) == [(0, 4)]
    assert diagram.groups(ranks, 0.05) == []


def test_the_command_ranks_and_draws(tmp_path, monkeypatch, capsys):
    folders = [write_sweep(tmp_path / name, 0.01 * i) for i, name in enumerate(("$a$", "b", "c"))]
    picture = tmp_path / "ranks.png"
    monkeypatch.setattr(sys, "argv", ["x", *folders, f"--plot={picture}"])
    command.main()
    assert "Friedman" in capsys.readouterr().out
    assert picture.stat().st_size > 5000
    for words, line in (
        ([*folders[:2], f"--plot={picture}"], "--plot draws the ranks of three methods or more"),
        ([*folders, "--output=c.html"], "c.html: pages are of runs"),
        ([*folders, "--metric=image_auc"], "--metric='image_auc': did you mean 'image_auroc'?"),
    ):
        monkeypatch.setattr(sys, "argv", ["x", *words])
        with pytest.raises(SystemExit):
            command.main()
        assert line in capsys.readouterr().err
