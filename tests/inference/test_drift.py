"""flowad predict says whether images are still like the held-out normal ones."""

from flowad_jax.inference import job
from tests.inference.stub import Bright, lines, picture, summary, use


def judge(tmp_path, *, bright=(), count=20, **options):
    for number in range(count):
        picture(tmp_path / "in" / f"{number:02}.png", spot=number in bright)
    args = {"save": (), **options}
    return job.run(job.PredictArgs("run", [str(tmp_path / "in")], str(tmp_path / "out"), **args))


def test_the_alarm_names_its_image_and_stands_in_the_summary(tmp_path, monkeypatch, capsys):
    use(monkeypatch, Bright())
    assert judge(tmp_path, bright=range(20), drift_alpha=0.1) == 0
    found = summary(tmp_path)["drift"]
    number = found["alarm"]["number"]
    assert found["alarm"]["name"] == lines(tmp_path)[number - 1]["path"]
    assert found["value"] >= found["limit"] == 10
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"drift: ALARM at image {number}, '")


def test_images_like_those_held_out_raise_none(tmp_path, monkeypatch, capsys):
    detector = Bright()
    detector.normal = [detector.normal[0] * 0]
    use(monkeypatch, detector)
    assert judge(tmp_path) == 0
    found = summary(tmp_path)["drift"]
    assert (found["alarm"], found["images"]) == (None, 20)
    assert "drift: no alarm in 20 images" in capsys.readouterr().out


def test_it_can_be_left_out_and_tiles_have_none(tmp_path, monkeypatch, capsys):
    use(monkeypatch, Bright())
    for number, options in enumerate(({"drift_alpha": 0.0}, {"tile": True})):
        place = tmp_path / str(number)
        assert judge(place, count=2, **options) == 0
        assert "drift" not in summary(place)
    assert "drift" not in capsys.readouterr().out
