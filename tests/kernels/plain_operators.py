"""Operators of the kernels by their definitions in NumPy and float64, for random calls.

The formulas take arrays, or `Sized` numbers, which also tell how large a rounding error may be.
"""

import math
from types import SimpleNamespace

import numpy as np
import plain_visible
from sized import Sized, gelu, gelu_slope, pad, sqrt


def inputs_for(rng, library, name, shapes, symbols, has_special=False):
    """Return random inputs, and the same inputs with weights that are not packed.

    The library also runs the forward pass of a gradient. With `has_special` one number is large or not finite.
    """
    arrays = [random(rng, shape) for shape in shapes]
    unpacked = {}
    suffix = "Bf16" if name.endswith("Bf16") else ""
    if name.startswith("AdamW"):
        for array in arrays[2 * symbols["n"] : 3 * symbols["n"]]:
            np.square(array, out=array)  # second moments
        arrays[-1][:] = 0.9, 0.99, 1e-3, 0.5
    elif name.startswith("Stage"):
        is_v2 = name.startswith("StageV2")
        for first in range(1, len(arrays), block_length(is_v2)):
            for place, (o, i) in ((4, (4, 1)), (8 if is_v2 else 6, (1, 4))):
                unpacked[first + place] = random(rng, (o * symbols["C"], i * symbols["C"]))
    elif name.startswith(("PatchPacked", "StemPacked")):
        unpacked[1] = random(rng, (symbols["O"], symbols["I"], symbols["k"], symbols["k"]))
    elif name == "NormGrad":
        np.abs(arrays[1], out=arrays[1])
    if name.startswith(("Visible", "SpreadVisible")):
        arrays[0 if name == "VisibleNormGrad" else 1][...] = random_mask(rng, symbols)
    if name == "VisibleNormGrad":
        np.abs(arrays[2], out=arrays[2])
    if name.startswith("VisibleBlock"):
        arrays[2][:] = rng.integers(2)
    if has_special:
        plant_special(rng, [unpacked.get(i, array) for i, array in enumerate(arrays)])
    for place, weight in unpacked.items():
        kind = "Weight" if name.startswith("Stage") else "Patch" if name.startswith("Patch") else "Stem"
        arrays[place] = packed(library, f"Pack{kind}{suffix}", weight, arrays[place])
    if name.startswith(("BlockV1Grad", "BlockV2Grad")):
        count = 2 + block_length(name.startswith("BlockV2"))
        saved = [np.empty(shape, np.float32) for shape in shapes[count + 1 :]]
        out = np.empty(shapes[0], np.float32)
        reason = library.call(name.replace("Grad", "Saving"), [*arrays[:count], out, *saved])
        assert reason is None, reason
        arrays[count + 1 :] = saved
    if name.startswith("VisibleBlockV2Grad"):
        count = 3 + block_length(True)
        saved = [np.empty(shape, np.float32) for shape in shapes[count + 1 :]]
        reason = library.call(
            name.replace("Grad", "Saving"), [*arrays[:count], np.empty(shapes[0], np.float32), *saved]
        )
        assert reason is None or has_special, reason
        arrays[count + 1 :] = saved
    return arrays, [unpacked.get(i, array).copy() for i, array in enumerate(arrays)]


def random_mask(rng, symbols):
    """Return a mask [N, S, T] that leaves at least one patch of each image visible."""
    mask = (rng.random((symbols["N"], symbols["S"] * symbols["T"])) < rng.random()).astype(np.float32)
    mask[np.arange(len(mask)), rng.integers(mask.shape[1], size=len(mask))] = 0
    return mask.reshape(symbols["N"], symbols["S"], symbols["T"])


def plant_special(rng, arrays):
    array = arrays[int(rng.integers(len(arrays)))]
    if array.size > 0:
        array.reshape(-1)[int(rng.integers(array.size))] = rng.choice([np.inf, -np.inf, np.nan, 3.4e38, 1e-40])


def block_length(is_v2):
    """Return the number of parameters of a block."""
    return 10 if is_v2 else 9


def random(rng, shape):
    scale = 1.0 if len(shape) < 2 else 1 / max(math.prod(shape[1:]), 1) ** 0.5 if len(shape) in (2, 4) else 1.0
    return np.asarray(rng.standard_normal(shape) * scale).astype(np.float32)


def packed(library, name, weight, like):
    out = np.empty(like.shape, np.float32)
    reason = library.call(name, [weight, out])
    assert reason is None, reason
    return out


