"""Tests of data sets by name: files that the test writes in the published formats, subsets and shards."""

from __future__ import annotations

import gzip
import pickle
import struct

import mindspore.dataset as ds
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from mindcv.data import create_dataset, dataset_factory, imagenet_class_names
from mindcv.utils.errors import DataError, UserError


def everything(dataset):
    images, labels = zip(*(dataset.read(i) for i in range(len(dataset))))
    return np.stack(images), list(labels)


def test_read_digits_splits_and_scales_the_samples():
    package = load_digits()
    train, val = create_dataset("digits"), create_dataset("Digits", split="val")
    assert (len(train), len(val)) == (1438, 359)
    assert train.class_names == [str(i) for i in range(10)]
    images, labels = everything(val)
    assert images.dtype == np.uint8 and images.shape == (359, 8, 8)
    np.testing.assert_array_equal(labels, package.target[4::5])
    np.testing.assert_allclose(images, package.images[4::5] * 255 / 16, atol=0.5)
    assert (images.min(), images.max()) == (0, 255)
    assert val.describe(0) == "digits sample 4" and train.describe(4) == "digits sample 5"
    np.testing.assert_array_equal(everything(create_dataset("digits", split="test"))[1], labels)
    with pytest.raises(UserError, match="split of digits 'valid' is not known; did you mean 'val'"):
        create_dataset("digits", split="valid")


def test_read_digits_names_the_extra_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match=r'run pip install -e "\.\[demo\]"'):
        create_dataset("digits")


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


MNIST = {
    prefix: (
        np.random.default_rng(n).integers(0, 256, (n, 28, 28), dtype=np.uint8),
        np.random.default_rng(n).integers(0, 10, n, dtype=np.uint8),
    )
    for prefix, n in (("train", 7), ("t10k", 5))
}


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_read_mnist_reads_plain_and_compressed_files(tmp_path, ending):
    pack = gzip.compress if ending else bytes
    for prefix, (images, labels) in MNIST.items():
        (tmp_path / f"{prefix}-images-idx3-ubyte{ending}").write_bytes(pack(idx(images)))
        (tmp_path / f"{prefix}-labels-idx1-ubyte{ending}").write_bytes(pack(idx(labels)))
    for split, prefix in (("train", "train"), ("test", "t10k"), ("val", "t10k")):
        images, labels = everything(create_dataset("MNIST", tmp_path, split))
        np.testing.assert_array_equal(images, MNIST[prefix][0])
        np.testing.assert_array_equal(labels, MNIST[prefix][1])


def test_read_mnist_refuses_missing_and_damaged_files(tmp_path):
    with pytest.raises(DataError, match="lacks train-images-idx3-ubyte and train-labels-idx1-ubyte"):
        create_dataset("mnist", tmp_path)
    images, labels = MNIST["train"]
    image_file, label_file = tmp_path / "train-images-idx3-ubyte", tmp_path / "train-labels-idx1-ubyte"
    label_file.write_bytes(idx(labels))
    image_file.write_bytes(idx(labels))
    with pytest.raises(DataError, match="is not an IDX file of bytes with 3 axes: it starts with 00000801"):
        create_dataset("mnist", tmp_path)
    label_file.write_bytes(idx(images))
    image_file.write_bytes(idx(images))
    with pytest.raises(DataError, match="is not an IDX file of bytes with 1 axes: it starts with 00000803"):
        create_dataset("mnist", tmp_path)
    label_file.write_bytes(idx(labels))
    image_file.write_bytes(idx(images)[:-1])
    with pytest.raises(DataError, match=r"has 5487 values, but its shape is \(7, 28, 28\)"):
        create_dataset("mnist", tmp_path)
    image_file.write_bytes(idx(images[:6]))
    with pytest.raises(DataError, match="6 images but 7 labels"):
        create_dataset("mnist", tmp_path)
    image_file.unlink()
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images))[:-20])
    with pytest.raises(DataError, match="cannot read '.*gz'"):
        create_dataset("mnist", tmp_path)
    with pytest.raises(UserError, match="split of mnist 'tset' is not known; did you mean 'test'"):
        create_dataset("mnist", tmp_path, "tset")


def write_mnist(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, (images, labels) in MNIST.items():
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))


@pytest.fixture
def default_folders(tmp_path, monkeypatch):
    """Return the folders where Fashion-MNIST is looked for: that of downloads, and that of Debian's package."""
    monkeypatch.setenv("MINDCV_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(dataset_factory._SYSTEM_ROOTS, "fashion_mnist", str(tmp_path / "share"))
    return tmp_path / "home" / "datasets" / "fashion_mnist", tmp_path / "share"


def test_fashion_mnist_has_its_own_class_names_and_the_format_of_mnist(tmp_path):
    write_mnist(tmp_path)
    for split, prefix in (("train", "train"), ("test", "t10k"), ("val", "t10k")):
        dataset = create_dataset("fashion_mnist", tmp_path, split)
        images, labels = everything(dataset)
        np.testing.assert_array_equal(images, MNIST[prefix][0])
        np.testing.assert_array_equal(labels, MNIST[prefix][1])
        assert dataset.class_names == ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt"] + [
            *("Sneaker", "Bag", "Ankle boot")
        ]
    assert dataset.describe(3) == "fashion_mnist val sample 3"
    assert create_dataset("mnist", tmp_path).class_names == list("0123456789")
    with pytest.raises(UserError, match="split of fashion_mnist 'tset' is not known; did you mean 'test'"):
        create_dataset("fashion_mnist", tmp_path, "tset")


