"""The recorded outputs of the reference implementation, with the weights and images that produced them.

The weights follow a rule, which uses the official names and shapes of the papers' code. This module contains nothing
from mindcv, so a comparison with it is independent of mindcv.
"""

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
SEED = 20260101


def draw(name, shape):
    """Return float32 normal random numbers that depend only on the name and the shape."""
    key = zlib.crc32(f"{SEED}:{name}".encode())
    return np.random.default_rng(key).standard_normal(shape).astype(np.float32)


def image(shape):
    return draw("input", shape)


def weight(name, shape):
    """Return the value of the parameter with this official name."""
    n = draw(name, shape)
    module, kind = name.rsplit(".", 1)
    is_norm = (
        module.endswith("norm") or module == "downsample_layers.0.1" or module.endswith(".0") and module[-3] in "123"
    )
    if "grn" in module:
        return 0.3 * n
    if kind == "gamma":
        return 0.3 + 0.2 * n
    if kind == "bias":
        return 0.1 * n
    return 1 + 0.1 * n if is_norm else n / np.sqrt(np.prod(shape[1:])).astype(np.float32)


def official_shapes(depths, dims, is_v2):
    """Return {name: shape} of the official code's parameters, for 3 input channels and 1000 classes."""
    shapes = {"downsample_layers.0.0": (dims[0], 3, 4, 4), "downsample_layers.0.1": (dims[0],)}
    for stage in (1, 2, 3):
        shapes[f"downsample_layers.{stage}.0"] = (dims[stage - 1],)
        shapes[f"downsample_layers.{stage}.1"] = (dims[stage], dims[stage - 1], 2, 2)
    extra = {}
    for stage, (depth, dim) in enumerate(zip(depths, dims)):
        for block in range(depth):
            at = f"stages.{stage}.{block}"
            shapes[f"{at}.dwconv"] = (dim, 1, 7, 7)
            shapes[f"{at}.norm"] = (dim,)
            shapes[f"{at}.pwconv1"] = (4 * dim, dim)
            shapes[f"{at}.pwconv2"] = (dim, 4 * dim)
            if is_v2:
                extra[f"{at}.grn.gamma"] = extra[f"{at}.grn.beta"] = (1, 1, 1, 4 * dim)
            else:
                extra[f"{at}.gamma"] = (dim,)
    shapes["norm"] = (dims[3],)
    shapes["head"] = (1000, dims[3])
    named = {f"{name}.weight": shape for name, shape in shapes.items()}
    named.update({f"{name}.bias": shape[:1] for name, shape in shapes.items()})
    return {**named, **extra}


class Arrays(Mapping):
    """Maps `MODEL/...` to the recorded array in the file of the model."""

    def __init__(self):
        self.files = {path.stem: np.load(path) for path in sorted(FOLDER.glob("*.npz"))}

    def __getitem__(self, key):
        model, name = key.split("/", 1)
        return self.files[model][name]

    def __iter__(self):
        return (f"{model}/{name}" for model, file in self.files.items() for name in file.files)

    def __len__(self):
        return sum(len(file.files) for file in self.files.values())


class Reference:
    """The recorded models.

    Attributes:
        arrays: `MODEL/...` -> recorded array. README.md describes the arrays.
        models: names of the models.
        cases: (model, shape of the images, number of parameters) for each recorded input.
    """

    def __init__(self):
        self.arrays = Arrays()
        self.models = list(self.arrays.files)
        self.cases = [
            (model, tuple(int(size) for size in shape), int(self.arrays[f"{model}/params"]))
            for model in self.models
            for shape in self.arrays[f"{model}/inputs"]
        ]

    def image(self, shape):
        return image(shape)

    def shapes(self, model):
        """Return {name: shape} of the model's parameters, in the official layout."""
        depths, dims = (self.arrays[f"{model}/{name}"].tolist() for name in ("depths", "dims"))
        return official_shapes(depths, dims, is_v2=model.startswith("convnextv2_"))

    def weights(self, model):
        """Return {name: value} of the model's parameters, in the official layout."""
        return {name: weight(name, shape) for name, shape in self.shapes(model).items()}
