"""Creates the pipelines of transforms for training and evaluation."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Optional, Union

from mindcv.data.auto_augment import create_auto_augment
from mindcv.data.constants import (
    DATASET_NAMES,
    DEFAULT_CROP_PCT,
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
)
from mindcv.data.five_crop import FiveCrop, five_crop_problem
from mindcv.data.random_erasing import RandomErasing
from mindcv.data.splits import SplitTransforms
from mindcv.data.transforms import (
    CenterCrop,
    ColorJitter,
    Decode,
    Normalize,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomVerticalFlip,
    Resize,
    ToArray,
)
from mindcv.utils.checks import (
    are_numbers,
    check_flags,
    check_int,
    check_name,
    check_number,
    check_numbers,
    check_text,
    is_number,
    shown,
)
from mindcv.utils.errors import UnknownKeywordError, UserError

__all__ = ["create_pixel_transforms", "create_transforms", "transforms_imagenet_eval", "transforms_imagenet_train"]


def create_transforms(
    dataset_name: str = "",
    image_resize: int = 224,
    is_training: bool = False,
    auto_augment: Optional[str] = None,
    separate: bool = False,
    **kwargs: Any,
) -> Union[list[Callable], SplitTransforms]:
    """Create the transforms of `transforms_imagenet_train` or `transforms_imagenet_eval`.

    Args:
        dataset_name: name of the data set, which must be known. It has no other influence: the options mean the same
            for every data set. (MindCV has fixed pipelines for CIFAR and MNIST that ignore the options.)
        image_resize: height and width of the result in pixels.
        is_training: whether to create the transforms for training instead of those for evaluation.
        auto_augment: augmentation policy, for training only.
        separate: whether to return a `SplitTransforms` for `create_loader(separate=True)`, for training only.
        kwargs: further arguments of the chosen function.

    Raises:
        UserError: a name or value is not allowed, or the chosen function does not have a keyword.
    """
    check_name("dataset", dataset_name, DATASET_NAMES, ignore_case=True)
    check_flags(is_training=is_training, separate=separate)
    if auto_augment is not None:
        check_text("auto_augment", auto_augment)
    build = transforms_imagenet_train if is_training else transforms_imagenet_eval
    allowed = inspect.signature(build).parameters
    for name in kwargs:
        if name not in allowed:
            raise UnknownKeywordError(build.__name__, name, allowed)
    if is_training:
        return build(image_resize, auto_augment=auto_augment, separate=separate, **kwargs)
    if auto_augment:
        raise UserError(f"auto_augment '{auto_augment}' is for training (is_training=True)")
    if separate:
        raise UserError("separate=True (augmentation splits) is for training (is_training=True)")
    return build(image_resize, **kwargs)


def create_pixel_transforms() -> list[Callable]:
    """Create the transforms for a network that prepares the images itself: they only decode an image.

    They convert an encoded image to a float32 array [3, H, W] of its own size, with values from 0 to 255.
    """
    return [Decode("RGB"), ToArray()]


def transforms_imagenet_train(
    image_resize: int = 224,
    scale: Sequence[float] = (0.08, 1.0),
    ratio: Sequence[float] = (0.75, 1.333),
    hflip: float = 0.5,
    vflip: float = 0.0,
    color_jitter: Optional[Union[float, Sequence[float]]] = None,
    auto_augment: Optional[str] = None,
    interpolation: str = "bilinear",
    mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
    std: Sequence[float] = IMAGENET_DEFAULT_STD,
    re_prob: float = 0.0,
    re_scale: Sequence[float] = (0.02, 0.33),
    re_ratio: Sequence[float] = (0.3, 3.3),
    re_value: Union[float, Sequence[float], str] = 0,
    re_max_attempts: int = 10,
    separate: bool = False,
    in_channels: int = 3,
    *,
    re_count: int = 1,
) -> Union[list[Callable], SplitTransforms]:
    """Create the transforms for training: random crop, flips, colour changes, normalisation and random erasing.

    They convert an encoded image to a float32 array [in_channels, image_resize, image_resize].

    Args:
        image_resize: height and width of the result in pixels.
        scale, ratio: see `RandomResizedCrop`.
        hflip, vflip: probability of a horizontal flip, and of a vertical flip.
        color_jitter: strength of the changes of brightness, contrast and saturation, or a list of these three, or of
            these and hue. As in MindCV and timm, it applies only if `auto_augment` is None, because RandAugment changes
            colours itself.
        auto_augment: policy string (see `auto_augment.create_auto_augment`).
        interpolation: 'nearest', 'bilinear', 'bicubic', 'lanczos', 'box' or 'hamming'.
        mean, std: one number for each channel, in the units of pixel values (0..255). For one channel, the ImageNet
            defaults are averaged.
        re_prob, re_scale, re_ratio, re_value, re_max_attempts, re_count: see `RandomErasing`.
        separate: whether to return a `SplitTransforms` instead of one list. All versions of an image share the crop and
            the flips. (MindCV's three lists differ: its third list, normalisation and erasing, also applies to the
            clean version, which is then not clean.)
        in_channels: 3 for colour images, 1 for grey images.

    Raises:
        UserError: an argument is not allowed, or `separate` is on but nothing distinguishes the versions.
    """
    mode, mean, std = _check_channels(in_channels, mean, std)
    shared = [Decode(mode), RandomResizedCrop(check_int("image_resize", image_resize, 1), scale, ratio, interpolation)]
    if hflip:
        shared.append(RandomHorizontalFlip(hflip))
    if vflip:
        shared.append(RandomVerticalFlip(vflip))
    clean = [ToArray(), Normalize(mean, std)]
    augmented = list(clean)
    if auto_augment:
        augmented.insert(0, create_auto_augment(auto_augment, mean, interpolation))
    elif color_jitter:
        augmented.insert(0, ColorJitter(*_jitter_strengths(color_jitter)))
    if re_prob:
        augmented.append(RandomErasing(re_prob, re_scale, re_ratio, re_value, re_max_attempts, re_count))
    if not separate:
        return shared + augmented
    if len(augmented) == len(clean):
        raise UserError("separate=True needs something to augment with: auto_augment, color_jitter or re_prob")
    return SplitTransforms(shared, clean, augmented)


def transforms_imagenet_eval(
    image_resize: int = 224,
    crop_pct: float = DEFAULT_CROP_PCT,
    mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
    std: Sequence[float] = IMAGENET_DEFAULT_STD,
    interpolation: str = "bilinear",
    in_channels: int = 3,
    *,
    five_crop: bool = False,
) -> list[Callable]:
    """Create the transforms for evaluation: resize, central crop and normalisation.

    They convert an encoded image to a float32 array [in_channels, image_resize, image_resize]. The shorter side is
    resized to int(image_resize / crop_pct), and then the centre is cropped. If `crop_pct` is 1 and `image_resize` at
    least 384, the image is resized directly to the square, which changes its proportions. The official ConvNeXt code
    evaluates in this way at these sizes.

    Args:
        image_resize: height and width of the result in pixels.
        crop_pct: fraction of the shorter side that the crop keeps, above 0 and at most 1.
        mean, std, interpolation, in_channels: see `transforms_imagenet_train`.
        five_crop: whether to return the four corners and the centre instead of the centre alone, as an array
            [5, in_channels, image_resize, image_resize]. The evaluation with ten crops needs it.

    Raises:
        UserError: an argument is not allowed, or five crops would be the same crop.
    """
    mode, mean, std = _check_channels(in_channels, mean, std)
    size = check_int("image_resize", image_resize, 1)
    check_number("crop_pct", crop_pct, above=0, high=1)
    check_flags(five_crop=five_crop)
    convert = [ToArray(), Normalize(mean, std)]
    if five_crop:
        problem = five_crop_problem(size, crop_pct)
        if problem:
            raise UserError(problem)
        return [Decode(mode), Resize(int(size / crop_pct), interpolation), FiveCrop(size, convert)]
    if crop_pct == 1.0 and size >= 384:
        shape = [Resize((size, size), interpolation)]
    else:
        shape = [Resize(int(size / crop_pct), interpolation), CenterCrop(size)]
    return [Decode(mode), *shape, *convert]


def _check_channels(
    in_channels: int, mean: Sequence[float], std: Sequence[float]
) -> tuple[str, Sequence[float], Sequence[float]]:
    """Return the mode to decode to, and the mean and std for this mode."""
    if in_channels not in (1, 3):
        raise UserError(f"in_channels must be 3 (colour) or 1 (grey), got {shown(in_channels)}")
    check_numbers("mean", mean)
    check_numbers("std", std, above=0)
    if in_channels == 1:
        if list(mean) == IMAGENET_DEFAULT_MEAN:
            mean = [sum(mean) / 3]
        if list(std) == IMAGENET_DEFAULT_STD:
            std = [sum(std) / 3]
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != in_channels:
            raise UserError(f"{name} must have {in_channels} number(s), one for each channel, got {list(values)}")
    return "RGB" if in_channels == 3 else "L", mean, std


def _jitter_strengths(color_jitter: Union[float, Sequence[float]]) -> Sequence[float]:
    if is_number(color_jitter):
        return (color_jitter,) * 3
    if not are_numbers(color_jitter, 3) and not are_numbers(color_jitter, 4):
        raise UserError(f"color_jitter must be one number or a list of 3 or 4 numbers, got {shown(color_jitter)}")
    return color_jitter
