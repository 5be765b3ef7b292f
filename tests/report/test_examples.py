"""Tests of the choice of examples from batches."""

import numpy as np

from mindcv.report import ExampleCollector


def collected(logits, labels, most=3, batch_size=4, images=None):
    collector = ExampleCollector(most)
    images = np.zeros((len(labels), 3, 2, 2), np.float32) if images is None else images
    for start in range(0, len(labels), batch_size):
        part = slice(start, start + batch_size)
        collector(images[part], labels[part], logits[part])
    return collector.examples([0.0] * 3, [1.0] * 3, lambda number: f"image {number}")


def test_collector_keeps_the_surest_mistakes(rng):
    logits = rng.standard_normal((40, 5)).astype(np.float32) * 3
    labels = rng.integers(0, 5, 40)
    wrong, right = collected(logits, labels)
    probabilities = np.exp(logits.astype(np.float64)) / np.exp(logits.astype(np.float64)).sum(1, keepdims=True)
    mistakes = np.flatnonzero(logits.argmax(1) != labels)
    expected = mistakes[np.argsort(-probabilities.max(1)[mistakes])][:3]
    assert [example.number for example in wrong] == expected.tolist()
    for example in wrong:
        assert example.label == labels[example.number] and example.predicted == logits[example.number].argmax()
        assert abs(example.probability - probabilities[example.number].max()) < 1e-9
        assert example.name == f"image {example.number}"
    assert len(right) == 3 and all(example.label == example.predicted for example in right)


def test_collector_chooses_right_predictions_from_the_whole_data_set():
    logits, labels = np.tile(np.float32([5.0, 0.0]), (600, 1)), np.zeros(600, np.int64)
    wrong, right = collected(logits, labels, most=60, batch_size=7)
    numbers = [example.number for example in right]
    assert wrong == [] and len(numbers) == 60 and numbers == sorted(set(numbers))
    assert all(5 <= np.histogram(numbers, 3, (0, 600))[0][part] <= 35 for part in range(3))
    assert numbers == [example.number for example in collected(logits, labels, most=60, batch_size=100)[1]]


def test_collector_undoes_the_normalization_and_keeps_its_own_copy():
    pixels = np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3) * 20
    mean, std = [100.0, 110.0, 120.0], [50.0, 60.0, 70.0]
    images = ((pixels - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    collector = ExampleCollector(2)
    collector(images, np.array([1]), np.float32([[0.0, 1.0]]))
    images[:] = 0  # a loader uses its memory again
    _, (example,) = collector.examples(mean, std, str)
    np.testing.assert_array_equal(example.pixels, pixels[0].astype(np.uint8))
    assert example.picture().size == (2, 2) and example.picture().mode == "RGB"


def test_collector_keeps_equal_mistakes_in_the_order_of_the_images():
    logits, labels = np.tile(np.float32([5.0, 0.0]), (9, 1)), np.ones(9, np.int64)
    wrong, _ = collected(logits, labels)
    assert [example.number for example in wrong] == [0, 1, 2]


def test_collector_shows_the_centre_of_five_crops():
    images = np.zeros((1, 5, 3, 2, 2), np.float32)
    images[:, 4] = 200
    collector = ExampleCollector(1)
    collector(images, np.array([1]), np.float32([[0.0, 1.0]]))
    _, (example,) = collector.examples([0.0] * 3, [1.0] * 3, str)
    assert example.pixels.shape == (2, 2, 3) and (example.pixels == 200).all()
