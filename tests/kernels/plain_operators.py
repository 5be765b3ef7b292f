"""The kernels' operators by their definitions, in NumPy and float64, for random calls."""

import math

import numpy as np

ERF = np.vectorize(math.erf, otypes=[float])


def inputs_for(rng, library, name, shapes, symbols):
    """Random inputs. The library packs the packed weights, and runs the forward pass of a gradient."""
    arrays = [random(rng, shape) for shape in shapes]
    suffix = "Bf16" if name.endswith("Bf16") else ""
    if name.startswith("AdamW"):
        for array in arrays[2 * symbols["n"] : 3 * symbols["n"]]:
            np.square(array, out=array)  # second moments
        arrays[-1][:] = 0.9, 0.99, 1e-3, 0.5
    elif name.startswith("Stage"):
        is_v2 = name.startswith("StageV2")
        count = 10 if is_v2 else 9
        for first in range(1, len(arrays), count):
            for place, (o, i) in ((4, (4, 1)), (8 if is_v2 else 6, (1, 4))):
                weight = random(rng, (o * symbols["C"], i * symbols["C"]))
                arrays[first + place] = packed(library, f"PackWeight{suffix}", weight, arrays[first + place])
    elif name.startswith(("PatchPacked", "StemPacked")):
        weight = random(rng, (symbols["O"], symbols["I"], symbols["k"], symbols["k"]))
        arrays[1] = packed(library, f"Pack{name[:5].removesuffix('P')}{suffix}", weight, arrays[1])
    elif name.startswith(("BlockV1Grad", "BlockV2Grad")):
        count = 12 if name.startswith("BlockV2") else 11
        saved = [np.empty(shape, np.float32) for shape in shapes[count + 1 :]]
        out = np.empty(shapes[0], np.float32)
        reason = library.call(name.replace("Grad", "Saving"), [*arrays[:count], out, *saved])
        assert reason is None, reason
        arrays[count + 1 :] = saved
    elif name == "NormGrad":
        np.abs(arrays[1], out=arrays[1])
    return arrays


def random(rng, shape):
    scale = 1.0 if len(shape) < 2 else 1 / max(math.prod(shape[1:]), 1) ** 0.5 if len(shape) in (2, 4) else 1.0
    return np.asarray(rng.standard_normal(shape) * scale).astype(np.float32)


def packed(library, name, weight, like):
    out = np.empty(like.shape, np.float32)
    reason = library.call(name, [weight, out])
    assert reason is None, reason
    return out


def expected(name, inputs, symbols, shapes):
    """What an operator writes, or None where the tests of tests/kernels/test_kernels.py alone say it."""
    name = name.removesuffix("Bf16")
    wide = [array.astype(np.float64) for array in inputs]
    if name in ("BlockV1", "BlockV2"):
        return [block(wide, name == "BlockV2")]
    if name in ("BlockV1Saving", "BlockV2Saving"):
        return [block(wide, name == "BlockV2Saving")]
    if name in ("Patch", "Stem"):
        return [patch(*wide, name == "Stem")]
    if name in ("PatchInputGrad", "StemInputGrad"):
        return [patch_input_grad(*wide, name == "StemInputGrad")]
    if name in ("PatchParamsGrad", "StemParamsGrad"):
        return patch_params_grad(*wide, name == "StemParamsGrad")
    if name == "Norm":
        return norm(*wide)
    if name == "NormGrad":
        return norm_grad(*wide)
    if name == "AdamW":
        return adamw(wide, symbols["n"])
    return None


def block(inputs, is_v2):
    x, dw, dw_bias, gamma, beta, w1, b1, *rest = inputs
    n, h, w, c = x.shape
    padded = np.pad(x, ((0, 0), (3, 3), (3, 3), (0, 0)))
    u = dw_bias + sum(padded[:, i : i + h, j : j + w] * dw[:, 0, i, j] for i in range(7) for j in range(7))
    y = (u - u.mean(-1, keepdims=True)) / np.sqrt(u.var(-1, keepdims=True) + 1e-6) * gamma + beta
    z = y @ w1.T + b1
    g = 0.5 * z * (1 + ERF(z / np.sqrt(2)))
    if is_v2:
        grn_gamma, grn_beta, *rest = rest
        norms = np.sqrt((g * g).sum((1, 2), keepdims=True))
        g = grn_gamma * (g * norms / (norms.mean(-1, keepdims=True) + 1e-6)) + grn_beta + g
    r = g @ rest[0].T + rest[1]
    if not is_v2:
        r = r * rest[2]
    return x + r * rest[-1].reshape(-1, 1, 1, 1)


def patches(x, k, is_stem):
    """[N, H / k, W / k, I, k, k]."""
    x = x if is_stem else x.transpose(0, 3, 1, 2)
    n, c, h, w = x.shape
    rows, cols = h // k, w // k
    return x[:, :, : rows * k, : cols * k].reshape(n, c, rows, k, cols, k).transpose(0, 2, 4, 1, 3, 5)


def patch(x, weight, bias, is_stem):
    return np.tensordot(patches(x, weight.shape[2], is_stem), weight, ([3, 4, 5], [1, 2, 3])) + bias


def patch_input_grad(x, weight, dout, is_stem):
    k = weight.shape[2]
    spread = np.tensordot(dout, weight, ([3], [0])).transpose(0, 3, 1, 4, 2, 5)  # [N, I, rows, k, cols, k]
    n, c, rows, _, cols, _ = spread.shape
    dx = np.zeros(x.shape if is_stem else x.transpose(0, 3, 1, 2).shape)
    dx[:, :, : rows * k, : cols * k] = spread.reshape(n, c, rows * k, cols * k)
    return dx if is_stem else dx.transpose(0, 2, 3, 1)


def patch_params_grad(x, weight, dout, is_stem):
    found = patches(x, weight.shape[2], is_stem)
    return [np.tensordot(dout, found, ([0, 1, 2], [0, 1, 2])), dout.sum((0, 1, 2))]


def norm(x, gamma, beta):
    factor = 1 / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    xhat = (x - x.mean(-1, keepdims=True)) * factor
    return [xhat * gamma + beta, xhat, factor[..., 0]]


def norm_grad(xhat, factor, gamma, dout):
    dy = dout * gamma
    mean = lambda a: a.mean(-1, keepdims=True)  # noqa: E731
    axes = tuple(range(xhat.ndim - 1))
    dx = (dy - mean(dy) - xhat * mean(dy * xhat)) * factor[..., None]
    return [dx, (dout * xhat).sum(axes), dout.sum(axes)]


def adamw(inputs, n):
    weights, moments1, moments2, gradients = (inputs[i * n : (i + 1) * n] for i in range(4))
    rates, decays, (beta1, beta2, eps, correction) = inputs[4 * n :]
    new1 = [beta1 * m + (1 - beta1) * g for m, g in zip(moments1, gradients)]
    new2 = [beta2 * v + (1 - beta2) * g * g for v, g in zip(moments2, gradients)]
    new = [
        w - rate * (correction * m / (np.sqrt(v) + eps) + decay * w)
        for w, m, v, rate, decay in zip(weights, new1, new2, rates, decays)
    ]
    return [*new, *new1, *new2]