def expected(name, inputs, symbols):
    """Return the outputs of an operator as `Sized` numbers, or None for an output that only the library can read.

    Packed weights are given unpacked. The packing itself has no formula: products with packed weights show whether it
    is right.
    """
    name = name.removesuffix("Bf16")
    if name.startswith(("Visible", "SpreadVisible")):
        return plain_visible.expected(name, inputs)
    inputs = [Sized(array) for array in inputs]
    is_v2, is_stem = name[:7] in ("BlockV2", "StageV2"), name.startswith("Stem")
    if name.startswith("Pack"):
        return [None]
    if name in ("BlockV1", "BlockV2"):
        return [block(inputs, is_v2)]
    if name in ("BlockV1Saving", "BlockV2Saving"):
        steps = block_steps(inputs, is_v2)
        norms = [steps.norms.reshape(steps.norms.shape[0], -1)] if is_v2 else []
        return [steps.out, steps.xhat, steps.factor.reshape(-1), None, *norms]  # z lies in tiles
    if name in ("BlockV1Grad", "BlockV2Grad"):
        count = 2 + block_length(is_v2)
        return block_grad(inputs[:count], inputs[count], is_v2)
    if name in ("StageV1Packed", "StageV2Packed"):
        return [stage(inputs, is_v2)]
    if name == "PatchPacked":
        x, weight, bias, gamma, beta = inputs
        return [patch(norm(x, gamma, beta)[0], weight, bias, is_stem)]
    if name == "StemPacked":
        x, weight, bias, gamma, beta = inputs
        return [norm(patch(x, weight, bias, is_stem), gamma, beta)[0]]
    if name in ("Patch", "Stem"):
        return [patch(*inputs, is_stem)]
    if name in ("PatchInputGrad", "StemInputGrad"):
        return [patch_input_grad(*inputs, is_stem)]
    if name in ("PatchParamsGrad", "StemParamsGrad"):
        return patch_params_grad(*inputs, is_stem)
    if name == "Norm":
        return norm(*inputs)
    if name == "NormGrad":
        return norm_grad(*inputs)
    assert name == "AdamW", name
    return adamw(inputs, symbols["n"])


def block(inputs, is_v2):
    return block_steps(inputs, is_v2).out


def block_steps(inputs, is_v2, visible=None, axes=(1, 2)):
    """Compute the steps of a block from x, parameters and keep. Each step has its name in csrc/network/block.h.

    In FCMAE `visible` [N, H, W, 1] is 0 for removed cells, of which x is 0. `axes` are those of GRN's norms.
    """
    x, dw, dw_bias, gamma, beta, w1, b1, *rest = inputs
    n, h, w, c = x.shape
    padded = pad(x, ((0, 0), (3, 3), (3, 3), (0, 0)))
    u = dw_bias + sum(padded[:, i : i + h, j : j + w] * dw[:, 0, i, j] for i in range(7) for j in range(7))
    y, xhat, factor = norm(u, gamma, beta)
    z = (y.reshape(-1, c) @ w1.T + b1).reshape(n, h, w, 4 * c)
    g = q = gelu(z) if visible is None else gelu(z) * visible
    norms = response = None
    if is_v2:
        grn_gamma, grn_beta, *rest = rest
        norms = sqrt((g * g).sum(axes, keepdims=True))
        response = norms / (norms.mean(-1, keepdims=True) + 1e-6)
        q = grn_gamma * (g * response) + grn_beta + g
    r = (q.reshape(-1, 4 * c) @ rest[0].T + rest[1]).reshape(n, h, w, c)
    out = x + (r if is_v2 else r * rest[2]) * rest[-1].reshape(-1, 1, 1, 1)
    return SimpleNamespace(
        padded=padded, y=y, xhat=xhat, factor=factor, z=z, g=g, norms=norms, response=response, q=q, r=r, out=out
    )


