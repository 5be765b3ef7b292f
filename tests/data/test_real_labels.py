"""ReaL labels are matched by file name, and the accuracy is that of a loop over the images."""

import json

import numpy as np
import pytest

from mindcv.data import RealLabels, imagenet_wordnet_ids, read_real_labels
from mindcv.utils.errors import DataError, UserError

IDS = imagenet_wordnet_ids()


def name(number):
    return f"val/{IDS[number % 1000]}/ILSVRC2012_val_{number:08}.JPEG"


def test_real_labels_count_images_with_labels_by_file_name(rng):
    labels = [[] if number % 5 == 0 else sorted({number % 1000, (number * 7) % 1000}) for number in range(1, 50_001)]
    numbers = rng.permutation(50_000)[:400] + 1
    predicted = np.where(rng.random(400) < 0.6, numbers * 7 % 1000, rng.integers(0, 1000, 400))
    found = RealLabels(labels, [name(number) for number in numbers], IDS).count(predicted)
    with_labels = [(number, guess) for number, guess in zip(numbers, predicted) if number % 5]
    correct = sum(guess in (number % 1000, number * 7 % 1000) for number, guess in with_labels)
    assert found == (len(with_labels), correct) and 100 < correct < len(with_labels) < 400


def test_real_labels_are_those_of_imagenet_whatever_the_order_of_the_network(rng):
    classes = [IDS[7], IDS[3], "tench"]
    labels = [[7], [3], [0, 3]] + [[]] * 49_997
    real = RealLabels(labels, [name(1), name(2), name(3), name(4)], classes)
    assert real.count(np.array([0, 1, 2, 0])) == (3, 3)
    assert real.count(np.array([1, 0, 1, 0])) == (3, 1)


def test_real_labels_accept_classes_that_are_named_by_numbers():
    names = [str(label) for label in range(999)] + [IDS[999]]
    assert RealLabels([[12]] + [[]] * 49_999, [name(1)], names).count(np.array([12])) == (1, 1)


@pytest.mark.parametrize(
    ("image", "classes", "message"),
    [
        ("val/cat/1.jpg", IDS, "image 'val/cat/1.jpg' is not a validation image of ImageNet, which are named ILSVRC"),
        ("ILSVRC2012_val_00050001.JPEG", IDS, "image 'ILSVRC2012_val_00050001.JPEG' is not a validation image"),
        ("ILSVRC2012_val_00000000.JPEG", IDS, "is not a validation image"),
        (name(1), ["cat", "n01440764"], "classes of the network are not classes of ImageNet-1k: 'cat'"),
    ],
)
def test_real_labels_refuse_other_images_and_classes(image, classes, message):
    with pytest.raises(DataError, match=message):
        RealLabels([[]] * 50_000, [image], classes)


def test_read_real_labels_returns_the_entries_of_the_file(tmp_path):
    entries = [[1, 999], []] * 25_000
    (tmp_path / "real.json").write_text(json.dumps(entries))
    assert read_real_labels(tmp_path / "real.json") == entries


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[[1], [2]]", "holds a list of 2 entries, and a list with one entry for each of ImageNet's 50000 validation"),
        ('{"a": 1}', "holds no list, and a list with one entry"),
        ("n01440764 n01443537\n", "is not a JSON file: https://github.com/google-research/reassessed-imagenet has"),
        (json.dumps([[1]] * 49_999 + [7]), "entry 50000 is not a list of whole numbers from 0 to 999"),
        (json.dumps([[1000]] * 50_000), "entry 1 is not a list of whole numbers"),
        (json.dumps([["1"]] * 50_000), "entry 1 is not a list of whole numbers"),
        (json.dumps([[True]] * 50_000), "entry 1 is not a list of whole numbers"),
        (None, "cannot be read: No such file or directory"),
    ],
    ids=["short", "object", "text", "number", "1000", "string", "boolean", "missing"],
)
def test_read_real_labels_refuses_other_files_in_one_sentence(tmp_path, content, message):
    path = tmp_path / "real.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message) as raised:
        read_real_labels(path)
    assert "\n" not in str(raised.value) and str(path) in str(raised.value)
