"""ConvNeXt and ConvNeXt V2.

Images are [N, C, H, W]. Inside the network, feature maps are channels-last, [N, H, W, C] (decision 0006).

Sources: "A ConvNet for the 2020s", arXiv 2201.03545, and "ConvNeXt V2: Co-designing and Scaling ConvNets with Masked
Autoencoders", arXiv 2301.00808.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any, Optional

import mindspore as ms
from mindspore import Parameter, nn, ops
from mindspore.common.initializer import initializer

from mindcv.models.feature_info import FeatureInfo
from mindcv.models.layers import (
    GELU,
    GRN,
    BaseNetwork,
    Block,
    ChannelsFirst,
    ChannelsLast,
    Dense,
    DepthwiseConv,
    Dropout,
    DropPath,
    GlobalAvgPool,
    KeepPath,
    LayerNorm,
    PatchConv,
    SampleCounter,
    Section,
    StemConv,
)
from mindcv.models.parameter_roles import ParameterRole, feature_roles, roles_in
from mindcv.models.pretrained import load_pretrained
from mindcv.models.registry import register_model
from mindcv.utils.checks import check_flags, check_int, check_ints, check_number
from mindcv.utils.errors import UnknownKeywordError, UserError, unknown_name

__all__ = ["ConvNeXt", "ConvNeXtBlock", "ConvNeXtV2Block"]  # register_model adds the variants


class ConvNeXtBlock(Block):
    """The block of ConvNeXt on [N, H, W, C].

    It consists of a 7x7 depthwise convolution, a LayerNorm, a two-layer perceptron per pixel, and LayerScale. The
    result is added to the input.

    Args:
        dim: number of channels C.
        drop_path: `DropPath` or `KeepPath`, applied to the branch.
        layer_scale_init_value: initial value of LayerScale, the scale per channel.
    """

    def __init__(self, dim: int, drop_path: nn.Cell, layer_scale_init_value: float = 1e-6):
        super().__init__(version=1)
        self.dwconv = DepthwiseConv(dim, kernel_size=7)
        self.norm = LayerNorm(dim)
        self.pwconv1 = Dense(dim, 4 * dim)
        self.act = GELU()
        self.pwconv2 = Dense(4 * dim, dim)
        self.gamma_ = Parameter(initializer(layer_scale_init_value, (dim,), ms.float32), name="gamma_")
        self.drop_path = drop_path

    def forward(self, x):  # [N, H, W, C]
        shortcut = x
        x = self.dwconv(x)
        x = self.norm(x)
        x = self.pwconv1(x)  # [N, H, W, 4C]
        x = self.act(x)
        x = self.pwconv2(x)  # [N, H, W, C]
        x = x * ops.cast(self.gamma_, x.dtype)
        return shortcut + self.drop_path(x)

    def named_weights(self):
        return {
            "dwconv.weight": self.dwconv.weight,
            "dwconv.bias": self.dwconv.bias,
            "norm.gamma": self.norm.gamma,
            "norm.beta": self.norm.beta,
            "pwconv1.weight": self.pwconv1.weight,
            "pwconv1.bias": self.pwconv1.bias,
            "pwconv2.weight": self.pwconv2.weight,
            "pwconv2.bias": self.pwconv2.bias,
            "gamma_": self.gamma_,
        }


class ConvNeXtV2Block(Block):
    """The block of ConvNeXt V2 on [N, H, W, C]. It has GRN after GELU and no LayerScale.

    Args:
        dim: number of channels C.
        drop_path: `DropPath` or `KeepPath`, applied to the branch.
    """

    def __init__(self, dim: int, drop_path: nn.Cell):
        super().__init__(version=2)
        self.dwconv = DepthwiseConv(dim, kernel_size=7)
        self.norm = LayerNorm(dim)
        self.pwconv1 = Dense(dim, 4 * dim)
        self.act = GELU()
        self.grn = GRN(4 * dim)
        self.pwconv2 = Dense(4 * dim, dim)
        self.drop_path = drop_path

    def forward(self, x):  # [N, H, W, C]
        shortcut = x
        x = self.dwconv(x)
        x = self.norm(x)
        x = self.pwconv1(x)  # [N, H, W, 4C]
        x = self.act(x)
        x = self.grn(x)
        x = self.pwconv2(x)  # [N, H, W, C]
        return shortcut + self.drop_path(x)

    def named_weights(self):
        return {
            "dwconv.weight": self.dwconv.weight,
            "dwconv.bias": self.dwconv.bias,
            "norm.gamma": self.norm.gamma,
            "norm.beta": self.norm.beta,
            "pwconv1.weight": self.pwconv1.weight,
            "pwconv1.bias": self.pwconv1.bias,
            "grn.gamma": self.grn.gamma,
            "grn.beta": self.grn.beta,
            "pwconv2.weight": self.pwconv2.weight,
            "pwconv2.bias": self.pwconv2.bias,
        }


class ConvNeXt(BaseNetwork):
    """ConvNeXt or ConvNeXt V2: a stem, four stages with downsampling layers between them, and a pooled linear head.

    The network maps images [N, in_channels, H, W] to logits [N, num_classes]. H and W are at least 8 * patch_size, the
    reduction R of the last stage, which is 32 by default.

    Args:
        in_channels: number of channels of the images.
        num_classes: number of classes of the head. 0 gives a network without a head, which returns the pooled features
            [N, dims[3]].
        depths: number of blocks in each of the four stages.
        dims: number of channels in each of the four stages.
        use_grn: whether to use the blocks of V2 instead of those of V1.
        drop_path_rate: rate of stochastic depth at the last block, in [0, 1). The rate grows linearly from 0 at the
            first block.
        drop_rate: dropout rate before the head, in [0, 1).
        layer_scale_init_value: initial value of LayerScale in the blocks of V1. V2 ignores it.
        head_init_scale: factor on the head's initial weight. The papers use 0.001 for fine-tuning.
        recompute_stages: stages, 0 to 3, whose blocks use gradient checkpointing: the backward pass computes their
            activations again instead of keeping them.
        seed: seed of stochastic depth and dropout.
        global_pool: 'avg' for pooled features. '' needs num_classes 0 and makes the network return the normalised map
            [N, dims[3], H // R, W // R].
        patch_size: kernel size and stride of the stem. 4 is that of the papers; 2 suits images of 32 to 64 pixels.
            Unlike timm, 2 adds no downsampling layer before the first stage (decision 0007).

    Parameter names are MindCV's: `feature.0` is the stem, `feature.2S` the downsampling layer before stage S, and
    `feature.2S+1` stage S.

    Raises:
        UserError: an argument has a wrong type or is out of its range.
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 1000,
        depths: Sequence[int] = (3, 3, 9, 3),
        dims: Sequence[int] = (96, 192, 384, 768),
        use_grn: bool = False,
        drop_path_rate: float = 0.0,
        drop_rate: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        head_init_scale: float = 1.0,
        recompute_stages: Sequence[int] = (),
        seed: int = 0,
        global_pool: str = "avg",
        patch_size: int = 4,
    ):
        super().__init__()
        self.in_channels = in_channels = check_int("in_channels", in_channels, 1)
        self.patch_size = patch_size = check_int("patch_size", patch_size, 1)
        depths, dims = check_ints("depths", depths, 4, 1), check_ints("dims", dims, 4, 1)
        check_flags(use_grn=use_grn)
        check_number("drop_path_rate", drop_path_rate, low=0, below=1)
        check_number("drop_rate", drop_rate, low=0, below=1)
        check_number("layer_scale_init_value", layer_scale_init_value)
        recompute_stages = check_ints("recompute_stages", recompute_stages, low=0, high=3)
        check_int("seed", seed)
        self.global_pool = global_pool
        self.num_features = dims[-1]
        is_random = drop_path_rate > 0 or drop_rate > 0
        self.sample_counter = SampleCounter() if is_random else nn.Identity()

        def make_block(index: int, dim: int) -> nn.Cell:
            rate = drop_path_rate * index / max(sum(depths) - 1, 1)
            drop_path = DropPath(rate, index, seed, self.sample_counter.count) if rate > 0 else KeepPath()
            return ConvNeXtV2Block(dim, drop_path) if use_grn else ConvNeXtBlock(dim, drop_path, layer_scale_init_value)

        feature = [Section(StemConv(in_channels, dims[0], kernel_size=patch_size), LayerNorm(dims[0]))]
        for stage, (dim, depth) in enumerate(zip(dims, depths)):
            if stage > 0:
                feature.append(Section(LayerNorm(dims[stage - 1]), PatchConv(dims[stage - 1], dim, 2)))
            first = sum(depths[:stage])
            feature.append(Section([make_block(first + i, dim) for i in range(depth)]))
        self.feature = nn.SequentialCell(feature)
        self.feature_info = FeatureInfo(
            {"name": f"feature.{2 * stage + 1}", "chs": dim, "reduction": patch_size * 2**stage}
            for stage, dim in enumerate(dims)
        )
        self.least_side = self.feature_info[-1]["reduction"]

        self.norm = LayerNorm(dims[-1])
        count = self.sample_counter.count if is_random else None
        self.dropout = Dropout(drop_rate, sum(depths), seed, count) if drop_rate > 0 else nn.Identity()
        self.reset_classifier(num_classes, head_init_scale, global_pool)
        if is_random:
            # MindSpore has named the shared counter after the last layer that reads it.
            self.sample_counter.count.name = "sample_counter.count"
        for stage in recompute_stages:
            for block in self.feature[2 * stage + 1]:
                block.recompute()

    def reset_classifier(
        self, num_classes: int, head_init_scale: float = 1.0, global_pool: Optional[str] = None
    ) -> None:
        """Replace the head by a new one with random weights, which needs training.

        Args:
            num_classes: number of classes of the new head. 0 removes the head.
            head_init_scale: factor on the initial weight of the head.
            global_pool: 'avg' or '' (see the class). None keeps the present value.

        Raises:
            UserError: `num_classes` is not a whole number of at least 0, or the pooling is unknown.
        """
        num_classes = check_int("num_classes", num_classes, 0, note=" (0 removes the head)")
        check_number("head_init_scale", head_init_scale, low=0)
        global_pool = self.global_pool if global_pool is None else global_pool
        if global_pool not in ("avg", ""):
            raise UserError(unknown_name("global_pool", str(global_pool), ("avg", "''")))
        if not global_pool and num_classes:
            raise UserError(f"global_pool '' makes the network return a map and needs num_classes 0, not {num_classes}")
        self.num_classes, self.global_pool = num_classes, global_pool
        self.pool = GlobalAvgPool() if global_pool else ChannelsLast()
        self.unpool = nn.Identity() if global_pool else ChannelsFirst()
        if num_classes == 0:
            self.classifier = nn.Identity()
            return
        self.classifier = Dense(self.num_features, num_classes, weight_std=0.02 * head_init_scale)
        self.classifier.update_parameters_name("classifier.")

    def get_classifier(self) -> nn.Cell:
        """Return the head, or an `nn.Identity` if the network has none."""
        return self.classifier

    def parameter_roles(self) -> dict[str, ParameterRole]:
        """Return the role of each parameter by name: its part, stage and block, and whether weight decay applies."""
        roles = feature_roles(self.feature)
        roles.update(roles_in(self.norm, "last norm"))
        roles.update(roles_in(self.classifier, "head"))
        # The random layers inside the blocks share the counter, so its role is set last.
        roles.update(roles_in(self.sample_counter, "state"))
        return roles

    def forward_features(self, x):
        """Return the map of the last stage, [N, dims[3], H // R, W // R], for images [N, C, H, W]."""
        x = self.sample_counter(self.prepare(x))
        x = self.feature(x)  # channels-last from the stem on
        return ops.transpose(x, (0, 3, 1, 2))

    def forward_head(self, x, pre_logits: bool = False):
        """Return the logits [N, num_classes] for the map [N, dims[3], h, w] of the last stage.

        With `pre_logits`, or without a head, the result is the input of the head: the normalised features [N, dims[3]],
        or the normalised map if `global_pool` is ''.
        """
        x = self.pool(x)  # [N, dims[3]]; without pooling [N, h, w, dims[3]]
        x = self.unpool(self.norm(x))
        if pre_logits:
            return x
        return self.classifier(self.dropout(x))

    def construct(self, x):
        return self.forward_head(self.forward_features(x))


