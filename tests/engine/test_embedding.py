"""The embedding is compared with principal component analysis by the singular value decomposition of NumPy."""

import csv

import numpy as np
import pytest

from mindcv.engine import features as features_module
from mindcv.engine.embedding import embed, write_embeddings
from mindcv.engine.features import FeatureRows


def stored(rows):
    kept = FeatureRows(rows.shape[1])
    kept.append(rows)
    return kept


@pytest.mark.parametrize(("num_rows", "num_features"), [(200, 7), (5, 30)])
def test_embed_gives_the_first_two_principal_components(rng, monkeypatch, num_rows, num_features):
    monkeypatch.setattr(features_module, "_BLOCK_BYTES", 400)  # several blocks
    rows = (rng.standard_normal((num_rows, num_features)) * np.arange(1, num_features + 1) + 50).astype(np.float32)
    found = embed(stored(rows), "a")
    centred = rows.astype(np.float64) - rows.astype(np.float64).mean(0)
    _, scales, directions = np.linalg.svd(centred, full_matrices=False)
    for component in (0, 1):
        direction = directions[component]
        direction = direction * np.sign(direction[np.abs(direction).argmax()])
        np.testing.assert_allclose(found.points[:, component], centred @ direction, atol=1e-6)
    np.testing.assert_allclose(found.shares, scales[:2] ** 2 / (scales**2).sum(), rtol=1e-9)


def test_embed_has_signs_that_do_not_depend_on_the_order_of_the_images(rng):
    rows = (rng.standard_normal((40, 6)) * np.arange(1, 7)).astype(np.float32)
    order = rng.permutation(40)
    np.testing.assert_allclose(
        embed(stored(rows[order]), "a").points, embed(stored(rows), "a").points[order], atol=1e-9
    )


@pytest.mark.parametrize("num_rows", [1, 3])
def test_embed_accepts_equal_features(num_rows):
    found = embed(stored(np.full((num_rows, 4), 0.1, np.float32)), "a")
    assert np.abs(found.points).max() < 1e-9 and found.shares == (0.0, 0.0)


def test_write_embeddings_writes_a_row_for_each_image(rng, tmp_path):
    found = embed(stored(rng.standard_normal((3, 4)).astype(np.float32)), "a.ckpt")
    write_embeddings([found], ["x/1.png", "y/2.png", "3.png"], [0, 1, -1], ["x", "y"], tmp_path / "e.csv")
    with open(tmp_path / "e.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["weights"], row["image"], row["class"]) for row in rows] == [
        *(("a.ckpt", "x/1.png", "x"), ("a.ckpt", "y/2.png", "y"), ("a.ckpt", "3.png", "")),
    ]
    np.testing.assert_allclose(
        [[float(row[f"component_{i}"]) for i in (1, 2)] for row in rows], found.points, rtol=1e-5
    )
