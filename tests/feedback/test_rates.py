"""What operators said, as rates and as a table."""

import csv
import io
import subprocess
import sys

import pytest

from flowad_jax.feedback import rates, table
from flowad_jax.feedback.store import FeedbackStore, Judgement, Row, beside

DAY = 86400.0


def row(number, anomalous, verdict, time=0.0, name="a.png"):
    one = Judgement(time, "d", "i", name, (1.0, 3.0), 1.0, 0.5, anomalous)
    return Row(number, one, verdict, time if verdict else None)


def test_rates_per_day_and_in_all():
    rows = [
        *(row(k, k < 1, "good") for k in range(4)),
        *(row(k, k > 7, "defect", DAY) for k in range(4, 12)),
        row(12, None, "good", DAY),  # undecided: neither right nor wrong
        row(13, True, None, DAY),
    ]
    first, second, whole = rates.measure(rows)
    assert (first.name, first.judged, first.confirmed) == ("1970-01-01", 4, 4)
    assert first.false_alarms[:2] == (1, 4)
    assert first.false_alarms[2:] == pytest.approx((0.0063, 0.8059), abs=1e-3)
    assert second.misses[:2] == (4, 8)
    assert (second.confirmed, second.judged) == (9, 10)
    assert (whole.name, whole.false_alarms[:2], whole.misses[:2]) == ("all", (1, 4), (4, 8))
    text = rates.shown([first, second, whole])
    assert "1 of 4: 25 % (0.631 to 80.6)" in text
    assert "none confirmed" in text
    assert "1 of 14 images have no verdict" in text
    assert rates.shown(rates.measure(rows[:4])).endswith("all judged images are confirmed")


def test_the_table_is_safe_for_spreadsheets():
    (found,) = csv.DictReader(io.StringIO(table.csv_text([row(1, True, "good", name="=1+1")])))
    assert (found["name"], found["score"], found["verdict"]) == ("'=1+1", "2.0", "good")
    assert found["time"] == "1970-01-01T00:00:00+00:00"


def test_the_command(tmp_path):
    def run(*words):
        return subprocess.run(
            [sys.executable, "-m", "flowad_jax", "feedback", *words],
            capture_output=True, text=True, timeout=60, cwd=tmp_path,
        )  # fmt: skip

    missing = run("--bundle=screws.flowad")
    assert (missing.returncode, len(missing.stderr.splitlines())) == (1, 1)
    assert "screws.flowad.feedback.sqlite is not there" in missing.stderr
    assert run().returncode == 2
    store = FeedbackStore(beside(tmp_path / "screws.flowad"))
    store.add([row(1, True, None).judgement])
    store.add_verdict(1, "good")
    store.close()
    done = run("--bundle=screws.flowad", "--export=out.csv")
    assert done.returncode == 0, done.stderr
    assert "1 of 1: 100 % (2.5 to 100)" in done.stdout
    assert (tmp_path / "out.csv").read_text().count("\n") == 2
