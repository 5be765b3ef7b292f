"""Evaluation counts every image once, whatever the batch size is."""

import importlib
import signal
from types import SimpleNamespace

import numpy as np
import pytest
from mindspore import Tensor, nn

from mindcv.engine import Interruption, evaluate, predict
from mindcv.engine.evaluate import predict_batches
from mindcv.utils.distributed import Group
from mindcv.utils.errors import DataError, Interrupted, UserError


class Loader:
    """A loader of arrays, whose last batch may be smaller."""

    def __init__(self, images, labels, batch_size):
        self.images, self.labels, self.batch_size = images, labels, batch_size

    def get_batch_size(self):
        return self.batch_size

    def get_dataset_size(self):
        return -(-len(self.labels) // self.batch_size)

    def batches(self):
        for start in range(0, len(self.labels), self.batch_size):
            part = slice(start, start + self.batch_size)
            yield self.images[part], self.labels[part]


class Linear(nn.Cell):
    """A network from [B, 4] to [B, 3]. It records the shapes of its inputs and is correct in evaluation mode only."""

    def __init__(self, weight):
        super().__init__()
        self.weight = Tensor(weight)
        self.shapes = set()

    def construct(self, x):
        self.shapes.add(x.shape)
        return x @ self.weight * (-1.0 if self.training else 1.0)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    images = rng.standard_normal((11, 4)).astype(np.float32)
    return images, rng.integers(0, 3, 11).astype(np.int32), rng.standard_normal((4, 3)).astype(np.float32)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 11, 64])
def test_evaluate_counts_every_image_once_for_any_batch_size(data, batch_size):
    images, labels, weight = data
    network = Linear(weight).set_train(True)
    result = evaluate(network, Loader(images, labels, batch_size), 3, Group())
    logits = images.astype(np.float64) @ weight
    hits = logits.argmax(1) == labels
    loss = np.log(np.exp(logits).sum(1)) - logits[np.arange(11), labels]
    counts = result.counts
    assert (counts.num_images, counts.num_top1, counts.num_top5) == (11, hits.sum(), 11)
    assert counts.loss == pytest.approx(loss.mean(), rel=1e-5)
    assert counts.confusion.sum(axis=1).tolist() == np.bincount(labels, minlength=3).tolist()
    assert network.shapes == {(batch_size, 4)}, "the network would be compiled again"
    assert result.images_per_s > 0
    assert result.as_dict() == {
        "top_1": hits.mean(),
        "top_5": 1.0,
        "loss": counts.loss,
        "num_images": 11,
        "num_top_1": hits.sum(),
        "num_top_5": 11,
        "ece": result.calibration.ece,
        "mean_confidence": result.calibration.mean_confidence,
        "images_per_s": result.images_per_s,
        "calibration": result.calibration.as_rows(),
    }
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert result.predictions.labels.tolist() == labels.tolist()
    assert result.predictions.predicted.tolist() == logits.argmax(1).tolist()
    np.testing.assert_allclose(result.predictions.confidences, shares.max(1), rtol=1e-5)


def test_evaluate_shows_each_batch_with_the_logits_that_it_counts(data):
    images, labels, weight = data
    seen = []
    loader = Loader(images, labels, 4)
    evaluate(Linear(weight), loader, 3, Group(), on_batch=lambda *batch: seen.append(batch))
    assert [len(batch_labels) for _, batch_labels, _ in seen] == [4, 4, 3]
    np.testing.assert_array_equal(np.concatenate([batch[0] for batch in seen]), images)
    np.testing.assert_array_equal(np.concatenate([batch[1] for batch in seen]), labels)
    np.testing.assert_allclose(np.concatenate([batch[2] for batch in seen]), images @ weight, rtol=1e-5)