# The arguments of a variant that its entry function passes on.
_KEYWORDS = set(signature(ConvNeXt).parameters) - {"in_channels", "num_classes", "depths", "dims", "use_grn"}


def _build(
    name: str,
    pretrained: bool,
    num_classes: int,
    in_channels: int,
    depths: Sequence[int],
    width: int,
    kwargs: Mapping[str, Any],
    use_grn: bool = False,
) -> ConvNeXt:
    """Create a variant with `width` channels in the first stage and twice as many in each further stage."""
    for keyword in kwargs:
        if keyword not in _KEYWORDS:
            raise UnknownKeywordError(name, keyword, ["pretrained", "num_classes", "in_channels", *_KEYWORDS])
    dims = [width * 2**stage for stage in range(4)]
    network = ConvNeXt(in_channels, num_classes, depths, dims, use_grn, **kwargs)
    if pretrained:
        load_pretrained(network, name)
    return network


@register_model
def convnext_atto(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt atto."""
    return _build("convnext_atto", pretrained, num_classes, in_channels, (2, 2, 6, 2), 40, kwargs)


@register_model
def convnext_femto(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt femto."""
    return _build("convnext_femto", pretrained, num_classes, in_channels, (2, 2, 6, 2), 48, kwargs)


@register_model
def convnext_pico(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt pico."""
    return _build("convnext_pico", pretrained, num_classes, in_channels, (2, 2, 6, 2), 64, kwargs)


@register_model
def convnext_nano(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt nano."""
    return _build("convnext_nano", pretrained, num_classes, in_channels, (2, 2, 8, 2), 80, kwargs)


@register_model
def convnext_tiny(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt tiny."""
    return _build("convnext_tiny", pretrained, num_classes, in_channels, (3, 3, 9, 3), 96, kwargs)


@register_model
def convnext_small(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt small."""
    return _build("convnext_small", pretrained, num_classes, in_channels, (3, 3, 27, 3), 96, kwargs)


@register_model
def convnext_base(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt base."""
    return _build("convnext_base", pretrained, num_classes, in_channels, (3, 3, 27, 3), 128, kwargs)


@register_model
def convnext_large(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt large."""
    return _build("convnext_large", pretrained, num_classes, in_channels, (3, 3, 27, 3), 192, kwargs)


@register_model
def convnext_xlarge(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt xlarge."""
    return _build("convnext_xlarge", pretrained, num_classes, in_channels, (3, 3, 27, 3), 256, kwargs)


@register_model
def convnextv2_atto(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt V2 atto."""
    return _build("convnextv2_atto", pretrained, num_classes, in_channels, (2, 2, 6, 2), 40, kwargs, use_grn=True)


@register_model
def convnextv2_femto(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt V2 femto."""
    return _build("convnextv2_femto", pretrained, num_classes, in_channels, (2, 2, 6, 2), 48, kwargs, use_grn=True)


@register_model
def convnextv2_pico(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt V2 pico."""
    return _build("convnextv2_pico", pretrained, num_classes, in_channels, (2, 2, 6, 2), 64, kwargs, use_grn=True)


@register_model
def convnextv2_nano(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt V2 nano."""
    return _build("convnextv2_nano", pretrained, num_classes, in_channels, (2, 2, 8, 2), 80, kwargs, use_grn=True)


@register_model
def convnextv2_tiny(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt V2 tiny."""
    return _build("convnextv2_tiny", pretrained, num_classes, in_channels, (3, 3, 9, 3), 96, kwargs, use_grn=True)


@register_model
def convnextv2_small(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt V2 small."""
    return _build("convnextv2_small", pretrained, num_classes, in_channels, (3, 3, 27, 3), 96, kwargs, use_grn=True)


@register_model
def convnextv2_base(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt V2 base."""
    return _build("convnextv2_base", pretrained, num_classes, in_channels, (3, 3, 27, 3), 128, kwargs, use_grn=True)


@register_model
def convnextv2_large(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt V2 large."""
    return _build("convnextv2_large", pretrained, num_classes, in_channels, (3, 3, 27, 3), 192, kwargs, use_grn=True)


@register_model
def convnextv2_huge(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt V2 huge."""
    return _build("convnextv2_huge", pretrained, num_classes, in_channels, (3, 3, 27, 3), 352, kwargs, use_grn=True)
