"""Selects the forms of layers for the current device. Layers get their forms only from here.

On CPU there are two kinds of forms. With this library's kernels, a block, a patch convolution or a norm is one C++
operator (decision 0019). Without kernels, the operator forms of this package use those of MindSpore's operators that
are fast on CPU (decision 0035). On Ascend and GPU the layers have no forms.
"""

from __future__ import annotations

from typing import Optional

from mindspore import nn

from mindcv.kernels import BlockV1Kernel, BlockV2Kernel, LayerNormKernel, PatchConvKernel
from mindcv.kernels.form import is_on_cpu, uses_kernels
from mindcv.models.layers.cpu.depthwise import FourierDepthwiseConv
from mindcv.models.layers.cpu.layer_norm import ProductLayerNorm
from mindcv.models.layers.cpu.perceptron import PerceptronV1, PerceptronV2
from mindcv.models.layers.cpu.visible import VisibleEncoder
from mindcv.models.layers.layer_with_forms import NO_FORMS, Forms

__all__ = [
    "block_forms",
    "depthwise_class",
    "layer_norm_forms",
    "patch_conv_forms",
    "perceptron_form",
    "visible_encoder_class",
]

_BLOCK_KERNELS = {1: BlockV1Kernel, 2: BlockV2Kernel}
_PERCEPTRONS = {1: PerceptronV1, 2: PerceptronV2}


def block_forms(version: int) -> Forms:
    """Return the forms of a whole block of ConvNeXt (`version` 1) or ConvNeXt V2 (`version` 2)."""
    kernel = _BLOCK_KERNELS[version]
    return Forms(kernel(), kernel(bf16=True)) if uses_kernels() else NO_FORMS


def perceptron_form(version: int) -> Optional[nn.Cell]:
    """Return the operator form of a block's perceptron on CPU without kernels, and None otherwise."""
    return _PERCEPTRONS[version]() if is_on_cpu() and not uses_kernels() else None


def patch_conv_forms(images: bool) -> Forms:
    """Return the forms of a patch convolution. Its input is channels-first with `images` and channels-last without."""
    return (
        Forms(PatchConvKernel(images=images), PatchConvKernel(bf16=True, images=images)) if uses_kernels() else NO_FORMS
    )


def layer_norm_forms() -> Forms:
    """Return the forms of layer normalisation over channels."""
    if uses_kernels():
        return Forms(LayerNormKernel())
    return Forms(ProductLayerNorm()) if is_on_cpu() else NO_FORMS


def depthwise_class(usual: type[nn.Cell]) -> type[nn.Cell]:
    """Return the class of a depthwise convolution: the Fourier form on CPU and `usual` on other devices."""
    return FourierDepthwiseConv if is_on_cpu() else usual


def visible_encoder_class() -> Optional[type[VisibleEncoder]]:
    """The class of the form of FCMAE's encoder that computes visible patches only, or None."""
    return VisibleEncoder if uses_kernels() else None
