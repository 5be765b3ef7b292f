"""The calibration is compared with a loop over the images that follows the definition in the paper."""

import math

import numpy as np
import pytest

from mindcv.engine.calibration import measure_calibration
from mindcv.engine.predictions import PredictionLog, Predictions
from mindcv.utils.distributed import Group


def draw(rng, count, num_classes=4):
    return rng.normal(0, 2, (count, num_classes)).astype(np.float32), rng.integers(0, num_classes, count)


def ece_by_definition(logits, labels, num_bins):
    """Return the sum over the bins of |B_m| / n * |acc(B_m) - conf(B_m)|, with bins that hold their upper edge."""
    bins = [[] for _ in range(num_bins)]
    for row, label in zip(logits.astype(float).tolist(), labels.tolist()):
        shares = [math.exp(value) / sum(map(math.exp, row)) for value in row]
        confidence = max(shares)
        bins[math.ceil(confidence * num_bins) - 1].append((confidence, shares.index(confidence) == label))
    total = 0.0
    for images in filter(None, bins):
        accuracy = sum(is_right for _, is_right in images) / len(images)
        confidence = sum(value for value, _ in images) / len(images)
        total += len(images) / len(labels) * abs(accuracy - confidence)
    return total


def predictions_of(logits, labels, batch_size=64):
    log = PredictionLog()
    for start in range(0, len(labels), batch_size):
        log.update(logits[start : start + batch_size], labels[start : start + batch_size])
    return log.gathered(Group())


@pytest.mark.parametrize("num_bins", [1, 10, 15])
def test_calibration_error_agrees_with_its_definition(rng, num_bins):
    logits, labels = draw(rng, 300)
    found = measure_calibration(predictions_of(logits, labels), num_bins)
    assert found.ece == pytest.approx(ece_by_definition(logits, labels, num_bins), abs=1e-8)
    assert found.num_images.sum() == 300 and found.num_correct.sum() == (logits.argmax(1) == labels).sum()
    shares = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum(1, keepdims=True)
    assert found.mean_confidence == pytest.approx(shares.max(1).mean(), abs=1e-8)


def test_calibration_bins_hold_their_upper_edge():
    confidences = np.array([1 / 4, 1 / 4 + 2**-32, 1 / 2, 1.0])
    found = measure_calibration(Predictions(np.zeros(4, int), np.array([0, 1, 0, 0]), confidences), num_bins=4)
    assert found.num_images.tolist() == [1, 2, 0, 1] and found.num_correct.tolist() == [1, 1, 0, 1]
    assert np.isnan(found.accuracies[2])
    assert [row["num_images"] for row in found.as_rows()] == [1, 2, 1]
    assert found.as_rows()[1] == {
        "above": 0.25, "up_to": 0.5, "num_images": 2, "accuracy": 0.5, "confidence": 0.375 + 2**-33
    }  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_calibration_has_the_same_bits_for_any_number_of_processes_and_any_batch_size(rng, processes, size):
    logits, labels = draw(rng, 61)
    alone = predictions_of(logits, labels, batch_size=61)

    def of_rank(rank):
        log = PredictionLog()
        for start in range(0, len(labels[rank::size]), 7):
            part = slice(start, start + 7)
            log.update(logits[rank::size][part], labels[rank::size][part])
        return log.gathered(Group(rank, size))

    for found in processes.run(of_rank, size):
        for name in ("labels", "predicted", "confidences"):
            np.testing.assert_array_equal(getattr(found, name), getattr(alone, name))
        assert measure_calibration(found).ece == measure_calibration(alone).ece


def test_predictions_are_gathered_from_processes_without_images(processes):
    def of_rank(rank):
        log = PredictionLog()
        if rank == 1:
            log.update(np.float32([[0, 1], [9, 0]]), np.array([1, 1]))
        return log.gathered(Group(rank, 3))

    for found in processes.run(of_rank, 3):
        assert found.labels.tolist() == [1, 1] and found.predicted.tolist() == [1, 0]


def test_predictions_take_the_smaller_class_of_equal_logits():
    found = predictions_of(np.zeros((2, 5), np.float32), np.array([0, 3]))
    assert found.predicted.tolist() == [0, 0] and found.is_correct.tolist() == [True, False]
    np.testing.assert_allclose(found.confidences, 0.2, atol=2**-33)
