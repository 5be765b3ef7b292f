"""The most confused pairs are those of a sorted list, and their picture shows the images of the pairs."""

import numpy as np
import pytest
from PIL import Image

from mindcv.engine.confused_pairs import ConfusedPair, draw_confused_pairs, most_confused
from mindcv.engine.predictions import Predictions

COLOURS = [(200, 30, 30), (30, 160, 30), (30, 30, 200)]


def test_most_confused_sorts_by_count_then_by_share_then_by_class(rng):
    confusion = rng.integers(0, 4, (6, 6))
    pairs = [(t, p) for t in range(6) for p in range(6) if t != p and confusion[t, p]]
    pairs.sort(key=lambda pair: (-confusion[pair], -confusion[pair] / confusion[pair[0]].sum(), pair))
    expected = [(t, p, confusion[t, p], confusion[t].sum()) for t, p in pairs]
    assert len(expected) > 12
    assert most_confused(confusion, limit=12) == expected[:12] and most_confused(confusion) == expected[:10]
    assert most_confused(np.array([[5, 0], [2, 3]])) == [ConfusedPair(true=1, predicted=0, count=2, num_images=5)]


@pytest.fixture
def predictions():
    """Return 30 predictions. Class 0 is taken for class 2 eight times; class 1 is taken for class 0 twice."""
    labels, predicted = np.repeat([0, 1, 2], 10), np.repeat([0, 1, 2], 10)
    predicted[:8], predicted[10:12] = 2, 0
    return Predictions(labels, predicted, np.linspace(0.5, 0.99, 30))


def count_by_hand(predictions):
    confusion = np.zeros((3, 3), int)
    np.add.at(confusion, (predictions.labels, predictions.predicted), 1)
    return confusion


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_confused_pairs_show_the_images_with_the_highest_confidence(tmp_path, predictions, mode):
    asked = []

    def read_image(index):
        asked.append(index)
        return Image.new("RGB", (60, 40), COLOURS[predictions.labels[index]]).convert(mode)

    names = ["cat", "dog " * 40, "\u732b\n"]
    path = tmp_path / "pairs.png"
    assert draw_confused_pairs(predictions, count_by_hand(predictions), names, read_image, path) == 2
    assert asked == [7, 6, 5, 4, 3, 2, 11, 10]
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert (pixels[:, -6:] == 255).all(), "nothing touches the border"
    if mode == "RGB":
        for label, count in ((0, 6), (1, 2)):
            is_own = (pixels == COLOURS[label]).all(axis=2)
            assert is_own.sum() == pytest.approx(count * 112 * 75, rel=0.02)
            rows = np.flatnonzero(is_own.any(axis=1))
            assert (rows[-1] < pixels.shape[0] // 2) == (label == 0), "the pair with more images comes first"


def test_confused_pairs_write_nothing_when_all_predictions_are_right(tmp_path, predictions, caplog):
    right = Predictions(predictions.labels, predictions.labels, predictions.confidences)
    assert draw_confused_pairs(right, count_by_hand(right), ["a", "b", "c"], None, tmp_path / "pairs.png") == 0
    assert not list(tmp_path.iterdir())
