"""Tests of handing batches over to the device: a device that normalises and mixes pixels gives the bits of the host."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn
from PIL import Image

from mindcv.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, create_dataset, create_loader, create_transforms
from mindcv.data.pixel_batches import PixelBatch
from mindcv.engine import create_trainer, handover
from mindcv.engine.handover import as_tensor, gives_host_bits, hand_over
from mindcv.loss import create_loss
from mindcv.optim import create_optimizer
from mindcv.utils.errors import UserError

NUM_IMAGES, SIZE = 22, 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of noise images of two classes."""
    root, rng = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for number in range(NUM_IMAGES):
        path = root / "train" / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 20, 3), np.uint8)).save(path)
    return root


def loader_of(folder, as_pixels, erasing=None, ranks=(0, 1), in_channels=3, **options):
    dataset = create_dataset("", str(folder), "train", shuffle=True, seed=5, shard_id=ranks[0], num_shards=ranks[1])
    transform = create_transforms(
        "", SIZE, True, auto_augment="rand-m9-mstd0.5-inc1", in_channels=in_channels, **(erasing or {})
    )
    options = {"is_training": True, "num_classes": 2, "transform": transform, "num_parallel_workers": 1, **options}
    return create_loader(dataset, 8, as_pixels=as_pixels, **options)


def bits(batches):
    return [[(array.dtype, array.shape, array.tobytes()) for array in batch] for batch in batches]


def on_device(batches):
    return [[tensor.asnumpy() for tensor in hand_over(batch)] for batch in batches]


MIXING = {"mixup": 0.8, "cutmix": 1.0, "cutmix_prob": 0.7}


@pytest.mark.parametrize(
    ("erasing", "options"),
    [
        ({}, {}),
        ({"re_prob": 0.5, "re_value": "random"}, {}),
        ({"re_prob": 1.0, "re_value": 0.5, "re_count": 3}, {"drop_remainder": True}),
        ({"re_prob": 0.4, "re_value": "rand"}, {**MIXING, "mixup_mode": "batch"}),
        ({"re_prob": 0.4, "re_value": [0.1, 0.2, 0.3]}, {**MIXING, "mixup_mode": "pair", "cutmix_minmax": [0.2, 0.8]}),
        ({"re_prob": 0.4, "re_value": "pixel"}, {**MIXING, "mixup_mode": "elem"}),
        ({}, {**MIXING, "mixup_mode": "elem", "mixup_group_size": 4}),
        ({}, {"mixup": 0.8, "cutmix_prob": 1.0, "ranks": (1, 2), "mixup_group_size": 4, "mixup_mode": "elem"}),
        ({"re_prob": 0.5, "re_value": "random"}, {"in_channels": 1, "cutmix": 1.0, "cutmix_prob": 1.0}),
        ({"re_prob": 0.5}, {"mixup": 0.2, "cutmix_prob": 1.0, "mixup_off_epoch": 1}),
    ],
)
def test_device_gives_the_bits_of_the_host(folder, erasing, options):
    plain, pixels = (loader_of(folder, as_pixels, erasing, **options) for as_pixels in (False, True))
    for epoch in (0, 1):
        batches = list(pixels.batches(epoch))
        assert all(isinstance(batch, PixelBatch) and batch.pixels.dtype == np.uint8 for batch in batches)
        assert bits(on_device(batches)) == bits(plain.batches(epoch))


def test_cases_above_have_blends_boxes_and_unmixed_images(folder):
    loader = loader_of(folder, True, **MIXING, mixup_mode="elem")
    batches = list(loader.batches())
    is_blend = np.concatenate([batch.is_blend for batch in batches])
    has_box = np.concatenate([batch.boxes.any(axis=1) for batch in batches])
    assert is_blend.any() and has_box.any() and not (is_blend | has_box).all()
    shared = loader_of(folder, True, mixup=0.8, cutmix_prob=1.0, ranks=(1, 2), mixup_group_size=4)
    assert [len(batch.pixels) > len(batch.labels) for batch in shared.batches()][-1]


