"""The names of the 1000 classes of ImageNet-1k."""

from __future__ import annotations

from importlib.resources import files

__all__ = ["imagenet_class_names"]


def imagenet_class_names() -> list[str]:
    """The 1000 names in the order of the labels, as in 'tench, Tinca tinca'.

    The table's columns are label, WordNet id and name; the labels number the WordNet ids in sorted order, which is
    also the order that an image folder named by them gets.
    """
    table = files("mindcv.data").joinpath("imagenet1k_classes.tsv").read_text(encoding="utf-8")
    return [line.split("\t")[2] for line in table.splitlines()]