def block_grad(inputs, dout, is_v2, visible=None, axes=(1, 2)):
    """Compute the gradients of sum(block * dout) for x and the parameters, in the order of the inputs.

    In FCMAE dout is 0 for removed cells, and dx has no meaning there.
    """
    x, dw, _, gamma, _, w1, _, *rest, keep = inputs
    steps, pixels = block_steps(inputs, is_v2, visible, axes), (0, 1, 2)
    n, h, w, c = x.shape
    de = dout * keep.reshape(-1, 1, 1, 1)
    dr = de if is_v2 else de * rest[2]
    dq = (dr.reshape(-1, c) @ rest[2 if is_v2 else 0]).reshape(n, h, w, 4 * c)
    dw2 = dr.reshape(-1, c).T @ steps.q.reshape(-1, 4 * c)
    dg = dq
    if is_v2:
        mean = steps.norms.mean(-1, keepdims=True) + 1e-6
        dresponse = (dq * steps.g * rest[0]).sum(axes, keepdims=True)
        dnorms = dresponse / mean - (dresponse * steps.norms).mean(-1, keepdims=True) / (mean * mean)
        dg = dq * (rest[0] * steps.response + 1) + steps.g * (dnorms / steps.norms)
        shape = (1, 1, 1, 4 * c)
        dgrn = [(dq * steps.g * steps.response).sum(pixels).reshape(*shape), dq.sum(pixels).reshape(*shape)]
        after_w1 = [*dgrn, dw2, dr.sum(pixels)]
    else:
        after_w1 = [dw2, dr.sum(pixels), (de * steps.r).sum(pixels)]
    dz = (dg * gelu_slope(steps.z)).reshape(-1, 4 * c)
    dy = (dz @ w1).reshape(n, h, w, c)
    du, dgamma, dbeta = norm_grad(steps.xhat, steps.factor, gamma, dy)
    taps = [(i, j) for i in range(7) for j in range(7)]
    ddw = [(du * steps.padded[:, i : i + h, j : j + w]).sum(pixels) for i, j in taps]
    ddw = Sized(np.stack([tap.value for tap in ddw], 1), np.stack([tap.size for tap in ddw], 1))
    spread = pad(du, ((0, 0), (3, 3), (3, 3), (0, 0)))
    dx = dout + sum(spread[:, 6 - i : 6 - i + h, 6 - j : 6 - j + w] * dw[:, 0, i, j] for i, j in taps)
    dconv = [ddw.reshape(c, 1, 7, 7), du.sum(pixels)]
    return [dx, *dconv, dgamma, dbeta, dz.T @ steps.y.reshape(-1, c), dz.sum(0), *after_w1]


def stage(inputs, is_v2):
    x, *weights = inputs
    count, keep = block_length(is_v2), Sized(np.ones(x.shape[0]))
    for first in range(0, len(weights), count):
        x = block([x, *weights[first : first + count], keep], is_v2)
    return x


def patches(x, k, is_stem):
    """Return the patches of a map as rows: [N * (H / k) * (W / k), I * k * k]."""
    x = x if is_stem else x.transpose(0, 3, 1, 2)
    n, c, h, w = x.shape
    rows, cols = h // k, w // k
    x = x[:, :, : rows * k, : cols * k].reshape(n, c, rows, k, cols, k).transpose(0, 2, 4, 1, 3, 5)
    return x.reshape(n * rows * cols, c * k * k)


def patch(x, weight, bias, is_stem):
    o, _, k, _ = weight.shape
    n, h, w = x.shape[0], *(x.shape[2:] if is_stem else x.shape[1:3])
    return (patches(x, k, is_stem) @ weight.reshape(o, -1).T + bias).reshape(n, h // k, w // k, o)


def patch_input_grad(x, weight, dout, is_stem):
    o, c, k, _ = weight.shape
    n, rows, cols, _ = dout.shape
    h, w = x.shape[2:] if is_stem else x.shape[1:3]
    spread = (dout.reshape(-1, o) @ weight.reshape(o, -1)).reshape(n, rows, cols, c, k, k)
    dx = spread.transpose(0, 3, 1, 4, 2, 5).reshape(n, c, rows * k, cols * k)
    dx = pad(dx, ((0, 0), (0, 0), (0, h - rows * k), (0, w - cols * k)))
    return dx if is_stem else dx.transpose(0, 2, 3, 1)


def patch_params_grad(x, weight, dout, is_stem):
    o, _, k, _ = weight.shape
    dout = dout.reshape(-1, o)
    return [(dout.T @ patches(x, k, is_stem)).reshape(*weight.shape), dout.sum(0)]


def norm(x, gamma, beta):
    centred = x - x.mean(-1, keepdims=True)
    factor = 1 / sqrt((centred * centred).mean(-1, keepdims=True) + 1e-6)
    xhat = centred * factor
    return [xhat * gamma + beta, xhat, factor[..., 0]]


def norm_grad(xhat, factor, gamma, dout):
    dy = dout * gamma
    axes = tuple(range(len(xhat.shape) - 1))
    of_deviation = (dy * xhat).mean(-1, keepdims=True)
    dx = (dy - dy.mean(-1, keepdims=True) - xhat * of_deviation) * factor[..., None]
    return [dx, (dout * xhat).sum(axes), dout.sum(axes)]


def adamw(inputs, n):
    weights, moments1, moments2, gradients = (inputs[i * n : (i + 1) * n] for i in range(4))
    rates, decays, (beta1, beta2, eps, correction) = inputs[4 * n :]
    new1 = [beta1 * m + (1 - beta1) * g for m, g in zip(moments1, gradients)]
    new2 = [beta2 * v + (1 - beta2) * g * g for v, g in zip(moments2, gradients)]
    new = [w - rates[i] * (correction * new1[i] / (sqrt(new2[i]) + eps) + decays[i] * w) for i, w in enumerate(weights)]
    return [*new, *new1, *new2]