def test_pixel_batch_holds_normalised_images_only_where_they_are_erased(folder):
    (batch, *_) = loader_of(folder, True, {"re_prob": 0.3, "re_value": "random"}).batches()
    assert batch.pixels.shape == (8, 3, SIZE, SIZE) and 0 < len(set(batch.erased_rows.tolist())) < 8
    assert len(batch.erased) == len(batch.erased_rows) == 8, "few shapes reach the device"
    (none, *_) = loader_of(folder, True).batches()
    assert len(none.erased) == 0 and none.pixels.nbytes * 4 == 8 * 3 * SIZE * SIZE * 4


def test_gives_host_bits_is_true_on_a_cpu():
    assert gives_host_bits(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)


@pytest.mark.parametrize("wrong", ["inverse", "fused"])
def test_gives_host_bits_notices_a_device_that_rounds_in_another_way(monkeypatch, wrong):
    class Device:
        def __getattr__(self, name):
            return getattr(ms.ops, name)

        def div(self, values, divisor):
            return ms.ops.mul(values, 1 / divisor) if wrong == "inverse" else ms.ops.div(values, divisor)

        def mul(self, first, second):  # a product that is not rounded before `add`
            exact = first.asnumpy() * second.asnumpy().astype(np.float64)
            return ms.Tensor(exact if wrong == "fused" else exact.astype(np.float32))

        def add(self, first, second):
            return ms.Tensor((first.asnumpy() + second.asnumpy()).astype(np.float32))

    monkeypatch.setattr(handover, "ops", Device())
    assert not gives_host_bits(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)


def test_as_tensor_shares_memory_unless_the_array_is_not_contiguous():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.shares_memory(as_tensor(array).asnumpy(), array)
    np.testing.assert_array_equal(as_tensor(array.T).asnumpy(), array.T)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"transform": [lambda image: image]}, "as_pixels=True needs a list of transforms that ends with ToArray"),
        ({"transform": []}, "as_pixels=True needs a list of transforms that ends with ToArray"),
        (
            {
                "transform": create_transforms("", SIZE, True, separate=True, re_prob=0.5),
                "separate": True,
            },
            "as_pixels=True cannot be combined with separate=True",
        ),
    ],
)
def test_create_loader_refuses_pixels_of_other_transforms(folder, options, words):
    with pytest.raises(UserError, match=words):
        loader_of(folder, True, **options)


def test_loader_of_pixels_refuses_iterators_of_mindspore(folder):
    with pytest.raises(UserError, match="as_pixels=True has no columns for MindSpore"):
        loader_of(folder, True).create_tuple_iterator()


def test_training_on_pixels_gives_the_bits_of_training_on_floats(folder):
    """The step accumulates two batches, and the erased and mixed images have an influence on the weights."""
    found = []
    for as_pixels in (False, True):
        rng = np.random.default_rng(0)
        network = nn.SequentialCell(nn.Flatten(), nn.Dense(3 * SIZE * SIZE, 2))
        for parameter in network.get_parameters():
            parameter.set_data(ms.Tensor(rng.standard_normal(parameter.shape).astype(np.float32)))
        optimizer = create_optimizer(network, "sgd", lr=0.01, momentum=0.9)
        trainer = create_trainer(
            network, create_loss("CE"), optimizer, gradient_accumulation_steps=2, runs_ahead=as_pixels
        )
        loader = loader_of(folder, as_pixels, {"re_prob": 0.5, "re_value": "random"}, **MIXING)
        progress = trainer.train(2, loader)
        found.append((progress.loss_sum, *(parameter.asnumpy().tobytes() for parameter in network.get_parameters())))
    assert found[0] == found[1] and np.isfinite(found[0][0])


def test_worker_processes_hand_over_the_same_pixels(folder):
    options = {"re_prob": 0.5, "re_value": "random"}
    expected = bits(loader_of(folder, True, options, **MIXING).batches(1))
    loader = loader_of(folder, True, options, num_parallel_workers=2, python_multiprocessing=True, **MIXING)
    batches = list(loader.batches(1))
    assert all(isinstance(batch, PixelBatch) for batch in batches) and bits(batches) == expected
