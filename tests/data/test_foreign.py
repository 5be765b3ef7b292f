"""Tests of `create_loader` with data sets of MindSpore and with Python objects."""

import mindspore.dataset as ds
import numpy as np
import pytest
from mindspore import Tensor
from PIL import Image

from mindcv.data import create_dataset, create_loader, create_transforms
from mindcv.utils.errors import DataError, UserError

TRANSFORM = create_transforms(image_resize=8)


class Samples:
    """Images that show their index: every pixel is 10 times the index."""

    def __init__(self, count=6, form=lambda array: array, label=lambda index: index % 3):
        self.count, self.form, self.label = count, form, label

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.form(np.full((8, 8, 3), 10 * index, np.uint8)), self.label(index)


def encoded(array, path):
    Image.fromarray(array).save(path, format="PNG")
    return path


def read(loader, epoch=0):
    batches = list(loader.batches(epoch))
    return np.concatenate([images for images, _ in batches]), np.concatenate([labels for _, labels in batches])


def indices(images):
    """Return the indices of samples, from their brightness."""
    red = images.mean((2, 3))[:, 0] * 255 * 0.229 + 255 * 0.485
    return [round(value / 10) for value in red.tolist()]


def test_create_loader_shuffles_a_python_object_only_in_training():
    images, labels = read(create_loader(Samples(), 4, num_classes=3, transform=TRANSFORM))
    assert images.shape == (6, 3, 8, 8) and indices(images) == list(range(6))
    assert labels.tolist() == [0, 1, 2, 0, 1, 2] and labels.dtype == np.int32
    loader = create_loader(Samples(20), 4, is_training=True, num_classes=3, transform=TRANSFORM)
    orders = [indices(read(loader, epoch)[0]) for epoch in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1] and sorted(orders[0]) == list(range(20)) != orders[0]


@pytest.mark.parametrize("form", ["bytes", "fromfile", "pillow", "tensor", "grey"])
def test_create_loader_accepts_all_forms_of_images(tmp_path, form):
    path = tmp_path / "image.png"
    forms = {
        "bytes": lambda array: encoded(array, path).read_bytes(),
        "fromfile": lambda array: np.fromfile(encoded(array, path), dtype=np.uint8),
        "pillow": Image.fromarray,
        "tensor": Tensor,
        "grey": lambda array: array[:, :, 0],
    }
    loader = create_loader(Samples(3, forms[form]), 4, num_classes=3, transform=TRANSFORM, num_parallel_workers=1)
    np.testing.assert_array_equal(read(loader)[0], read(create_loader(Samples(3), 4, transform=TRANSFORM))[0])


@pytest.mark.parametrize("shuffle", [True, False, None])
def test_create_loader_keeps_order_and_shards_of_a_generator_dataset(shuffle):
    def loaded(**options):
        dataset = ds.GeneratorDataset(Samples(12), ["image", "label"], shuffle=shuffle, **options)
        return create_loader(dataset, 4, is_training=True, num_classes=3, transform=TRANSFORM)

    order = indices(read(loaded())[0])
    assert sorted(order) == list(range(12)) and (order == list(range(12))) is (shuffle is False)
    shards = [indices(read(loaded(num_shards=2, shard_id=rank))[0]) for rank in range(2)]
    assert [len(shard) for shard in shards] == [6, 6] and sorted(sum(shards, [])) == list(range(12))
    assert len(read(loaded(num_samples=5))[0]) == 5


def test_create_loader_of_a_generator_dataset_works_with_mindspore():
    dataset = ds.GeneratorDataset(Samples(), ["image", "label"], shuffle=False)
    loader = create_loader(dataset, 2, num_classes=3, transform=TRANSFORM)
    shapes = [(images.shape, labels.asnumpy().tolist()) for images, labels in loader.create_tuple_iterator()]
    assert shapes == [((2, 3, 8, 8), [0, 1]), ((2, 3, 8, 8), [2, 0]), ((2, 3, 8, 8), [1, 2])]
    assert loader.output_shapes()[0] == [2, 3, 8, 8] and loader.get_batch_size() == 2


