"""The operators of FCMAE by their definitions: those of the dense operators, with 0 for removed cells.

A compact map [N * S * T, P, P, C] holds the visible patches one after the other.
"""

import numpy as np
import plain_operators as plain
from sized import Sized


def expected(name, inputs):
    """Return the outputs of an operator as `Sized` numbers; of a compact map, the visible patches only."""
    if name.startswith("VisibleBlockV2"):
        return block(name, inputs)
    if name == "VisibleNorm":
        x, mask, gamma, beta = inputs
        out, xhat, factor = plain.norm(visible_part(x, mask), Sized(gamma), Sized(beta))
        return [out, xhat, factor.reshape(-1)]
    if name == "VisibleNormGrad":
        mask, xhat, factor, gamma, dout = inputs
        factor = visible_part(factor.reshape(xhat.shape[:3]), mask)
        return plain.norm_grad(visible_part(xhat, mask), factor, Sized(gamma), visible_part(dout, mask))
    if name == "SpreadVisible":
        return [Sized(spread(*inputs))]
    if name == "SpreadVisibleGrad":
        x, mask, dout = inputs
        return [Sized(gather(dout, mask, x.shape[1]))]
    return patch(name, inputs)


def patch(name, inputs):
    x, mask, *rest = inputs
    is_stem = name.startswith("VisibleStem")
    x = Sized(image_patches(x, mask)) if is_stem else visible_part(x, mask)
    if name in ("VisiblePatch", "VisibleStem"):
        return [plain.patch(x, *map(Sized, rest), is_stem)]
    weight, dout = Sized(rest[0]), visible_part(rest[1], mask)
    if name.endswith("ParamsGrad"):
        return plain.patch_params_grad(x, weight, dout, is_stem)
    dx = plain.patch_input_grad(x, weight, dout, is_stem)
    if not is_stem:
        return [dx]
    return [Sized(image_of(dx.value, inputs[0].shape, mask), image_of(dx.size, inputs[0].shape, mask))]


def block(name, inputs):
    x, mask, scope, *rest = inputs
    weights, side = [Sized(weight) for weight in rest[:10]], x.shape[1]
    axes = (0, 1, 2) if scope[0] else (1, 2)
    visible = Sized(spread(np.ones((*x.shape[:3], 1)), mask))
    dense = [Sized(spread(x, mask)), *weights, Sized(np.ones(len(mask)))]

    def compact(values):
        return Sized(gather(values.value, mask, side), gather(values.size, mask, side))

    if name == "VisibleBlockV2Grad":
        dx, *grads = plain.block_grad(dense, Sized(spread(rest[10], mask)), True, visible, axes)
        return [compact(dx), *grads]
    steps = plain.block_steps(dense, True, visible, axes)
    if name == "VisibleBlockV2":
        return [compact(steps.out)]
    norms = steps.norms.reshape(steps.norms.shape[0], -1)
    factor = compact(steps.factor[..., None]).reshape(-1)
    return [compact(steps.out), compact(steps.xhat), factor, None, norms]


def visible_part(compact, mask):
    """Return the visible patches of a compact map."""
    return Sized(compact[: int((mask == 0).sum())])


def spread(compact, mask):
    """Return the map [N, S * P, T * P, C] with 0 for removed cells."""
    (n, s, t), (side, channels) = mask.shape, compact.shape[2:]
    patches = np.zeros((n, s, t, side, side, channels))
    patches[mask == 0] = compact[: int((mask == 0).sum())]
    return patches.transpose(0, 1, 3, 2, 4, 5).reshape(n, s * side, t * side, channels)


def gather(dense, mask, side):
    """Return the visible patches [V, P, P, C] of a map."""
    n, s, t = mask.shape
    return dense.reshape(n, s, side, t, side, -1).transpose(0, 1, 3, 2, 4, 5)[mask == 0]


def image_patches(images, mask):
    """Return the visible patches [V, I, H / S, W / T] of images; rows and columns that fill no patch are left out."""
    (_, s, t), (h, w) = mask.shape, images.shape[2:]
    cut = [
        images[i, :, a * (h // s) : (a + 1) * (h // s), b * (w // t) : (b + 1) * (w // t)]
        for i, a, b in zip(*np.nonzero(mask == 0))
    ]
    return np.stack(cut)


def image_of(patches, shape, mask):
    """Return images of `shape` that hold the visible patches, and 0 elsewhere."""
    images, (_, _, h, w) = np.zeros(shape), patches.shape
    for patch_values, i, a, b in zip(patches, *np.nonzero(mask == 0)):
        images[i, :, a * h : (a + 1) * h, b * w : (b + 1) * w] = patch_values
    return images
