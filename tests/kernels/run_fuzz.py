"""Call every function of a kernel library with random right and wrong arguments, in a process without MindSpore.

python run_fuzz.py LIBRARY SEED CALLS; MINDCV_KERNELS_ISA names the instruction set. The library may be built with
sanitizers, which then end the process at the first fault. Every call must give numbers close to those of NumPy, or
refuse its arguments with one sentence. The memory beyond the ends of each array belongs to no other array.
"""

import importlib
import math
import sys
import types
from pathlib import Path

import c_boundary
import numpy as np
import plain_operators

ROOT = Path(__file__).parents[2]
NAMES = [
    "BlockV1", "BlockV2", "BlockV1Saving", "BlockV2Saving", "BlockV1Grad", "BlockV2Grad", "StageV1Packed",
    "StageV2Packed", "PackWeight", "PackPatch", "PackStem", "PatchPacked", "StemPacked", "Patch", "Stem",
    "PatchInputGrad", "StemInputGrad", "PatchParamsGrad", "StemParamsGrad", "VisibleBlockV2", "VisibleBlockV2Saving",
    "VisibleBlockV2Grad", "VisiblePatch", "VisibleStem", "VisiblePatchInputGrad", "VisibleStemInputGrad",
    "VisiblePatchParamsGrad", "VisibleStemParamsGrad",
]  # fmt: skip
NAMES = [*NAMES, *(f"{name}Bf16" for name in NAMES), "Norm", "NormGrad", "AdamW"]
NAMES += ["VisibleNorm", "VisibleNormGrad", "SpreadVisible", "SpreadVisibleGrad"]

# The beginnings of the names of operators whose outputs are compact maps of visible patches.
COMPACT = ("Visible", "SpreadVisibleGrad")

# In roundings of float32, of which one of bfloat16 is 2^15. The largest errors of 6,000 calls were 34 and 26 * 2^15.
TOLERANCE, BF16_TOLERANCE = 128, 48 * 2**15


def image_kernels(path):
    """Load the module `mindcv.kernels.images` without its package, whose import would load MindSpore."""
    for name in ("mindcv", "mindcv.kernels"):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(ROOT.joinpath(*name.split(".")))]
    library = types.ModuleType("mindcv.kernels.library")
    library.library_path = lambda: path
    sys.modules["mindcv.kernels.library"] = library
    return importlib.import_module("mindcv.kernels.images")


