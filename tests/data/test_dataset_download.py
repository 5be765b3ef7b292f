"""Tests of downloading data sets, from a test server, and of the folders where they are looked for."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import struct
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from mindcv.data import cifar, create_dataset, get_dataset_download_root, mnist
from mindcv.utils.errors import DataError, UserError

RNG = np.random.default_rng(0)
MNIST = {
    "train-images-idx3-ubyte": RNG.integers(0, 256, (6, 28, 28), np.uint8),
    "train-labels-idx1-ubyte": np.arange(6, dtype=np.uint8),
    "t10k-images-idx3-ubyte": RNG.integers(0, 256, (3, 28, 28), np.uint8),
    "t10k-labels-idx1-ubyte": np.arange(3, dtype=np.uint8),
}
TEN_CLASSES = [f"class{i}" for i in range(10)]
HUNDRED_CLASSES = [f"class{i}" for i in range(100)]


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def records(count, num_label_bytes, seed):
    rows = np.random.default_rng(seed).integers(0, 10, (count, num_label_bytes + 3072), np.uint8)
    return rows.tobytes()


CIFAR = {
    "cifar10": (
        "cifar-10-binary.tar.gz",
        {f"cifar-10-batches-bin/data_batch_{i}.bin": records(2, 1, i) for i in range(1, 6)}
        | {"cifar-10-batches-bin/test_batch.bin": records(3, 1, 9)}
        | {"cifar-10-batches-bin/batches.meta.txt": "\n".join(TEN_CLASSES).encode()},
    ),
    "cifar100": (
        "cifar-100-binary.tar.gz",
        {"cifar-100-binary/train.bin": records(5, 2, 1), "cifar-100-binary/test.bin": records(3, 2, 2)}
        | {"cifar-100-binary/fine_label_names.txt": "\n".join(HUNDRED_CLASSES).encode()},
    ),
}


def tar_gz(files):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return content.getvalue()


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        if format.startswith('"%s" %s'):
            self.server.seen.append(self.path[1:])


@pytest.fixture
def seen(tmp_path, monkeypatch):
    """Return the names of the requested files. Addresses and md5 sums are replaced by those of small test files."""
    published = tmp_path / "published"
    published.mkdir()
    for name, array in MNIST.items():
        (published / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        monkeypatch.setitem(mnist._MD5, name, hashlib.md5((published / f"{name}.gz").read_bytes()).hexdigest())
    for name, (archive, files) in CIFAR.items():
        (published / archive).write_bytes(tar_gz(files))
        md5 = hashlib.md5((published / archive).read_bytes()).hexdigest()
        monkeypatch.setitem(cifar._ARCHIVES, name, (archive, md5))
    monkeypatch.setenv("MINDCV_HOME", str(tmp_path / "home"))
    for variable in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(variable)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=published)) as server:
        server.seen = []
        for module in (mnist, cifar):
            monkeypatch.setattr(module, "_URL", f"http://127.0.0.1:{server.server_address[1]}/")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.seen
        server.shutdown()
        thread.join()


def test_downloads_have_the_published_addresses_and_sums():
    """The sums and addresses are written here a second time, because only users would notice a mistake in them."""
    assert {**mnist._MD5} == {
        "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
    }
    assert [md5 for _, md5 in cifar._ARCHIVES.values()] == [
        "c32a1d4ab5d03f1284b67883e8d87530",
        "03b5dce01913d631647c71ecec9e9cb8",
    ]
    assert all(url.startswith("https://") and url.endswith("/") for url in (mnist._URL, cifar._URL))


def test_get_dataset_download_root_follows_the_environment(seen, tmp_path):
    assert get_dataset_download_root() == str(tmp_path / "home" / "datasets")


def test_create_dataset_downloads_mnist(seen, tmp_path):
    train = create_dataset("MNIST", download=True)
    assert sorted(seen) == sorted(f"{name}.gz" for name in MNIST)
    np.testing.assert_array_equal([train.read(i)[0] for i in range(6)], MNIST["train-images-idx3-ubyte"])
    assert len(create_dataset("mnist", split="test")) == 3  # the default folder has it now
    assert len(create_dataset("mnist", tmp_path / "home" / "datasets" / "mnist", "test", download=True)) == 3
    assert len(seen) == 4


def test_create_dataset_downloads_only_missing_files_of_mnist(seen, tmp_path):
    root = tmp_path / "mine"
    create_dataset("mnist", root, download=True)
    (root / "t10k-images-idx3-ubyte.gz").unlink()
    (root / "train-images-idx3-ubyte").write_bytes(idx(MNIST["train-images-idx3-ubyte"]))
    (root / "train-images-idx3-ubyte.gz").unlink()
    seen.clear()
    create_dataset("mnist", root, "val", download=True)
    assert seen == ["t10k-images-idx3-ubyte.gz"]


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_create_dataset_downloads_cifar(seen, tmp_path, name):
    archive, files = CIFAR[name]
    train = create_dataset(name, download=True)
    assert seen == [archive] and train.class_names == (TEN_CLASSES if name == "cifar10" else HUNDRED_CLASSES)
    first = next(iter(files.values()))[1 if name == "cifar10" else 2 :][:3072]
    np.testing.assert_array_equal(train.read(0)[0].transpose(2, 0, 1).ravel(), np.frombuffer(first, np.uint8))
    home = tmp_path / "home" / "datasets" / name
    assert os.listdir(home) == [next(iter(files)).split("/")[0]]
    assert len(create_dataset(name, split="test")) == len(create_dataset(name, home, "val", download=True)) == 3
    assert len(seen) == 1


def test_create_dataset_downloads_cifar_when_the_other_format_is_incomplete(seen, tmp_path):
    python = tmp_path / "cifar-10-batches-py"
    python.mkdir()
    (python / "data_batch_1").write_bytes(b"")
    assert len(create_dataset("cifar10", tmp_path, download=True)) == 10 and len(seen) == 1


def test_create_dataset_downloads_once_for_several_processes(seen, tmp_path):
    sizes = []
    threads = [
        threading.Thread(target=lambda: sizes.append(len(create_dataset("cifar10", tmp_path / "x", download=True))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sizes == [10] * 4 and seen == ["cifar-10-binary.tar.gz"]
    assert os.listdir(tmp_path / "x") == ["cifar-10-batches-bin"]


def test_create_dataset_refuses_a_damaged_download(seen, tmp_path, monkeypatch):
    monkeypatch.setitem(cifar._ARCHIVES, "cifar10", ("cifar-10-binary.tar.gz", "0" * 32))
    with pytest.raises(UserError, match="its md5 is .*, but it must be 0000"):
        create_dataset("cifar10", tmp_path / "x", download=True)
    assert os.listdir(tmp_path / "x") == []


@pytest.mark.parametrize("name", ["imagenet", "folder", "", "digits", "fashion_mnist"])
@pytest.mark.parametrize("root", [None, "there"])
def test_create_dataset_refuses_to_download_other_data_sets(seen, name, root):
    advice = {"digits": "install scikit-learn", "fashion_mnist": "install Debian's package dataset-fashion-mnist, or"}
    advice = advice.get(name, "put the images into root/<split>/<class>/")
    with pytest.raises(UserError, match=f"'{name or 'folder'}' cannot be downloaded, only mnist.* can: {advice}"):
        create_dataset(name, root, download=True)


def test_create_dataset_downloads_nothing_without_download(seen, tmp_path):
    with pytest.raises(
        UserError, match=r"'mnist' needs root \(data_dir\).*, or download .*; its default folder '.*mnist' does not"
    ):
        create_dataset("mnist")
    with pytest.raises(DataError, match="lacks"):
        create_dataset("mnist", tmp_path)
    with pytest.raises(UserError, match=r"'folder' needs root \(data_dir\), the folder of its files$"):
        create_dataset("folder")
    assert seen == []


def test_create_dataset_finds_imagenet_in_the_default_folder(seen, tmp_path):
    with pytest.raises(UserError, match="its default folder '.*imagenet' does not exist"):
        create_dataset("ImageNet")
    folder = tmp_path / "home" / "datasets" / "imagenet" / "train" / "cat"
    folder.mkdir(parents=True)
    (folder / "1.jpg").write_bytes(b"")
    assert create_dataset("ImageNet").class_names == ["cat"]