def test_evaluate_counts_among_the_given_classes_alone(data):
    images, _, weight = data
    labels = np.array([0, 2] * 6, np.int32)[:11]
    result = evaluate(Linear(weight), Loader(images, labels, 4), 3, Group(), classes=np.array([0, 2]))
    logits = (images.astype(np.float64) @ weight)[:, [0, 2]]
    loss = np.log(np.exp(logits).sum(1)) - logits[np.arange(11), labels // 2]
    assert result.counts.num_top1 == (logits.argmax(1) == labels // 2).sum()
    assert result.counts.loss == pytest.approx(loss.mean(), rel=1e-5)
    assert result.predictions.predicted.tolist() == logits.argmax(1).tolist()
    assert result.counts.confusion.shape == (2, 2) and result.counts.confusion.sum(axis=1).tolist() == [6, 5]


def test_evaluate_adds_up_the_counts_of_all_processes(data, processes):
    images, labels, weight = data
    loaders = [Loader(images[rank::3], labels[rank::3], 2) for rank in range(3)]
    results = processes.run(lambda rank: evaluate(Linear(weight), loaders[rank], 3, Group(rank, 3)), 3)
    hits = ((images.astype(np.float64) @ weight).argmax(1) == labels).sum()
    assert [(r.counts.num_images, r.counts.num_top1) for r in results] == [(11, hits)] * 3
    alone = evaluate(Linear(weight), Loader(images, labels, 4), 3, Group())
    for result in results:
        assert (result.calibration.ece, result.calibration.as_rows()) == (
            alone.calibration.ece,
            alone.calibration.as_rows(),
        )
        for name in ("labels", "predicted", "confidences"):
            np.testing.assert_array_equal(getattr(result.predictions, name), getattr(alone.predictions, name))


@pytest.mark.parametrize("tta", ["flip", "ten_crop"])
def test_evaluate_averages_views_with_the_same_bits_in_any_number_of_processes(tta, processes):
    rng = np.random.default_rng(0)
    crops = rng.standard_normal((11, 5, 1, 2, 2)).astype(np.float32)
    images, labels = crops if tta == "ten_crop" else crops[:, 0], rng.integers(0, 3, 11).astype(np.int32)
    weight = rng.standard_normal((4, 3)).astype(np.float32)

    class Flat(Linear):
        def construct(self, x):
            return Linear.construct(self, x.reshape(len(x), 4))

    def measure(rank, size):
        loader = Loader(images[rank::size], labels[rank::size], 2)
        return evaluate(Flat(weight), loader, 3, Group(rank, size), classes=np.array([0, 1, 2]), tta=tta)

    alone = measure(0, 1)
    views = [crop for crop in crops.swapaxes(0, 1)[: 5 if tta == "ten_crop" else 1]]
    views += [view[..., ::-1] for view in views]
    powers = [np.exp(view.reshape(11, 4).astype(np.float64) @ weight) for view in views]
    shares = np.mean([power / power.sum(axis=1, keepdims=True) for power in powers], axis=0)
    np.testing.assert_allclose(alone.predictions.confidences, shares.max(axis=1), rtol=1e-5)
    assert alone.counts.num_top1 == (shares.argmax(axis=1) == labels).sum()
    assert alone.counts.loss == pytest.approx(-np.log(shares[np.arange(11), labels]).mean(), rel=1e-5)
    for found in processes.run(lambda rank: measure(rank, 3), 3):
        assert found.counts.num_top1 == alone.counts.num_top1 and found.calibration.ece == alone.calibration.ece
        np.testing.assert_array_equal(found.predictions.confidences, alone.predictions.confidences)


def test_evaluate_fails_in_every_process_when_one_cannot_read_an_image(data, processes):
    """The other processes must not wait for the counts of the process that failed."""
    images, labels, weight = data
    loaders = [Loader(images[rank::3], labels[rank::3], 2) for rank in range(3)]

    def broken():
        yield from list(Loader.batches(loaders[1]))[:1]
        raise DataError("cannot decode 'x.jpg'")

    loaders[1].batches = broken

    def failure(rank):
        try:
            evaluate(Linear(weight), loaders[rank], 3, Group(rank, 3))
        except UserError as error:
            return str(error)

    other = "1 of the 3 processes failed; their logs give the reason"
    assert processes.run(failure, 3) == [other, "cannot decode 'x.jpg'", other]


def test_evaluate_measures_the_speed_without_the_first_batch(data, monkeypatch):
    images, labels, weight = data
    ticks = iter([0.0, 100.0, 101.0, 102.0, 104.0])  # the start, and the end of each batch
    module = importlib.import_module("mindcv.engine.evaluate")  # the package has a function of that name
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    result = evaluate(Linear(weight), Loader(images, labels, 3), 3, Group())
    assert result.images_per_s == 8 / 4


def test_evaluate_measures_the_speed_of_a_single_batch(data, monkeypatch):
    images, labels, weight = data
    ticks = iter([1.0, 3.0])
    module = importlib.import_module("mindcv.engine.evaluate")
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    assert evaluate(Linear(weight), Loader(images, labels, 11), 3, Group()).images_per_s == 11 / 2


def test_predict_batches_starts_the_next_batch_before_a_result_is_used():
    events = []

    def batches():
        for number in range(3):
            events.append(f"data {number}")
            yield np.float32([number]), f"label {number}"

    def start(images):
        events.append(f"start {images[0]:.0f}")

        def finish():
            events.append(f"wait {images[0]:.0f}")
            return 10 * images

        return finish

    for images, label, result in predict_batches(start, batches()):
        assert label == f"label {images[0]:.0f}" and result == 10 * images
        events.append(f"use {images[0]:.0f}")
    assert events == [
        *("data 0", "start 0"),
        *("data 1", "wait 0", "start 1", "use 0"),
        *("data 2", "wait 1", "start 2", "use 1"),
        *("wait 2", "use 2"),
    ]


def test_predict_batches_yields_nothing_without_batches():
    assert list(predict_batches(lambda images: None, iter(()))) == []


def test_predict_gives_logits_of_the_images_alone(data):
    images, _, weight = data
    network = Linear(weight).set_train(False)
    found = predict(network, images[:2], 5)
    np.testing.assert_allclose(found, images[:2] @ weight, rtol=1e-5)
    assert found.shape == (2, 3) and found.dtype == np.float32 and network.shapes == {(5, 4)}


def test_evaluate_stops_after_the_batch_in_which_a_signal_arrives(data):
    images, labels, weight = data
    network, interruption = Linear(weight), Interruption()
    loader = Loader(images, labels, 2)
    assert evaluate(network, loader, 3, Group(), on_batch=interruption.stop_validation).counts.num_images == 11
    given = []

    def batches():
        for number, batch in enumerate(Loader.batches(loader)):
            given.append(number)
            if number == 2:
                interruption.signal = signal.SIGINT
            yield batch

    loader.batches = batches
    with pytest.raises(Interrupted, match="by SIGINT in a validation; --resume auto repeats that") as raised:
        evaluate(network, loader, 3, Group(), on_batch=interruption.stop_validation)
    assert given == [0, 1, 2] and raised.value.status == 130
