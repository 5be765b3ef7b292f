"""ConvNeXt and ConvNeXt V2.

"A ConvNet for the 2020s", arXiv 2201.03545; "ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders",
arXiv 2301.00808. Images come in as [N, C, H, W]; inside, feature maps are channels-last, [N, H, W, C].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

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
from mindcv.utils.errors import UserError, unknown_name

__all__ = ["ConvNeXt", "ConvNeXtBlock", "ConvNeXtV2Block"]  # register_model adds the variants


class ConvNeXtBlock(Block):
    """7x7 depthwise convolution, then a two-layer perceptron per pixel, scaled per channel and added to x."""

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
    """The block of V2: global response normalisation of the wide map takes the place of the scale."""

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
    """ConvNeXt: a stem, four stages of blocks with downsampling between them, a pooled linear head.

    Args:
        in_channels: channels of the images.
        num_classes: width of the head; 0 leaves the head out, so that the network gives the pooled features.
        depths: blocks of each of the four stages.
        dims: channels of each of the four stages.
        use_grn: V2's blocks instead of V1's.
        drop_path_rate: rate of stochastic depth at the last block; it grows linearly from 0 at the first.
        drop_rate: dropout before the head.
        layer_scale_init_value: where V1's scale per channel starts. V2 has none.
        head_init_scale: factor on the head's initial weight (0.001 for fine-tuning in the papers).
        recompute_stages: stages (0 to 3) whose blocks are computed again in the backward pass instead of kept.
        seed: of the random drops.
        global_pool: 'avg', or '' with num_classes 0 for the normalised map [N, dims[3], H / 32, W / 32].

    Parameter names are MindCV's: `feature.0` is the stem, `feature.2S` the downsampling before stage S,
    `feature.2S+1` stage S.
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
    ):
        super().__init__()
        self.in_channels = in_channels = check_int("in_channels", in_channels, 1)
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

        feature = [Section(StemConv(in_channels, dims[0], kernel_size=4), LayerNorm(dims[0]))]
        for stage, (dim, depth) in enumerate(zip(dims, depths)):
            if stage > 0:
                feature.append(Section(LayerNorm(dims[stage - 1]), PatchConv(dims[stage - 1], dim, 2)))
            first = sum(depths[:stage])
            feature.append(Section([make_block(first + i, dim) for i in range(depth)]))
        self.feature = nn.SequentialCell(feature)
        self.feature_info = FeatureInfo(
            {"name": f"feature.{2 * stage + 1}", "chs": dim, "reduction": 4 * 2**stage}
            for stage, dim in enumerate(dims)
        )
        self.least_side = self.feature_info[-1]["reduction"]

        self.norm = LayerNorm(dims[-1])
        count = self.sample_counter.count if is_random else None
        self.dropout = Dropout(drop_rate, sum(depths), seed, count) if drop_rate > 0 else nn.Identity()
        self.reset_classifier(num_classes, head_init_scale, global_pool)
        if is_random:
            # Sharing the counter with its readers gave it the path of the last one.
            self.sample_counter.count.name = "sample_counter.count"
        for stage in recompute_stages:
            for block in self.feature[2 * stage + 1]:
                block.recompute()

    def reset_classifier(
        self, num_classes: int, head_init_scale: float = 1.0, global_pool: Optional[str] = None
    ) -> None:
        """Put a new, untrained head of `num_classes` in; 0 takes the head away.

        Args:
            num_classes: width of the head.
            head_init_scale: factor on its initial weight.
            global_pool: 'avg' or '', see the class; None leaves it as it is.

        Raises:
            UserError: a number that is not a whole one of at least 0, or an unknown pooling.
        """
        num_classes = check_int("num_classes", num_classes, 0, note=" (0 takes the head away)")
        check_number("head_init_scale", head_init_scale, low=0)
        global_pool = self.global_pool if global_pool is None else global_pool
        if global_pool not in ("avg", ""):
            raise UserError(unknown_name("global_pool", str(global_pool), ("avg", "''")))
        if not global_pool and num_classes:
            raise UserError(f"global_pool '' gives a map and goes with num_classes 0, not {num_classes}")
        self.num_classes, self.global_pool = num_classes, global_pool
        self.pool = GlobalAvgPool() if global_pool else ChannelsLast()
        self.unpool = nn.Identity() if global_pool else ChannelsFirst()
        if num_classes == 0:
            self.classifier = nn.Identity()
            return
        self.classifier = Dense(self.num_features, num_classes, weight_std=0.02 * head_init_scale)
        self.classifier.update_parameters_name("classifier.")

    def get_classifier(self) -> nn.Cell:
        """The head; an `nn.Identity` where there is none."""
        return self.classifier

    def parameter_roles(self) -> dict[str, ParameterRole]:
        """What each parameter is, by name: its part, stage and block, and whether weight decay applies to it."""
        roles = feature_roles(self.feature)
        roles.update(roles_in(self.norm, "last norm"))
        roles.update(roles_in(self.classifier, "head"))
        roles.update(roles_in(self.sample_counter, "state"))  # the random layers inside of the blocks share the counter
        return roles

    def forward_features(self, x):
        """Images [N, C, H, W] to the last stage's map [N, dims[3], H / 32, W / 32]."""
        x = self.sample_counter(self.prepare(x))
        x = self.feature(x)  # channels last from the stem on
        return ops.transpose(x, (0, 3, 1, 2))

    def forward_head(self, x, pre_logits: bool = False):
        """The last map [N, dims[3], h, w] to logits [N, num_classes], or to the pooled, normalised [N, dims[3]]."""
        x = self.pool(x)  # [N, dims[3]]; without pooling [N, h, w, dims[3]]
        x = self.unpool(self.norm(x))
        if pre_logits:
            return x
        return self.classifier(self.dropout(x))

    def construct(self, x):
        return self.forward_head(self.forward_features(x))


