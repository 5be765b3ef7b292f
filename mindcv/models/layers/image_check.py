"""Checks the images, and the mask of their patches, that a network is called with. See decision 0017."""

from __future__ import annotations

from collections.abc import Callable

import mindspore as ms
import numpy as np
from mindspore import Tensor
from mindspore.ops import constexpr

from mindcv.kernels.form import is_on_cpu
from mindcv.utils.device import keep_working_folder_clean
from mindcv.utils.errors import UserError
from mindcv.utils.logger import logger

__all__ = ["check_images", "check_images_in_graph", "check_mask", "check_mask_in_graph"]

_FLOATS = (ms.float32, ms.float16, ms.bfloat16, ms.float64)


def check_images(images: object, channels: int, least_side: int) -> None:
    """Check that a network can compute `images` [N, channels, H, W].

    Args:
        images: first argument of the call.
        channels: number of channels that the network expects.
        least_side: smallest height and width in pixels that leave at least one pixel for every stage.

    Raises:
        UserError: the images have a wrong kind, type or shape.
    """
    if not isinstance(images, Tensor):
        kind = f"{type(images).__module__}.{type(images).__name__}".replace("builtins.", "")
        raise UserError(
            f"the network was called with a {kind}; it expects a MindSpore tensor [N, {channels}, H, W] of "
            "type float32: convert an array with ms.Tensor(array)"
        )
    _check(images.shape, images.dtype, channels, least_side)


def check_images_in_graph(images: Tensor, channels: int, least_side: int) -> None:
    """Run `check_images` inside `construct`. In graph mode it runs when the graph is compiled."""
    _check_constant(images.shape, images.dtype, channels, least_side)


def _check(shape: tuple, dtype: ms.Type, channels: int, least_side: int) -> None:
    """Check the type and shape. A dimension that is unknown when a graph is compiled is None or negative."""
    if shape is None or -2 in shape:
        return
    expected = f"[N, {channels}, H, W]"
    got = f"the network got images of shape {list(shape)}"
    if dtype not in _FLOATS:
        raise UserError(
            f"the network got images of type {str(dtype).lower()}; it expects float32: normalize them as in training, "
            "(pixels - mean) / std of each channel, and give the result as float32"
        )
    if dtype == ms.bfloat16 and is_on_cpu():
        raise UserError(
            "the network got images of type bfloat16, but MindSpore has no bfloat16 operators on CPU: convert them "
            'with images.astype(ms.float32), and get bfloat16 products with apply_amp(network, "O1", dtype="bfloat16")'
        )
    if len(shape) != 4:
        hint = "; images[None] makes a batch of a single image" if len(shape) == 3 else ""
        raise UserError(f"{got}; it expects 4 dimensions, {expected}{hint}")
    if shape[0] == 0:
        raise UserError(f"{got}; it expects {expected} with at least one image")
    if _is_known(shape[1]) and shape[1] != channels:
        hint = f", since it was made with in_channels={channels}"
        if shape[3] == channels:
            hint = ": move the channels to the front with ms.ops.transpose(images, (0, 3, 1, 2))"
        raise UserError(f"{got}; it expects {expected}{hint}")
    if any(_is_known(side) and side < least_side for side in shape[2:]):
        raise UserError(f"{got}; it expects {expected} with height and width of at least {least_side} pixels")


def check_mask(image_shape: tuple, mask: object, patch_size: int) -> None:
    """Raise UserError, with one sentence, unless `mask` is float32 [N, L] of 0 and 1 with a 0 in each row.

    Args:
        image_shape: [N, C, H, W] of the images, whose N and number of patches the mask must have.
        mask: 1 for a removed patch and 0 for a visible one.
        patch_size: height and width of a patch.
    """
    if mask is None:
        raise UserError("the network was called without a mask; it takes images and a mask: network(images, mask)")
    if not isinstance(mask, Tensor):
        raise UserError(f"the mask is of type {type(mask).__name__}; it must be a MindSpore tensor: ms.Tensor(mask)")
    _check_mask(image_shape, mask.shape, mask.dtype, patch_size)
    values = mask.asnumpy()
    if not np.isin(values, (0, 1)).all():
        raise UserError("the mask has values other than 0, for a visible patch, and 1, for a removed patch")
    hidden = np.flatnonzero(values.all(1))
    if len(hidden):
        raise UserError(f"the mask leaves no patch of image {hidden[0]} visible; each image needs one visible patch")
    if not values.any():
        logger.warning(
            "the mask removes no patch, so the loss is 0: in a mask, 1 is a removed patch and 0 a visible one"
        )


def check_mask_in_graph(image_shape: tuple, mask: Tensor, patch_size: int) -> None:
    """The part of `check_mask` that a graph can do: shapes and types are known when it is compiled."""
    _check_constant_mask(image_shape, mask.shape, mask.dtype, patch_size)


def _check_mask(image_shape: tuple, shape: tuple, dtype: ms.Type, patch_size: int) -> None:
    n, _, height, width = image_shape
    for name, side in (("height", height), ("width", width)):
        if side % patch_size:
            raise UserError(
                f"the network got images of shape {list(image_shape)}, whose {name} is not a multiple of the patch "
                f"size {patch_size}"
            )
    num_patches = (height // patch_size) * (width // patch_size)
    if tuple(shape) != (n, num_patches) or dtype != ms.float32:
        raise UserError(
            f"the mask has shape {list(shape)} and type {str(dtype).lower()}; images of shape {list(image_shape)} with "
            f"patches of {patch_size} need [{n}, {num_patches}] and float32"
        )


def _is_known(size: object) -> bool:
    return isinstance(size, int) and size >= 0


def _for_compilation(check: Callable[..., None]) -> Callable[..., None]:
    """A check of shapes and types as a function of a graph, which runs when the graph is compiled."""

    def checked(*arguments: object) -> None:
        try:
            check(*arguments)
        except UserError:
            keep_working_folder_clean()  # After an error, MindSpore writes its analysis of the graph to a file.
            raise

    return constexpr(checked)


_check_constant = _for_compilation(_check)
_check_constant_mask = _for_compilation(_check_mask)
