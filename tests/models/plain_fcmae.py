"""FCMAE by its definition in NumPy and float64: visible cells are a list, and neighbours are looked up in it."""

import math

import numpy as np

_erf = np.vectorize(math.erf)


def loss_of(weights, images, mask, patch, is_over_batch, normalises):
    """Return the loss of an FCMAE.

    Args:
        weights: parameter name of `mindcv.models.FCMAE` -> float64 array.
        images: [N, C, H, W].
        mask: [N, L], 1 for a removed patch.
        patch: height and width of a patch.
        is_over_batch: whether GRN takes norms over the batch.
        normalises: whether the target patches are normalised.
    """
    n, channels, height, width = images.shape
    stem = weights["encoder.feature.0.0.weight"].shape[-1]
    side = patch // stem  # cells along the side of a patch
    grid = mask.reshape(n, height // patch, width // patch)
    cells = [
        (i, r, c)
        for i in range(n)
        for r in range(height // stem)
        for c in range(width // stem)
        if grid[i, r // side, c // side] == 0
    ]
    rows = np.stack([images[i, :, r * stem : (r + 1) * stem, c * stem : (c + 1) * stem].ravel() for i, r, c in cells])
    x = affine(rows, weights, "encoder.feature.0.0")
    x = norm(x, weights, "encoder.feature.0.1")
    for stage in range(4):
        if stage > 0:
            x = norm(x, weights, f"encoder.feature.{2 * stage}.0")
            x, cells = downsample(x, cells, weights, f"encoder.feature.{2 * stage}.1")
        block = 0
        while f"encoder.feature.{2 * stage + 1}.{block}.norm.gamma" in weights:
            name = f"encoder.feature.{2 * stage + 1}.{block}"
            x = x + branch(x, cells, weights, name, is_over_batch)
            block += 1
    return decoded_loss(x, cells, weights, images, mask, patch, normalises)


def decoded_loss(x, cells, weights, images, mask, patch, normalises):
    n, channels, height, width = images.shape
    rows, columns = height // patch, width // patch
    token = weights["mask_token"].reshape(-1)
    dense = np.broadcast_to(token, (n, rows, columns, token.size)).copy()
    for (i, r, c), values in zip(cells, affine(x, weights, "proj")):
        dense[i, r, c] = values
    every = [(i, r, c) for i in range(n) for r in range(rows) for c in range(columns)]
    x, block = dense.reshape(-1, token.size), 0
    while f"decoder.{block}.norm.gamma" in weights:
        x = x + branch(x, every, weights, f"decoder.{block}", False)
        block += 1
    predicted = affine(x, weights, "pred").reshape(n, rows * columns, -1)
    target = images.reshape(n, channels, rows, patch, columns, patch).transpose(0, 2, 4, 3, 5, 1)
    target = target.reshape(n, rows * columns, -1)
    if normalises:
        deviation = np.sqrt(target.var(-1, ddof=1, keepdims=True) + 1e-6)
        target = (target - target.mean(-1, keepdims=True)) / deviation
    return (((predicted - target) ** 2).mean(-1) * mask).sum() / mask.sum()


def branch(x, cells, weights, name, is_over_batch):
    """Return what a block adds to x, a row for each cell."""
    place = {cell: row for row, cell in enumerate(cells)}
    taps = [(i, j) for i in range(7) for j in range(7)]
    near = np.array([[place.get((n, r + i - 3, c + j - 3), len(cells)) for i, j in taps] for n, r, c in cells])
    kernel = weights[f"{name}.dwconv.weight"].reshape(x.shape[1], -1)
    y = np.einsum("ktc,ct->kc", np.vstack([x, np.zeros(x.shape[1])])[near], kernel) + weights[f"{name}.dwconv.bias"]
    y = affine(norm(y, weights, f"{name}.norm"), weights, f"{name}.pwconv1")
    y = y * (1 + _erf(y / math.sqrt(2))) / 2
    if f"{name}.grn.gamma" in weights:
        images = np.array([0 if is_over_batch else n for n, _, _ in cells])
        norms = np.stack([np.sqrt((y[images == n] ** 2).sum(0)) for n in range(images.max() + 1)])
        response = (norms / (norms.mean(1, keepdims=True) + 1e-6))[images]
        y = weights[f"{name}.grn.gamma"].ravel() * y * response + weights[f"{name}.grn.beta"].ravel() + y
    y = affine(y, weights, f"{name}.pwconv2")
    return y * weights.get(f"{name}.gamma_", 1.0)


def downsample(x, cells, weights, name):
    place = {cell: row for row, cell in enumerate(cells)}
    coarse = [(n, r // 2, c // 2) for n, r, c in cells if r % 2 == c % 2 == 0]
    rows = [[x[place[n, 2 * r + i, 2 * c + j]] for i in (0, 1) for j in (0, 1)] for n, r, c in coarse]
    weight = weights[f"{name}.weight"].transpose(0, 2, 3, 1).reshape(len(weights[f"{name}.bias"]), -1)
    return np.array(rows).reshape(len(coarse), -1) @ weight.T + weights[f"{name}.bias"], coarse


def affine(x, weights, name):
    weight = weights[f"{name}.weight"]
    return x @ weight.reshape(len(weight), -1).T + weights[f"{name}.bias"]


def norm(x, weights, name):
    centred = x - x.mean(1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-6)
    return scaled * weights[f"{name}.gamma"] + weights[f"{name}.beta"]