def _build(
    name: str, pretrained: bool, num_classes: int, in_channels: int, depths: Sequence[int], width: int, **kwargs
) -> ConvNeXt:
    """The network of a variant: `width` channels in the first stage, and twice as many in each further one."""
    dims = [width * 2**stage for stage in range(4)]
    network = ConvNeXt(in_channels, num_classes, depths, dims, **kwargs)
    if pretrained:
        load_pretrained(network, name)
    return network


@register_model
def convnext_atto(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt atto."""
    return _build("convnext_atto", pretrained, num_classes, in_channels, (2, 2, 6, 2), 40, **kwargs)


@register_model
def convnext_femto(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt femto."""
    return _build("convnext_femto", pretrained, num_classes, in_channels, (2, 2, 6, 2), 48, **kwargs)


@register_model
def convnext_pico(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt pico."""
    return _build("convnext_pico", pretrained, num_classes, in_channels, (2, 2, 6, 2), 64, **kwargs)


@register_model
def convnext_nano(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt nano."""
    return _build("convnext_nano", pretrained, num_classes, in_channels, (2, 2, 8, 2), 80, **kwargs)


@register_model
def convnext_tiny(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt tiny."""
    return _build("convnext_tiny", pretrained, num_classes, in_channels, (3, 3, 9, 3), 96, **kwargs)


@register_model
def convnext_small(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt small."""
    return _build("convnext_small", pretrained, num_classes, in_channels, (3, 3, 27, 3), 96, **kwargs)


@register_model
def convnext_base(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt base."""
    return _build("convnext_base", pretrained, num_classes, in_channels, (3, 3, 27, 3), 128, **kwargs)


@register_model
def convnext_large(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt large."""
    return _build("convnext_large", pretrained, num_classes, in_channels, (3, 3, 27, 3), 192, **kwargs)


@register_model
def convnext_xlarge(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt xlarge."""
    return _build("convnext_xlarge", pretrained, num_classes, in_channels, (3, 3, 27, 3), 256, **kwargs)


@register_model
def convnextv2_atto(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt V2 atto."""
    return _build("convnextv2_atto", pretrained, num_classes, in_channels, (2, 2, 6, 2), 40, use_grn=True, **kwargs)


@register_model
def convnextv2_femto(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt V2 femto."""
    return _build("convnextv2_femto", pretrained, num_classes, in_channels, (2, 2, 6, 2), 48, use_grn=True, **kwargs)


@register_model
def convnextv2_pico(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt V2 pico."""
    return _build("convnextv2_pico", pretrained, num_classes, in_channels, (2, 2, 6, 2), 64, use_grn=True, **kwargs)


@register_model
def convnextv2_nano(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt V2 nano."""
    return _build("convnextv2_nano", pretrained, num_classes, in_channels, (2, 2, 8, 2), 80, use_grn=True, **kwargs)


@register_model
def convnextv2_tiny(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt V2 tiny."""
    return _build("convnextv2_tiny", pretrained, num_classes, in_channels, (3, 3, 9, 3), 96, use_grn=True, **kwargs)


@register_model
def convnextv2_small(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt V2 small."""
    return _build("convnextv2_small", pretrained, num_classes, in_channels, (3, 3, 27, 3), 96, use_grn=True, **kwargs)


@register_model
def convnextv2_base(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt V2 base."""
    return _build("convnextv2_base", pretrained, num_classes, in_channels, (3, 3, 27, 3), 128, use_grn=True, **kwargs)


@register_model
def convnextv2_large(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt V2 large."""
    return _build("convnextv2_large", pretrained, num_classes, in_channels, (3, 3, 27, 3), 192, use_grn=True, **kwargs)


@register_model
def convnextv2_huge(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs) -> ConvNeXt:
    """ConvNeXt V2 huge."""
    return _build("convnextv2_huge", pretrained, num_classes, in_channels, (3, 3, 27, 3), 352, use_grn=True, **kwargs)
