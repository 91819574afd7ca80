"""What overlays and heat maps show."""

import numpy as np

from flowad_jax.inference import pictures


def test_pictures(monkeypatch):
    """Regions are outlined; large pictures are coloured in strips."""
    values = np.zeros((40, 50), np.float32)
    values[10:20, 30:45] = 1
    image = np.full((40, 50, 3), 90, np.uint8)
    drawn = np.asarray(pictures.overlay(image, values, 1.0, 0.5))
    frame = values > 0
    frame[11:19, 31:44] = False
    np.testing.assert_array_equal((drawn == (0x3F, 0xE0, 0xFF)).all(-1), frame)
    assert (drawn[values == 0] == 90).all()  # usual places keep the picture
    colours = np.full((40, 50, 3), (200, 30, 60), np.uint8)
    drawn = pictures.overlay(colours, values, 1.0, 0.5)
    assert (np.asarray(drawn)[values == 0] == (200, 30, 60)).all()
    whole = pictures.captioned(drawn, "normal, score 0.2, p 0.5", 1.0, 0.5)
    assert whole.crop((0, 0, 50, 40)).tobytes() == drawn.tobytes()
    marked = (np.asarray(whole)[40:] == (0x3F, 0xE0, 0xFF)).all(-1)
    (columns,) = np.nonzero(marked.any(0))
    assert columns.tolist() == [whole.width - 6 - 60], "in the middle of a bar of 120"
    values[30, 5] = 1  # too small to be a region
    outlined = np.asarray(pictures.overlay(image, values, 1.0, 0.5, [(30, 10, 45, 20, 150, 1.0)]))
    np.testing.assert_array_equal((outlined == (0x3F, 0xE0, 0xFF)).all(-1), frame)
    unmarked = pictures.captioned(drawn, "undecided", 1.0, None)
    assert not (np.asarray(unmarked)[40:] == (0x3F, 0xE0, 0xFF)).all(-1).any()
    noise = np.random.default_rng(0).random((33, 21), np.float32)
    whole = np.asarray(pictures.heatmap(noise, 1.0))
    monkeypatch.setattr(pictures, "STRIP", 100)
    np.testing.assert_array_equal(np.asarray(pictures.heatmap(noise, 1.0)), whole)
