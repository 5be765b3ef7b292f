"""Checkpoints with the names and shapes of other libraries, taken from their code and not from mindcv's tables."""

import numpy as np
import pytest


def pairs(names, official, theirs=("weight", "bias"), ours=("weight", "bias")):
    """Return the names of a layer's two parameters in a layout, each with the official name."""
    return [(f"{names}.{t}", f"{official}.{o}") for t, o in zip(theirs, ours)]


def timm(depths):
    for part in (0, 1):
        yield from pairs(f"stem.{part}", f"downsample_layers.0.{part}")
    for s, depth in enumerate(depths):
        for part in (0, 1) if s else ():
            yield from pairs(f"stages.{s}.downsample.{part}", f"downsample_layers.{s}.{part}")
        for b in range(depth):
            block, official = f"stages.{s}.blocks.{b}", f"stages.{s}.{b}"
            yield f"{block}.gamma", f"{official}.gamma"
            yield from pairs(f"{block}.conv_dw", f"{official}.dwconv")
            yield from pairs(f"{block}.norm", f"{official}.norm")
            yield from pairs(f"{block}.mlp.fc1", f"{official}.pwconv1")
            yield from pairs(f"{block}.mlp.grn", f"{official}.grn", ours=("gamma", "beta"))
            yield from pairs(f"{block}.mlp.fc2", f"{official}.pwconv2")
    yield from pairs("head.norm", "norm")
    yield from pairs("head.fc", "head")


def torchvision(depths):
    for s, depth in enumerate(depths):
        for part in (0, 1):
            yield from pairs(f"features.{2 * s}.{part}", f"downsample_layers.{s}.{part}")
        for b in range(depth):
            block, official = f"features.{2 * s + 1}.{b}", f"stages.{s}.{b}"
            yield f"{block}.layer_scale", f"{official}.gamma"
            for place, layer in ((0, "dwconv"), (2, "norm"), (3, "pwconv1"), (5, "pwconv2")):
                yield from pairs(f"{block}.block.{place}", f"{official}.{layer}")
    yield from pairs("classifier.0", "norm")
    yield from pairs("classifier.2", "head")


def transformers(depths, root):
    yield from pairs(f"{root}embeddings.patch_embeddings", "downsample_layers.0.0")
    yield from pairs(f"{root}embeddings.layernorm", "downsample_layers.0.1")
    for s, depth in enumerate(depths):
        stage = f"{root}encoder.stages.{s}"
        for part in (0, 1) if s else ():
            yield from pairs(f"{stage}.downsampling_layer.{part}", f"downsample_layers.{s}.{part}")
        for b in range(depth):
            block, official = f"{stage}.layers.{b}", f"stages.{s}.{b}"
            yield f"{block}.layer_scale_parameter", f"{official}.gamma"
            yield from pairs(f"{block}.dwconv", f"{official}.dwconv")
            yield from pairs(f"{block}.layernorm", f"{official}.norm")
            yield from pairs(f"{block}.pwconv1", f"{official}.pwconv1")
            yield from pairs(f"{block}.grn", f"{official}.grn", ours=("gamma", "beta"))
            yield from pairs(f"{block}.pwconv2", f"{official}.pwconv2")
    yield from pairs(f"{root}layernorm", "norm")
    yield from pairs("classifier", "head")


def fcmae(depths):
    for part in (0, 1):
        yield from pairs(f"encoder.downsample_layers.0.{part}", f"downsample_layers.0.{part}")
    for s, depth in enumerate(depths):
        if s:
            yield from pairs(f"encoder.downsample_layers.{s}.0.ln", f"downsample_layers.{s}.0")
            yield from pairs(f"encoder.downsample_layers.{s}.1", f"downsample_layers.{s}.1", ("kernel", "bias"))
        for b in range(depth):
            block, official = f"encoder.stages.{s}.{b}", f"stages.{s}.{b}"
            yield from pairs(f"{block}.dwconv", f"{official}.dwconv", ("kernel", "bias"))
            yield from pairs(f"{block}.norm.ln", f"{official}.norm")
            yield from pairs(f"{block}.pwconv1.linear", f"{official}.pwconv1")
            yield from pairs(f"{block}.grn", f"{official}.grn", ("gamma", "beta"), ("gamma", "beta"))
            yield from pairs(f"{block}.pwconv2.linear", f"{official}.pwconv2")


def mmpretrain(depths):
    for s, depth in enumerate(depths):
        for part in (0, 1):
            name = f"downsample_layers.{s}.{part}"
            yield from pairs(f"backbone.{name}", name)
        for b in range(depth):
            official = f"stages.{s}.{b}"
            yield f"backbone.{official}.gamma", f"{official}.gamma"
            yield from pairs(f"backbone.{official}.grn", f"{official}.grn", ("gamma", "beta"), ("gamma", "beta"))
            for ours, theirs in (
                ("depthwise_conv", "dwconv"),
                ("norm", "norm"),
                ("pointwise_conv1", "pwconv1"),
                ("pointwise_conv2", "pwconv2"),
            ):
                yield from pairs(f"backbone.{official}.{ours}", f"{official}.{theirs}")
    yield from pairs("backbone.norm3", "norm")
    yield from pairs("head.fc", "head")


def reshaped(layout, name, array, is_conv_mlp):
    """Return an official array in the shape that the layout stores."""
    if (layout == "timm" and ".mlp.grn." in name) or (layout == "mmpretrain" and ".grn." in name):
        return array[0, 0, 0]
    if layout == "timm" and is_conv_mlp and ".mlp.fc" in name and name.endswith("weight"):
        return array[:, :, None, None]
    if name.endswith("layer_scale"):
        return array[:, None, None]
    if layout == "fcmae" and ".grn." in name:
        return array[0, 0]
    if layout == "fcmae" and name.endswith("kernel"):
        # A sparse kernel is stored column by column: index x * side + y is column x, row y.
        side = array.shape[2]
        taps = [array[:, :, y, x].T for x in range(side) for y in range(side)]
        return np.stack(taps)[:, 0] if "dwconv" in name else np.stack(taps)
    convolutions = ("dwconv.bias", *(f"downsample_layers.{stage}.1.bias" for stage in (1, 2, 3)))
    if layout == "fcmae" and name.endswith(convolutions):
        return array[None]
    return array


@pytest.fixture(scope="session")
def official_shapes(reference):
    """Return a function from a model's name to {parameter name: shape} in the official layout."""
    return reference.shapes


@pytest.fixture(scope="session")
def as_layout():
    """Return a function (layout, model, official arrays) that gives the checkpoint in the layout, in its own order."""

    def convert(layout, model, official):
        depths = [len({name.split(".")[2] for name in official if name.startswith(f"stages.{s}.")}) for s in range(4)]
        roots = {"convnext": "convnext.", "convnextv2": "convnextv2."}
        root = roots[model.split("_")[0]] if "head.weight" in official else ""
        names = {
            "official": lambda: [(name, name) for name in official],
            "timm": lambda: timm(depths),
            "torchvision": lambda: torchvision(depths),
            "transformers": lambda: transformers(depths, root),
            "fcmae": lambda: fcmae(depths),
            "mmpretrain": lambda: mmpretrain(depths),
        }[layout]()
        is_conv_mlp = official["downsample_layers.0.0.bias"].size < 96  # atto to nano, and what is smaller
        return {name: reshaped(layout, name, official[o], is_conv_mlp) for name, o in names if o in official}

    return convert