def sizes(rng):
    """Choose sizes for the letters of an operator: mostly small ones, and some beyond a tile, a vector or a task."""
    most = {"N": 4, "H": 12, "W": 12, "C": 70, "I": 20, "O": 110, "k": 4, "n": 3, "S": 4, "T": 4, "P": 8}
    found = {letter: int(rng.integers(1, limit + 1)) for letter, limit in most.items()}
    kind = rng.integers(8)
    if kind == 0:
        found.update(H=1, W=1, N=int(rng.integers(1, 60)))
    elif kind == 1:
        found.update(C=int(rng.integers(64, 200)), N=1, H=int(rng.integers(1, 6)))
    elif kind == 2:
        found.update(N=1, H=int(rng.integers(12, 30)), W=int(rng.integers(12, 30)), C=int(rng.integers(1, 20)))
    if rng.random() < 0.8:  # else there may be no whole patch
        found.update({side: max(found[side], found["k"]) for side in "HW"})
        found["P"] = max(found["P"], found["k"])
        found.update(S=min(found["S"], found["H"] // found["k"]), T=min(found["T"], found["W"] // found["k"]))
    return found


def rests(rng, name, repetitions):
    count = repetitions if name == "AdamW" else 1
    least = 0 if rng.random() < 0.2 else 1
    return [tuple(int(s) for s in rng.integers(least, 9, rng.integers(0, 4))) for _ in range(count)]


def wrong(rng, shapes, kinds):
    """Change the stated shape, rank or type of one argument, or leave one argument out."""
    shapes, kinds, index = list(shapes), list(kinds), int(rng.integers(len(shapes)))
    shape, lie = list(shapes[index]), rng.integers(5)
    if lie == 0 and shape:
        axis = rng.integers(len(shape))
        shape[axis] = int(rng.choice([0, -1, shape[axis] + rng.integers(1, 9), 2**31, 2**62, 2**63 - 1, 10**6]))
    elif lie == 1:
        shape.insert(int(rng.integers(len(shape) + 1)), int(rng.integers(0, 4)))
    elif lie == 2 and shape:
        del shape[int(rng.integers(len(shape)))]
    elif lie == 3:
        kinds[index] = str(rng.choice(["float16", "float64", "int32", "uint8", "bfloat16", ""]))
    else:
        rng.shuffle(shape)
    shapes[index] = tuple(shape)
    return shapes, kinds


def check_operator(rng, library):
    """Return 1 for a call with correct results, and 0 for one that was refused."""
    name = str(rng.choice(NAMES))
    symbols = sizes(rng)
    inputs, outputs = library.shapes(name, symbols, rests(rng, name, symbols["n"]))
    true = [shape for _, shape in (*inputs, *outputs)]
    if any(min(shape, default=1) < 1 for shape in true) and name not in ("Norm", "NormGrad", "AdamW"):
        arrays = [np.zeros(shape, np.float32) for shape in true]
        assert_sentence(library.call(name, arrays), name)
        return 0
    has_special = rng.random() < 0.15
    shapes = [shape for _, shape in inputs]
    arrays, plain_inputs = plain_operators.inputs_for(rng, library, name, shapes, symbols, has_special)
    arrays += [np.full(shape, np.nan, np.float32) for _, shape in outputs]
    if rng.random() < 0.4:
        shapes, kinds = wrong(rng, true, ["float32"] * len(true))
        given = arrays[: len(shapes)]
        if shapes != true or "float32" not in kinds or len({*kinds}) > 1:
            # Some shapes that differ are right all the same: packed weights of nearly one size have one length. So the
            # memory has the shape that is told, unless there is none of such a size.
            for i, shape in enumerate(shapes):
                if shape != true[i] and min(shape, default=0) >= 0 and math.prod(shape) < 1 << 22:
                    given[i] = np.ones(shape, np.float32)
            reason = library.call(name, given, shapes, kinds)
            if reason is not None:
                assert_sentence(reason, name)
                return 0
            assert all(math.prod(s) <= array.size for s, array in zip(shapes, given)), (name, true, shapes)
            return 1
    reason = library.call(name, arrays)
    if has_special and reason is not None:  # a mask holds only 0 and 1
        assert reason.startswith("the mask has the value "), reason
        return 0
    assert reason is None, reason
    if has_special:  # tests/kernels/test_kernels.py says what comes out; here the calls must only stay in their memory
        return 1
    written = arrays[: 3 * symbols["n"]] if name == "AdamW" else arrays[len(inputs) :]
    check_results(name, symbols, written, plain_operators.expected(name, plain_inputs, symbols))
    return 1


def check_results(name, symbols, written, expected):
    """Check each value. Its error may be some times the error of rounding in all operations of the formula."""
    tolerance = BF16_TOLERANCE if name.endswith("Bf16") else TOLERANCE
    assert len(written) == len(expected), name
    for place, (found, wanted) in enumerate(zip(written, expected)):
        if wanted is None and name.startswith(COMPACT):
            continue
        if name.startswith(COMPACT):
            found = found[: len(wanted.value)]  # what follows the visible patches of a compact map is undefined
        assert name.startswith("Pack") or np.isfinite(found).all(), f"{name} {symbols}: output {place} has gaps"
        if wanted is None:
            continue
        error = wanted.error_of(found)
        assert error <= tolerance, f"{name} {symbols}: output {place} is wrong by {error} roundings"


def assert_sentence(reason, name):
    assert reason is not None, f"{name} took wrong arguments"
    sentences = (f"the kernel {name} got ", "a kernel's arguments have sizes", "the mask ")
    assert reason.startswith(sentences), reason


def image(rng, channels):
    """Return a uint8 image, which sometimes has gaps, reversed axes, or another rank or type."""
    height, width = (int(size) for size in rng.integers(1, 40, 2))
    pixels = rng.integers(0, 256, (height, width, channels), np.uint8)
    kind = rng.integers(12)
    if kind == 0:
        return pixels[:, ::2]
    if kind == 1:
        return pixels[::-1]
    if kind == 2:
        return pixels.transpose(1, 0, 2)
    if kind == 3:
        return pixels[..., 0]
    if kind == 4:
        return pixels.astype(np.float32)
    if kind == 5:
        return pixels[:0]
    if kind == 6:
        return np.broadcast_to(pixels[:1], pixels.shape)
    return pixels


def image_calls(rng, images):
    """Yield the name of each image kernel and one random call of it."""
    source = image(rng, int(rng.choice([1, 4, 4, 3])))
    planes = 1 if source.shape[-1] == 1 else 3
    height, width = (*source.shape, 1)[:2]

    def side(size):
        resized = int(rng.choice([0, 1, size, rng.integers(1, 80)]))
        start = int(rng.integers(-1, resized + 1))
        return images.Side(size + int(rng.random() < 0.05), resized, start, int(rng.integers(0, resized + 2)), True)

    whole = [images.Side(size, new, 0, new) for size, new in zip((width, height), rng.integers(1, 60, 2).tolist())]
    sides = whole if rng.random() < 0.6 else [side(width), side(height)]
    filter_name = str(rng.choice([*images.FILTERS, "nearest"], p=[0.19] * 5 + [0.05]))
    out = np.zeros((planes, height, width + int(rng.random() < 0.1)), rng.choice([np.float32, np.float32, np.float64]))
    mean = rng.random(planes + int(rng.random() < 0.1)).astype(np.float32)
    tables = rng.integers(0, 256, (planes, int(rng.choice([256, 256, 255]))), np.uint8)
    factor = float(rng.choice([0, 1, rng.normal(), 1e30, -1e38, np.inf, np.nan]))
    matrix = (rng.normal(size=6) * rng.choice([1, 30, 1e10, 1e300])).tolist()
    if rng.random() < 0.2:
        matrix[int(rng.integers(6))] = float(rng.choice([np.nan, np.inf, -np.inf]))
    matrix = matrix[: int(rng.choice([6, 6, 6, 5]))]
    floats = rng.standard_normal((3, 7, int(rng.integers(1, 30)))).astype(rng.choice([np.float32, np.float64]))
    partner = floats if rng.random() < 0.3 else floats[:, :: int(rng.choice([1, -1]))].copy("K")
    yield "resize", lambda: images.resize(source, filter_name, *sides, bool(rng.integers(2)))
    yield "to_planes", lambda: images.to_planes(source, mean, mean + 1, out)
    yield "mix", lambda: images.mix(floats, partner, np.float32(0.3), np.float32(0.6))
    yield "look_up", lambda: images.look_up(source, tables)
    yield "sharpen", lambda: images.sharpen(source, factor)
    yield "saturate", lambda: images.saturate(source, factor)
    yield "affine", lambda: images.affine(source, matrix, bool(rng.integers(2)), (1, 2, int(rng.choice([3, 256]))))


def check_images(rng, images):
    """Return how many calls ran and how many were refused."""
    ran = refused = 0
    for name, call in image_calls(rng, images):
        try:
            call()
            ran += 1
        except ValueError as error:
            assert " must " in str(error) and "\n" not in str(error), f"{name}: {error}"
            refused += 1
    return ran, refused


def check_image_boundary(rng, library):
    """Call the C functions with numbers that Python never passes. They must refuse them before they use memory."""
    sides = [8, 8, 0, 8, 0, 8, 8, 0, 8, 0]
    place = int(rng.choice([0, 1, 2, 3, 5, 6, 7, 8]))
    sides[place] = int(rng.choice([-1, -(2**31), 2**31 - 1] + ([0] if place % 5 != 2 else [])))
    c_sides = (c_boundary.ctypes.c_int32 * 10)(*sides)
    bad_channels = int(rng.choice([0, 2, 3, 5, -1]))
    right_sides = (c_boundary.ctypes.c_int32 * 10)(8, 8, 0, 8, 0, 8, 8, 0, 8, 0)
    calls = [
        ("resize", (None, 32, 4, 1, c_sides, 0, None)),
        ("resize", (None, 32, bad_channels, 1, right_sides, 0, None)),
        ("resize", (None, 32, 4, int(rng.choice([-1, 5, 2**31 - 1])), right_sides, 0, None)),
        ("to_planes", (None, 4, bad_channels if bad_channels != 3 else 2, None, None, None)),
        ("to_planes", (None, -1, 3, None, None, None)),
        ("mix", (None, None, -1, 0.5, 0.5)),
        ("look_up", (None, 8, bad_channels, None, None)),
        ("sharpen", (None, 0, 8, 4, 0.5, None)),
        ("sharpen", (None, 8, 2**40, 4, 0.5, None)),
        ("sharpen", (None, 8, 8, 4, float("nan"), None)),
        ("saturate", (None, -8, 0.5, None)),
        ("affine", (None, -8, 8, 0, None, None, None)),
    ]
    for name, arguments in calls:
        assert library.image_kernel_refuses(name, arguments), (name, arguments, sides)


def main():
    path, seed, calls = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    rng = np.random.default_rng(seed)
    library = c_boundary.Library(path)
    library.use_threads(1 + seed % 3)
    images = image_kernels(path)
    boundary_functions = images._library()
    library.image_functions = boundary_functions
    ran = refused = image_ran = image_refused = 0
    for number in range(calls):
        is_right = check_operator(rng, library)
        ran, refused = ran + is_right, refused + 1 - is_right
        if number % 2 == 0:
            more, less = check_images(rng, images)
            image_ran, image_refused = image_ran + more, image_refused + less
            check_image_boundary(rng, library)
    print(library.isa, ran, refused, image_ran, image_refused)


if __name__ == "__main__":
    main()
