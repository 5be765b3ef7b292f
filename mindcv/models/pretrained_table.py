"""The table of published weights: address, licence, preprocessing and accuracy.

Every figure comes from the publisher, on the page `source`. A figure or digest that nobody published is None.

A name is the model's name, a dot, and timm's tag of the weights. The tag `in12k_ft_in1k` means training on ImageNet-12k
and then on ImageNet-1k. The tags of torchvision's and MindCV's weights begin with `tv_` and `mindcv_`. The first row of
a model is its default.

Decision 0057 says which sources are used.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

__all__ = ["PUBLISHED", "Preprocessing", "PretrainedWeights"]


class Preprocessing(NamedTuple):
    """Preprocessing of an image before the network. The names and units are those of the options."""

    image_resize: int
    crop_pct: float
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    std: tuple[float, ...] = (58.395, 57.12, 57.375)


class PretrainedWeights(NamedTuple):
    """One published file.

    Attributes:
        name: `model.tag`.
        url: address of the file.
        license: licence of the weights.
        preprocessing: preprocessing of images to classify. `top_1` was measured with it.
        source: address of the page that publishes the figures.
        num_classes: number of classes of the head, 0 without a head.
        top_1: top-1 accuracy on the validation images of ImageNet-1k in percent, or None.
        sha256: SHA-256 digest of the file, or its first 8 digits, or None.
    """

    name: str
    url: str
    license: str
    preprocessing: Preprocessing
    source: str
    num_classes: int = 1000
    top_1: Optional[float] = None
    sha256: Optional[str] = None


_CONVNEXT = "https://github.com/facebookresearch/ConvNeXt"
_CONVNEXT_V2 = "https://github.com/facebookresearch/ConvNeXt-V2"
_TIMM = "https://github.com/huggingface/pytorch-image-models"
_TIMM_RESULTS = f"{_TIMM}/blob/main/results/results-imagenet.csv"
_TIMM_CONFIGS = f"{_TIMM}/blob/main/timm/models/convnext.py"
_TORCHVISION = "https://github.com/pytorch/vision/blob/main/torchvision/models/convnext.py"
_MINDCV = "https://github.com/mindspore-lab/mindcv/tree/main/configs"

_AT_224 = Preprocessing(224, 0.875)
_AT_224_WIDE = Preprocessing(224, 0.95)
_AT_224_WHOLE = Preprocessing(224, 1.0)
_AT_256 = Preprocessing(256, 1.0)
_AT_288_NARROW = Preprocessing(288, 0.95)
_AT_288 = Preprocessing(288, 1.0)
# From 384 pixels, crop_pct 1.0 squashes the whole image to a square, as the official code does. With 0.999 the shorter
# side becomes int(384 / 0.999) = 384 pixels, and the image is cropped.
_AT_384 = Preprocessing(384, 1.0)
_AT_384_CENTRE = Preprocessing(384, 0.999)
_AT_512 = Preprocessing(512, 1.0)

# 255 times the means 0.48145466, 0.4578275, 0.40821073 and the deviations 0.26862954, 0.26130258, 0.27577711.
_CLIP_MEAN = (122.7709383, 116.7460125, 104.09373615)
_CLIP_STD = (68.5005327, 66.6321579, 70.32316305)
_CLIP_AT_256 = Preprocessing(256, 1.0, mean=_CLIP_MEAN, std=_CLIP_STD)
_CLIP_AT_384 = Preprocessing(384, 1.0, mean=_CLIP_MEAN, std=_CLIP_STD)
_CLIP_AT_384_CENTRE = Preprocessing(384, 0.999, mean=_CLIP_MEAN, std=_CLIP_STD)

_IN12K, _IN22K = 11821, 21841


def _hub(name: str, images: Preprocessing, top_1: Optional[float], **fields: object) -> PretrainedWeights:
    """Weights in timm's repositories on Hugging Face: timm's own, and official ones as safetensors files."""
    url = f"https://huggingface.co/timm/{name}/resolve/main/model.safetensors"
    return PretrainedWeights(name, url, preprocessing=images, top_1=top_1, **fields)


def _timm(name: str, images: Preprocessing, top_1: Optional[float] = None, **fields: int) -> PretrainedWeights:
    source = _TIMM_RESULTS if top_1 else _TIMM_CONFIGS
    return _hub(name, images, top_1, license="Apache-2.0", source=source, **fields)


def _v1(name: str, images: Preprocessing, top_1: Optional[float] = None, **fields: int) -> PretrainedWeights:
    return _hub(name, images, top_1, license="MIT", source=_CONVNEXT, **fields)


def _v1_file(name: str, file: str, images: Preprocessing, top_1: float) -> PretrainedWeights:
    """Official weights that are not on Hugging Face."""
    url = f"https://dl.fbaipublicfiles.com/convnext/{file}"
    return PretrainedWeights(name, url, "MIT", images, _CONVNEXT, top_1=top_1)


def _v2(name: str, images: Preprocessing, top_1: float) -> PretrainedWeights:
    return _hub(name, images, top_1, license="CC-BY-NC-4.0", source=_CONVNEXT_V2)


def _fcmae(name: str) -> PretrainedWeights:
    """An encoder after FCMAE pre-training. It has no last norm and no head."""
    return _hub(name, _AT_224, None, num_classes=0, license="CC-BY-NC-4.0", source=_CONVNEXT_V2)


def _dinov3(name: str) -> PretrainedWeights:
    return _hub(name, _AT_224_WHOLE, None, num_classes=0, license="DINOv3", source=_TIMM_CONFIGS)


def _eupe(name: str) -> PretrainedWeights:
    return _hub(name, _AT_256, None, num_classes=0, license="FAIR-NC", source=_TIMM_CONFIGS)


def _torchvision(model: str, sha256: str, resized_to: int, top_1: float) -> PretrainedWeights:
    """torchvision's weights. Their preprocessing resizes the shorter side to `resized_to` pixels and crops 224."""
    images = Preprocessing(224, 224 / resized_to, "bilinear")
    url = f"https://download.pytorch.org/models/{model}-{sha256}.pth"
    return PretrainedWeights(f"{model}.tv_in1k", url, "BSD-3-Clause", images, _TORCHVISION, top_1=top_1, sha256=sha256)


