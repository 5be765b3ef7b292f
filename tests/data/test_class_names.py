"""Tests of class names: those of ImageNet and those in users' files."""

from __future__ import annotations

import pytest

from mindcv.data import (
    imagenet_class_names,
    imagenet_wordnet_ids,
    match_classes,
    read_class_names,
    read_names_for_model,
)
from mindcv.utils.errors import DataError, UserError

IMAGENET = {wordnet_id: label for label, wordnet_id in enumerate(imagenet_wordnet_ids())}
NAMES = {"tench": 0, "great white shark": 2, "Siberian husky": 250, "toilet tissue": 999}  # as published


def test_imagenet_tables_agree():
    assert len(IMAGENET) == 1000 and imagenet_wordnet_ids() == sorted(IMAGENET)
    for name, label in NAMES.items():
        assert imagenet_class_names()[label].split(", ")[0] == name


@pytest.mark.parametrize(
    "write", [str, str.upper, lambda name: name.replace(" ", "_"), lambda name: name.replace(" ", "-")]
)
def test_match_classes_finds_imagenet_classes_by_name(write):
    assert match_classes([write(name) for name in NAMES], IMAGENET) == {write(n): i for n, i in NAMES.items()}


def test_match_classes_works_in_both_directions_and_prefers_exact_names():
    few = {"golden retriever": 1, "tench, Tinca tinca": 0, "own class": 2}
    assert match_classes(["n02099601", "Tinca tinca"], few) == {"n02099601": 1, "Tinca tinca": 0}
    assert match_classes(["own class", "Own class", "n01443537"], few) == {"own class": 2}
    assert match_classes(["crane"], {"crane": 5, **IMAGENET}) == {"crane": 5}


def test_match_classes_accepts_both_encodings_of_an_accent():
    composed, decomposed = "K\u00e4tzchen", "Ka\u0308tzchen"
    assert match_classes([decomposed], {"dog": 0, composed: 1}) == {decomposed: 1}
    assert match_classes([composed], {"dog": 0, decomposed: 1}) == {composed: 1}
    assert match_classes([composed, decomposed], {composed: 0, decomposed: 1}) == {composed: 0, decomposed: 1}


def test_match_classes_refuses_ambiguous_names():
    with pytest.raises(DataError, match="'crane' can mean n02012849 or n03126707: rename"):
        match_classes(["crane"], IMAGENET)
    with pytest.raises(DataError, match="'n01440764', 'tench' mean the same class"):
        match_classes(["tench", "n01440764"], IMAGENET)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n \n"])
def test_read_class_names_accepts_byte_order_marks_and_empty_lines_at_the_end(tmp_path, encoding, end):
    path = tmp_path / "names.txt"
    path.write_bytes(("Kätzchen\r\n$5_$bill\n猫\u2028x" + end).encode(encoding))
    assert read_class_names(path) == ["Kätzchen", "$5_$bill", "猫\u2028x"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("cat\n狗\n".encode("gbk"), "is not text in UTF-8: line 2 has the byte 0xb9; convert it, .*iconv -f GBK"),
        ("Kätzchen\n".encode("latin-1"), "is not text in UTF-8: line 1 has the byte 0xe4; .*iconv -f LATIN1"),
        (b"cat\n\ndog\n", "line 2 is empty"),
        (b"", "line 1 is empty"),
        (
            "cat\ndog\n".encode("utf-16-le"),
            "is not text in UTF-8: it holds zero bytes, as UTF-16 without a .*iconv -f UTF-16",
        ),
        ("cat\ndog\n".encode("utf-16")[:-1], "begins with the byte order mark of UTF-16, but it is cut or damaged"),
        (b"cat\ndog\ncat\n", r"repeats the name\(s\) 'cat'; give each class a name of its own"),
    ],
)
def test_read_class_names_names_the_fault(tmp_path, content, message):
    (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(UserError, match=f"class_names_file '.*names.txt'.* {message}"):
        read_class_names(tmp_path / "names.txt")


def test_read_class_names_names_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="class_names_file '.*no.txt': No such file"):
        read_class_names(tmp_path / "no.txt")


def test_read_names_for_model_refuses_the_checkpoints_names_in_another_order(tmp_path):
    path, own = tmp_path / "names.txt", {"ant": 0, "K\u00e4fer": 2, "bee": 1}
    for names in (["ant", "bee", "Ka\u0308fer"], ["ant", "wasp", "bee"], ["Ameise", "Biene", "K\u00e4fer"]):
        path.write_text("\n".join(names), encoding="utf-8")
        assert read_names_for_model(path, own, 3) == read_names_for_model(path, {}, None) == names
    path.write_text("ant\nKa\u0308fer\nbee\n", encoding="utf-8")
    assert read_names_for_model(path, {}, 3)[0] == "ant"
    with pytest.raises(UserError, match="in another order: line 2 is 'K.fer', but class 1 .* is 'bee'; leave .* out"):
        read_names_for_model(path, own, 3)
    path.write_text("Ant\nBee\nK\u00e4fer\n", encoding="utf-8")
    assert read_names_for_model(path, own, 3) == ["Ant", "Bee", "K\u00e4fer"]
    path.write_text("Bee\nAnt\nK\u00e4fer\n", encoding="utf-8")
    with pytest.raises(UserError, match="in another order: line 1 is 'Bee', but class 0 .* is 'ant'"):
        read_names_for_model(path, own, 3)
    with pytest.raises(UserError, match="has 3 class names for the model's 4 classes"):
        read_names_for_model(path, own, 4)