def test_fashion_mnist_is_found_in_its_default_folders(default_folders):
    home, system = default_folders
    with pytest.raises(UserError) as caught:
        create_dataset("fashion_mnist")
    assert str(caught.value) == (
        f"dataset 'fashion_mnist' needs root (data_dir), the folder of its files; its default folders '{home}' and "
        f"'{system}' do not exist: install Debian's package dataset-fashion-mnist, or copy the files from "
        "https://github.com/zalandoresearch/fashion-mnist"
    )
    write_mnist(system)
    assert len(create_dataset("Fashion_MNIST")) == 7
    home.mkdir(parents=True)
    with pytest.raises(DataError, match=f"'{home}' lacks train-.*install Debian's package dataset-fashion-mnist, or"):
        create_dataset("fashion_mnist")
    write_mnist(home)
    assert len(create_dataset("fashion_mnist", split="test")) == 5
    with pytest.raises(UserError, match="needs root .*default folder '.*datasets/mnist' does not exist$"):
        create_dataset("mnist")


def cifar_rows(seed, classes):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (3, 3072), dtype=np.uint8), rng.integers(0, classes, 3).tolist()


TEN_FILES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
HUNDRED_FILES = {"train": ["train"], "test": ["test"]}


def write_cifar(root, name, is_binary):
    classes = 10 if name == "cifar10" else 100
    names = [f"class{i}" for i in range(classes)]
    files = TEN_FILES if classes == 10 else HUNDRED_FILES
    expected = {}
    for split, parts in files.items():
        rows = [cifar_rows(len(part) * 7 + ord(part[-1]), classes) for part in parts]
        expected[split] = np.concatenate([r for r, _ in rows]), sum((labels for _, labels in rows), [])
        for part, (pixels, labels) in zip(parts, rows):
            if is_binary:
                columns = np.array(labels, np.uint8)[:, None]
                coarse = [np.full_like(columns, 3)] if classes == 100 else []
                (root / f"{part}.bin").write_bytes(np.hstack([*coarse, columns, pixels]).tobytes())
            else:
                key = b"labels" if classes == 10 else b"fine_labels"
                (root / part).write_bytes(pickle.dumps({b"data": pixels, key: labels}, protocol=2))
    if is_binary:
        names_file = "batches.meta.txt" if classes == 10 else "fine_label_names.txt"
        (root / names_file).write_text("\n".join(names) + "\n\n")
    else:
        key = "label_names" if classes == 10 else "fine_label_names"
        (root / ("batches.meta" if classes == 10 else "meta")).write_bytes(pickle.dumps({key: names}, protocol=2))
    return expected, names


@pytest.mark.parametrize(
    "name, folder, is_binary",
    [
        ("cifar10", "cifar-10-batches-py", False),
        ("cifar10", "cifar-10-batches-bin", True),
        ("cifar100", "cifar-100-python", False),
        ("cifar100", "cifar-100-binary", True),
    ],
)
def test_read_cifar_reads_both_formats(tmp_path, name, folder, is_binary):
    (tmp_path / folder).mkdir()
    expected, names = write_cifar(tmp_path / folder, name, is_binary)
    for root in (tmp_path, tmp_path / folder):
        for split in ("train", "test", "val"):
            dataset = create_dataset(name, root, split)
            images, labels = everything(dataset)
            rows, expected_labels = expected["test" if split == "val" else split]
            assert images.shape == (len(rows), 32, 32, 3) and labels == expected_labels
            # a sample is the red plane, then the green and the blue one, each in row-major order
            np.testing.assert_array_equal(images[1, 4, 5], [rows[1][c * 1024 + 4 * 32 + 5] for c in range(3)])
            np.testing.assert_array_equal(images[2, :, :, 2].ravel(), rows[2][2048:])
            assert dataset.class_names == names