def _mindcv(model: str, sha256: str, top_1: float) -> PretrainedWeights:
    family = model.split("_")[0]
    url = f"https://download-mindspore.osinfra.cn/toolkits/mindcv/{family}/{model}-{sha256}.ckpt"
    return PretrainedWeights(
        f"{model}.mindcv_in1k", url, "Apache-2.0", _AT_224_WIDE, f"{_MINDCV}/{family}", top_1=top_1, sha256=sha256
    )


PUBLISHED = (
    _timm("convnext_atto.d2_in1k", _AT_288_NARROW, 77.008),
    _timm("convnext_femto.d1_in1k", _AT_288_NARROW, 78.716),
    _timm("convnext_pico.d1_in1k", _AT_288_NARROW, 80.414),
    _timm("convnext_nano.in12k_ft_in1k", _AT_288, 82.862),
    _timm("convnext_nano.d1h_in1k", _AT_288, 81.482),
    _timm("convnext_nano.r384_in12k_ft_in1k", _AT_384_CENTRE),
    _timm("convnext_nano.in12k", _AT_224_WIDE, num_classes=_IN12K),
    _timm("convnext_nano.r384_in12k", _AT_384_CENTRE, num_classes=_IN12K),
    _timm("convnext_nano.r384_ad_in12k", _AT_384_CENTRE, num_classes=_IN12K),
    _timm("convnext_tiny.in12k_ft_in1k", _AT_288, 84.450),
    _timm("convnext_tiny.in12k_ft_in1k_384", _AT_384, 85.122),
    _timm("convnext_tiny.in12k", _AT_224_WIDE, num_classes=_IN12K),
    _v1("convnext_tiny.fb_in22k_ft_in1k", _AT_224, 82.9),  # timm measured 78.898 at 288 pixels.
    _v1("convnext_tiny.fb_in1k", _AT_224, 82.1),
    _v1("convnext_tiny.fb_in22k_ft_in1k_384", _AT_384, 84.1),
    _v1("convnext_tiny.fb_in22k", _AT_224, num_classes=_IN22K),
    _dinov3("convnext_tiny.dinov3_lvd1689m"),
    _eupe("convnext_tiny.eupe_lvd1689m"),
    _torchvision("convnext_tiny", "983f1562", 236, 82.520),
    _mindcv("convnext_tiny", "ae5ff8d7", 81.91),
    _timm("convnext_small.in12k_ft_in1k", _AT_288, 85.330),
    _timm("convnext_small.in12k_ft_in1k_384", _AT_384, 86.182),
    _timm("convnext_small.in12k", _AT_224_WIDE, num_classes=_IN12K),
    _v1("convnext_small.fb_in22k_ft_in1k", _AT_224, 84.6),
    _v1("convnext_small.fb_in1k", _AT_224, 83.1),
    _v1("convnext_small.fb_in22k_ft_in1k_384", _AT_384, 85.8),
    _v1("convnext_small.fb_in22k", _AT_224, num_classes=_IN22K),
    _dinov3("convnext_small.dinov3_lvd1689m"),
    _eupe("convnext_small.eupe_lvd1689m"),
    _torchvision("convnext_small", "0c510722", 230, 83.616),
    _mindcv("convnext_small", "e23008f3", 83.40),
    _v1("convnext_base.fb_in22k_ft_in1k", _AT_224, 85.8),
    _v1("convnext_base.fb_in1k", _AT_224, 83.8),
    _v1_file("convnext_base.fb_in1k_384", "convnext_base_1k_384.pth", _AT_384, 85.1),
    _v1("convnext_base.fb_in22k_ft_in1k_384", _AT_384, 86.8),
    _v1("convnext_base.fb_in22k", _AT_224, num_classes=_IN22K),
    _timm("convnext_base.clip_laion2b_augreg_ft_in12k_in1k", _CLIP_AT_256, 86.370),
    _timm("convnext_base.clip_laion2b_augreg_ft_in12k_in1k_384", _CLIP_AT_384, 87.134),
    _timm("convnext_base.clip_laion2b_augreg_ft_in1k", _CLIP_AT_256, 86.158),
    _timm("convnext_base.clip_laiona_augreg_ft_in1k_384", _CLIP_AT_384_CENTRE, 86.502),
    _timm("convnext_base.clip_laion2b_augreg_ft_in12k", _CLIP_AT_256, num_classes=_IN12K),
    _dinov3("convnext_base.dinov3_lvd1689m"),
    _eupe("convnext_base.eupe_lvd1689m"),
    _torchvision("convnext_base", "6075fbad", 232, 84.062),
    _mindcv("convnext_base", "ee3544b8", 83.32),
    _v1("convnext_large.fb_in22k_ft_in1k", _AT_224, 86.6),
    _v1("convnext_large.fb_in1k", _AT_224, 84.3),
    _v1_file("convnext_large.fb_in1k_384", "convnext_large_1k_384.pth", _AT_384, 85.5),
    _v1("convnext_large.fb_in22k_ft_in1k_384", _AT_384, 87.5),
    _v1("convnext_large.fb_in22k", _AT_224, num_classes=_IN22K),
    _dinov3("convnext_large.dinov3_lvd1689m"),
    _torchvision("convnext_large", "ea097f82", 232, 84.414),
    _v1("convnext_xlarge.fb_in22k_ft_in1k", _AT_224, 87.0),
    _v1("convnext_xlarge.fb_in22k_ft_in1k_384", _AT_384, 87.8),
    _v1("convnext_xlarge.fb_in22k", _AT_224, num_classes=_IN22K),
    _v2("convnextv2_atto.fcmae_ft_in1k", _AT_224, 76.7),
    _fcmae("convnextv2_atto.fcmae"),
    _v2("convnextv2_femto.fcmae_ft_in1k", _AT_224, 78.5),
    _fcmae("convnextv2_femto.fcmae"),
    _v2("convnextv2_pico.fcmae_ft_in1k", _AT_224, 80.3),
    _fcmae("convnextv2_pico.fcmae"),
    _v2("convnextv2_nano.fcmae_ft_in22k_in1k", _AT_224, 82.1),
    _v2("convnextv2_nano.fcmae_ft_in22k_in1k_384", _AT_384, 83.4),
    _v2("convnextv2_nano.fcmae_ft_in1k", _AT_224, 81.9),
    _fcmae("convnextv2_nano.fcmae"),
    _v2("convnextv2_tiny.fcmae_ft_in22k_in1k", _AT_224, 83.9),
    _v2("convnextv2_tiny.fcmae_ft_in22k_in1k_384", _AT_384, 85.1),
    _v2("convnextv2_tiny.fcmae_ft_in1k", _AT_224, 83.0),
    _fcmae("convnextv2_tiny.fcmae"),
    _mindcv("convnextv2_tiny", "d441ba2c", 82.43),
    _v2("convnextv2_base.fcmae_ft_in22k_in1k", _AT_224, 86.8),
    _v2("convnextv2_base.fcmae_ft_in22k_in1k_384", _AT_384, 87.7),
    _v2("convnextv2_base.fcmae_ft_in1k", _AT_224, 84.9),
    _fcmae("convnextv2_base.fcmae"),
    _v2("convnextv2_large.fcmae_ft_in22k_in1k", _AT_224, 87.3),
    _v2("convnextv2_large.fcmae_ft_in22k_in1k_384", _AT_384, 88.2),
    _v2("convnextv2_large.fcmae_ft_in1k", _AT_224, 85.8),
    _fcmae("convnextv2_large.fcmae"),
    _v2("convnextv2_huge.fcmae_ft_in22k_in1k_384", _AT_384, 88.7),
    _v2("convnextv2_huge.fcmae_ft_in22k_in1k_512", _AT_512, 88.9),
    _v2("convnextv2_huge.fcmae_ft_in1k", _AT_224, 86.3),
    _fcmae("convnextv2_huge.fcmae"),
)