def test_create_loader_reads_an_image_folder_dataset_as_create_dataset(tmp_path):
    for number, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        for index in range(2):
            encoded(np.full((8, 8, 3), 40 * number + 10 * index, np.uint8), tmp_path / name / f"{index}.png")
    theirs = create_loader(ds.ImageFolderDataset(str(tmp_path), shuffle=False), 4, transform=TRANSFORM)
    ours = create_loader(create_dataset(root=tmp_path, split="", shuffle=False), 4, transform=TRANSFORM)
    for array, expected in zip(read(theirs), read(ours)):
        np.testing.assert_array_equal(array, expected)
    assert theirs.num_classes() == 2
    swapped = ds.ImageFolderDataset(str(tmp_path), shuffle=False, class_indexing={"cat": 1, "dog": 0})
    assert sorted(read(create_loader(swapped, 4, transform=TRANSFORM))[1].tolist()) == [0, 0, 1, 1]


def test_create_loader_refuses_other_data_sets_by_name():
    class NoLength:
        def __getitem__(self, index):
            return index

    def generated():
        yield np.zeros((8, 8, 3), np.uint8), 0

    generator = ds.GeneratorDataset(Samples(), ["image", "label"])
    for dataset, says in [
        (generator.batch(2), "a BatchDataset cannot be read by index: create_loader accepts"),
        (ds.NumpySlicesDataset(np.zeros(3)), r"the column_names of a GeneratorDataset must be .*, got \['column_0'\]"),
        (ds.GeneratorDataset(Samples(), ["data", "label"]), r"must be \['image', 'label'\], got \['data'"),
        (ds.GeneratorDataset(generated, ["image", "label"]), "source of the GeneratorDataset, function, has no __get"),
        (ds.GeneratorDataset(Samples(), ["image", "label"], sampler=ds.SubsetSampler([0])), "with a SubsetSampler is"),
        (NoLength(), "the data set, NoLength, has no __len__: create_loader accepts"),
        (3, "the data set, int, has no __getitem__ and no __len__"),
    ]:
        with pytest.raises(UserError, match=says):
            create_loader(dataset, 2, transform=TRANSFORM)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"label": lambda index: 7}, r"the label of Samples\[0\] must be from 0 to 2, got 7"),
        ({"label": lambda index: "cat"}, r"the label of Samples\[0\] must be a class number, got 'cat'"),
        (
            {"form": lambda array: array / 255},
            r"image of Samples\[0\] must be the contents of a file .* got float64 \(8, 8, 3\)",
        ),
        ({"form": lambda array: array.transpose(2, 0, 1)}, r"got uint8 \(3, 8, 8\)"),
        ({"form": lambda array: b"no image"}, r"cannot decode 'Samples\[0\]'"),
        ({"form": lambda array: array[:0]}, r"Samples\[0\].*has no pixels"),
        ({"label": lambda index: np.array([7])}, r"the label of Samples\[0\] must be from 0 to 2, got 7"),
    ],
)
def test_create_loader_names_wrong_samples(options, says):
    loader = create_loader(Samples(1, **options), 1, num_classes=3, transform=TRANSFORM)
    with pytest.raises(DataError, match=says):
        read(loader)


def test_create_loader_accepts_a_label_in_an_array_of_length_one():
    loader = create_loader(Samples(label=lambda index: np.array([index % 3])), 6, num_classes=3, transform=TRANSFORM)
    np.testing.assert_array_equal(read(loader)[1], [0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("dtype", "largest"), [(np.uint16, 65535), (np.float32, 1)])
def test_create_loader_scales_a_pillow_image_of_more_than_8_bits_as_a_file(tmp_path, dtype, largest, level):
    deep = np.full((8, 8), level * largest, dtype)
    image = Image.fromarray(deep)
    image.save(tmp_path / "deep.tiff")
    forms = [lambda array: image, lambda array: (tmp_path / "deep.tiff").read_bytes()]
    pillow, file = (read(create_loader(Samples(1, form), 1, num_classes=3, transform=TRANSFORM))[0] for form in forms)
    np.testing.assert_array_equal(pillow, file)
    assert not np.array_equal(pillow, file * 0)


def test_create_loader_mixes_images_of_a_python_object():
    loader = create_loader(
        Samples(8), 8, is_training=True, num_classes=3, transform=TRANSFORM, mixup=0.8, cutmix_prob=1.0
    )
    labels = read(loader)[1]
    assert labels.shape == (8, 3)
    np.testing.assert_allclose(labels.sum(1), 1.0, rtol=1e-5)