def test_read_cifar_refuses_missing_and_damaged_files(tmp_path):
    with pytest.raises(DataError, match="is not a folder 'cifar-10-batches-py' or 'cifar-10-batches-bin' with"):
        create_dataset("cifar10", tmp_path)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    write_cifar(folder, "cifar10", False)
    (folder / "data_batch_2").unlink()
    (folder / "data_batch_5").unlink()
    with pytest.raises(DataError, match="lacks data_batch_2, data_batch_5"):
        create_dataset("cifar10", tmp_path)
    (folder / "test_batch").write_bytes(b"\x80\x02}q")
    with pytest.raises(DataError, match="cannot read '.*test_batch'"):
        create_dataset("cifar10", tmp_path, "test")
    (folder / "test_batch").write_bytes(pickle.dumps({b"data": np.zeros((2, 3072), np.uint8)}))
    with pytest.raises(DataError, match="no entry 'labels'"):
        create_dataset("cifar10", tmp_path, "test")
    (folder / "test_batch").write_bytes(pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 10]}))
    with pytest.raises(DataError, match="labels from 1 to 10, but they must be from 0 to 9"):
        create_dataset("cifar10", tmp_path, "test")
    with pytest.raises(UserError, match="split of cifar10 'validate'"):
        create_dataset("cifar10", tmp_path, "validate")


def test_read_cifar_refuses_a_truncated_binary_file(tmp_path):
    write_cifar(tmp_path, "cifar100", True)
    whole = (tmp_path / "test.bin").read_bytes()
    (tmp_path / "test.bin").write_bytes(whole[:-5])
    with pytest.raises(DataError, match="is not a multiple of 3074, a sample's size"):
        create_dataset("cifar100", tmp_path, "test")


class Harmful:
    """Its pickle calls a function when Python's unpickler reads it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_read_cifar_refuses_a_pickle_with_code(tmp_path):
    write_cifar(tmp_path, "cifar10", False)
    (tmp_path / "test_batch").write_bytes(pickle.dumps({b"data": Harmful(tmp_path / "proof")}))
    with pytest.raises(DataError, match="refers to .*open"):
        create_dataset("cifar10", tmp_path, "test")
    assert not (tmp_path / "proof").exists()


def test_num_samples_chooses_a_random_subset():
    whole = everything(create_dataset("digits"))[0]
    first, again = (create_dataset("digits", num_samples=100, seed=5) for _ in range(2))
    assert len(first) == 100
    descriptions = [first.describe(i) for i in range(100)]
    assert len(set(descriptions)) == 100 and descriptions == [again.describe(i) for i in range(100)]
    shard = create_dataset("digits", num_samples=100, seed=5, num_shards=3, shard_id=2)
    assert [shard.describe(i) for i in range(100)] == descriptions and shard.get_dataset_size() == 34
    other = create_dataset("digits", num_samples=100, seed=6)
    assert {other.describe(i) for i in range(100)} != set(descriptions)
    assert np.isin(everything(first)[0].reshape(100, -1), whole.reshape(len(whole), -1)).all()
    assert int(descriptions[-1].split()[-1]) > 1000  # the subset is not the first samples
    assert {first.read(i)[1] for i in range(100)} == set(range(10))


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"num_samples": 0},
            "num_samples must be a whole number of at least 1 and at most 1438, the size of the data set",
        ),
        (
            {"num_samples": 1439},
            "num_samples must be a whole number of at least 1 and at most 1438, the size of the data set",
        ),
        ({"num_shards": 2}, "must be given together"),
        ({"num_shards": 2, "shard_id": 2}, "shard_id must be a whole number of at least 0 and at most 1"),
        ({"num_shards": 0, "shard_id": 0}, "num_shards must be a whole number of at least 1, got 0"),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
        ({"num_aug_repeats": -1}, "num_aug_repeats"),
        ({"class_indexing": {"0": 0}}, "class_indexing does not match the classes of data set 'digits'"),
        ({"download": True}, "'digits' cannot be downloaded, only mnist, cifar10, cifar100 can: install scikit-learn"),
    ],
)
def test_create_dataset_refuses_wrong_arguments(options, message):
    with pytest.raises(UserError, match=message):
        create_dataset("digits", **options)


def test_create_dataset_accepts_class_indexing_that_equals_the_classes():
    own = create_dataset("digits").class_to_idx
    assert create_dataset("digits", split="val", class_indexing=own).class_to_idx == own
    with pytest.raises(UserError, match="class_indexing does not match"):
        create_dataset("digits", class_indexing={**own, "0": 1, "1": 0})


def test_create_dataset_refuses_unknown_names_and_keywords():
    with pytest.raises(UserError, match="dataset 'cifar' is not known; did you mean 'cifar10"):
        create_dataset("cifar")
    with pytest.raises(TypeError):
        create_dataset("digits", subset=3)
    with pytest.raises(UserError, match="root/<split>/<class>/"):
        create_dataset("imagenet", download=True)
    with pytest.raises(IndexError):
        create_dataset("digits", num_samples=5).read(5)


def test_image_dataset_has_the_columns_of_mindspore(tmp_path):
    (tmp_path / "train" / "cat").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "train" / "cat" / "1.png")
    own, other = create_dataset("imagenet", tmp_path), ds.ImageFolderDataset(str(tmp_path / "train"))
    assert own.get_col_names() == other.get_col_names() and own.output_types() == other.output_types()


def test_imagenet_class_names_are_in_the_order_of_labels():
    names = imagenet_class_names()
    assert len(names) == 1000 and names[0] == "tench, Tinca tinca" and names[999].startswith("toilet tissue")
