"""FCMAE, the fully convolutional masked autoencoder that pre-trains ConvNeXt V2.

"ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders", arXiv 2301.00808, section 3. Patches of an
image are removed, the encoder sees the others, and a small decoder predicts the pixels of the removed ones.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Optional, Union

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import Normal, initializer

from mindcv.convert import backbone_name, is_pretraining_name, pretraining_name
from mindcv.models.convnext import ConvNeXt, ConvNeXtV2Block
from mindcv.models.layers import BaseNetwork, Dense, KeepPath
from mindcv.models.layers.image_check import check_mask, check_mask_in_graph
from mindcv.models.layers.masked import GRN_SCOPES, MaskedEncoder
from mindcv.models.parameter_roles import ParameterRole, feature_roles, roles_in
from mindcv.models.pretrained import load_pretrained
from mindcv.models.registry import model_entrypoint, register_model
from mindcv.utils.checks import check_flags, check_int, check_ints, check_name, shown
from mindcv.utils.errors import UnknownKeywordError, UserError
from mindcv.utils.logger import logger
from mindcv.utils.patch_masks import num_visible_patches, random_mask

__all__ = ["FCMAE", "random_mask"]  # register_model adds the variants

_VARIANCE_FLOOR = 1e-6


class FCMAE(BaseNetwork):
    """A masked autoencoder around the encoder of a ConvNeXt V2.

    Args:
        encoder: name of a ConvNeXt V2 of `list_models()`, or a `ConvNeXt`, whose stem and stages are used. A ConvNeXt
            (V1) is allowed too, with a warning: the paper finds that its features collapse without GRN.
        img_size: height and width of the images. Images of another multiple of the patch size are accepted as well.
        patch_size: height and width of a patch of the mask; a multiple of the encoder's reduction, which is 8 times
            the size of its stem's patches: 32 by default.
        mask_ratio: share of the patches that `random_mask` removes, above 0 and below 1.
        decoder_embed_dim: channels of the decoder.
        decoder_depth: number of the decoder's blocks.
        norm_pix_loss: predict the pixels of each patch less their mean, divided by their standard deviation.
        grn_scope: over which visible cells GRN takes the norm of a channel: those of one image ('sample'), or of all
            images of the batch ('batch'), as the official sparse code does. With 'batch' the numbers depend on how
            images are put into batches, so they differ between one process and several.
        in_channels: channels of the images.
        recompute_stages: stages (0 to 3) whose blocks are computed again in the backward pass instead of kept.
        stem_patch_size: kernel size and stride of the encoder's stem, which `ConvNeXt` calls `patch_size`. None means
            that of the encoder, which is 4 by default.

    Raises:
        UserError: an argument is out of its range, or the sizes do not fit each other.

    Parameter names: `encoder.` and the name in the ConvNeXt; `mask_token` [1, 1, 1, D]; `proj`, `decoder.i` and `pred`.
    """

    has_loss = True  # it maps (images, mask) to its loss, so training needs no other

    def __init__(
        self,
        encoder: Union[str, ConvNeXt] = "convnextv2_atto",
        img_size: int = 224,
        patch_size: int = 32,
        mask_ratio: float = 0.6,
        decoder_embed_dim: int = 512,
        decoder_depth: int = 1,
        norm_pix_loss: bool = True,
        grn_scope: str = "sample",
        in_channels: int = 3,
        recompute_stages: Sequence[int] = (),
        stem_patch_size: Optional[int] = None,
    ):
        super().__init__()
        check_flags(norm_pix_loss=norm_pix_loss)
        check_name("grn_scope", grn_scope, GRN_SCOPES)
        check_int("decoder_embed_dim", decoder_embed_dim, 1)
        check_int("decoder_depth", decoder_depth, 0)
        backbone = _backbone(encoder, in_channels, stem_patch_size)
        reductions = tuple(stage["reduction"] for stage in backbone.feature_info)
        self.img_size, self.patch_size = _checked_sizes(img_size, patch_size, reductions[-1])
        self.num_patches = (self.img_size // self.patch_size) ** 2
        self.mask_ratio = mask_ratio
        self.num_visible = num_visible_patches(self.num_patches, mask_ratio)
        self.norm_pix_loss = norm_pix_loss
        self.in_channels = backbone.in_channels
        self.least_side = self.patch_size
        recomputed = check_ints("recompute_stages", recompute_stages, low=0, high=3)
        self.encoder = MaskedEncoder(backbone.feature, reductions, self.patch_size, grn_scope, recomputed)
        self.encoder.update_parameters_name("encoder.")

        width = decoder_embed_dim
        self.proj = Dense(backbone.num_features, width)
        self.mask_token = Parameter(initializer(Normal(0.02), (1, 1, 1, width), ms.float32), name="mask_token")
        self.decoder = nn.SequentialCell([ConvNeXtV2Block(width, KeepPath()) for _ in range(decoder_depth)])
        self.pred = Dense(width, reductions[-1] ** 2 * self.in_channels)  # a cell predicts its own pixels

    def check_inputs(self, images: Tensor, mask: Optional[Tensor] = None) -> None:
        """As `BaseNetwork`. The values of the mask are checked as well, which a compiled graph cannot do."""
        super().check_inputs(images)
        check_mask(images.shape, mask, self.patch_size)

    def construct(self, images, mask):
        """Predict the pixels of the removed patches.

        Args:
            images: [N, C, H, W], normalised.
            mask: float32 [N, L], 1 for a removed patch and 0 for a visible one; patches are numbered row by row.

        Returns:
            The loss, a scalar: the mean squared error of a patch, averaged over the removed patches; and the predicted
            patches [N, L, patch_size * patch_size * C], whose values are ordered by row, column and channel.
        """
        features = self.forward_encoder(images, mask)
        pred = self.forward_decoder(features, mask)
        return self.forward_loss(images, pred, mask), pred

    def forward_encoder(self, images, mask):
        """Images [N, C, H, W] and mask [N, L] to the last map [N, H / R, W / R, C], 0 at removed cells.

        R is the encoder's reduction.
        """
        images = self.prepare(images)
        check_mask_in_graph(images.shape, mask, self.patch_size)
        return self.encoder(images, self.as_grid(images, mask))

    def forward_decoder(self, features, mask):
        """The encoder's map to the predicted patches [N, L, patch_size * patch_size * C]."""
        x = self.proj(features)  # [N, S * p, T * p, D]
        n, height, width, _ = x.shape
        side = self.encoder.cells_per_patch[-1]
        removed = ops.reshape(mask, (n, height // side, 1, width // side, 1))
        removed = ops.broadcast_to(removed, (n, height // side, side, width // side, side))
        removed = ops.cast(ops.reshape(removed, (n, height, width, 1)), x.dtype)
        x = x * (1.0 - removed) + ops.cast(self.mask_token, x.dtype) * removed
        x = self.pred(self.decoder(x))  # [N, S * p, T * p, pixels of a cell]
        return self.join_cells(x, side)

    def join_cells(self, x, side):
        """The pixels of each cell [N, S * side, T * side, R * R * C] to those of each patch [N, S * T, ...]."""
        n, height, width, values = x.shape
        if side > 1:
            pixels = self.patch_size // side
            x = ops.reshape(x, (n, height // side, side, width // side, side, pixels, pixels, self.in_channels))
            x = ops.transpose(x, (0, 1, 3, 2, 5, 4, 6, 7))
        return ops.reshape(x, (n, height * width // side**2, values * side**2))

    def forward_loss(self, images, pred, mask):
        """The mean squared error of removed patches, in float32."""
        target = self.patchify(ops.cast(images, ms.float32))
        if self.norm_pix_loss:
            target = normalise_patches(target)
        error = ops.mean(ops.square(ops.cast(pred, ms.float32) - target), -1)  # [N, L]
        return ops.sum(error * mask) / ops.maximum(ops.sum(mask), 1.0)

    def patchify(self, images):
        """[N, C, H, W] to patches [N, L, patch_size * patch_size * C]; values by row, column and channel."""
        n, channels, height, width = images.shape
        size = self.patch_size
        x = ops.reshape(images, (n, channels, height // size, size, width // size, size))
        x = ops.transpose(x, (0, 2, 4, 3, 5, 1))  # [N, S, T, size, size, C]
        return ops.reshape(x, (n, -1, size * size * channels))

    def as_grid(self, images, mask):
        """Mask [N, L] to [N, S, T], where the image has S x T patches."""
        size = self.patch_size
        return ops.reshape(mask, (images.shape[0], images.shape[2] // size, images.shape[3] // size))

    def parameter_roles(self) -> dict[str, ParameterRole]:
        """What each parameter is, by name: its part, stage and block, and whether weight decay applies to it."""
        roles = feature_roles(self.encoder.feature)
        roles.update(roles_in(self.decoder, "decoder"))
        for cell in (self.proj, self.pred):
            roles.update(roles_in(cell, "head"))
        roles[self.mask_token.name] = ParameterRole("decoder")
        return roles


def normalise_patches(patches):
    """[N, L, D], each patch less its mean and divided by its deviation. The variance is the unbiased one, plus 1e-6."""
    centred = patches - ops.mean(patches, -1, keep_dims=True)
    variance = ops.sum(ops.square(centred), -1, keepdim=True) / (patches.shape[-1] - 1)
    return centred / ops.sqrt(variance + _VARIANCE_FLOOR)


def _backbone(encoder: Union[str, ConvNeXt], in_channels: int, stem_patch_size: Optional[int]) -> ConvNeXt:
    if isinstance(encoder, str):
        entrypoint = model_entrypoint(encoder)
        if is_pretraining_name(encoder):
            raise UserError(f"encoder must be a backbone, such as '{backbone_name(encoder)}', got '{encoder}'")
        size = {} if stem_patch_size is None else {"patch_size": check_int("stem_patch_size", stem_patch_size, 1)}
        encoder = entrypoint(num_classes=0, in_channels=in_channels, **size)
    elif not isinstance(encoder, ConvNeXt):
        raise UserError(f"encoder must be the name of a ConvNeXt V2 or a ConvNeXt, got {shown(encoder)}")
    elif stem_patch_size not in (None, encoder.patch_size):
        raise UserError(
            f"stem_patch_size is {stem_patch_size}, but the stem of the encoder has patches of {encoder.patch_size}: "
            "leave stem_patch_size out"
        )
    if not any(name.endswith("grn.gamma") for name in encoder.parameters_dict()):
        logger.warning(
            "the encoder has no GRN: the paper (arXiv 2301.00808, section 4) finds that the features of a ConvNeXt "
            "without it collapse in masked pre-training, and a ConvNeXt V2 is better"
        )
    return encoder


def _checked_sizes(img_size: int, patch_size: int, reduction: int) -> tuple[int, int]:
    patch_size = check_int("patch_size", patch_size, 1)
    if patch_size % reduction:
        raise UserError(
            f"patch_size, which is that of the mask, must be a multiple of {reduction}, the encoder's reduction, got "
            f"{patch_size}; the patches of the stem are stem_patch_size"
        )
    img_size = check_int("img_size", img_size, patch_size)
    if img_size % patch_size:
        raise UserError(
            f"img_size must be a multiple of patch_size, {patch_size}, got {img_size}: the nearest are "
            f"{img_size // patch_size * patch_size} and {(img_size // patch_size + 1) * patch_size}"
        )
    return img_size, patch_size


_KEYWORDS = [name for name in inspect.signature(FCMAE).parameters if name not in ("encoder", "in_channels")]


def _fcmae(encoder: str, pretrained: bool, num_classes: int, in_channels: int, **kwargs) -> FCMAE:
    """The masked autoencoder of a variant.

    `num_classes` is that of the entry function. 1000, the default of `create_model`, means nothing too.
    """
    name = pretraining_name(encoder)
    if num_classes not in (0, 1000):
        raise UserError(f"{name} has no classifier: leave num_classes out, or create {encoder}")
    for keyword in kwargs:
        if keyword not in _KEYWORDS:
            if keyword == "mask_patch_size":  # its name in pretrain.py, where patch_size is that of the stem
                raise UserError(f"{name}: give the option mask_patch_size of pretrain.py as patch_size")
            raise UnknownKeywordError(name, keyword, ["pretrained", "in_channels", *_KEYWORDS])
    network = FCMAE(encoder, in_channels=in_channels, **kwargs)
    if pretrained:
        load_pretrained(network, name)  # an error, since the published files hold encoders only
    return network


@register_model
def fcmae_convnextv2_atto(pretrained: bool = False, num_classes: int = 0, in_channels: int = 3, **kwargs) -> FCMAE:
    """FCMAE of ConvNeXt V2 atto."""
    return _fcmae("convnextv2_atto", pretrained, num_classes, in_channels, **kwargs)


@register_model
def fcmae_convnextv2_femto(pretrained: bool = False, num_classes: int = 0, in_channels: int = 3, **kwargs) -> FCMAE:
    """FCMAE of ConvNeXt V2 femto."""
    return _fcmae("convnextv2_femto", pretrained, num_classes, in_channels, **kwargs)


@register_model
def fcmae_convnextv2_pico(pretrained: bool = False, num_classes: int = 0, in_channels: int = 3, **kwargs) -> FCMAE:
    """FCMAE of ConvNeXt V2 pico."""
    return _fcmae("convnextv2_pico", pretrained, num_classes, in_channels, **kwargs)


@register_model
def fcmae_convnextv2_nano(pretrained: bool = False, num_classes: int = 0, in_channels: int = 3, **kwargs) -> FCMAE:
    """FCMAE of ConvNeXt V2 nano."""
    return _fcmae("convnextv2_nano", pretrained, num_classes, in_channels, **kwargs)


@register_model
def fcmae_convnextv2_tiny(pretrained: bool = False, num_classes: int = 0, in_channels: int = 3, **kwargs) -> FCMAE:
    """FCMAE of ConvNeXt V2 tiny."""
    return _fcmae("convnextv2_tiny", pretrained, num_classes, in_channels, **kwargs)


@register_model
def fcmae_convnextv2_small(pretrained: bool = False, num_classes: int = 0, in_channels: int = 3, **kwargs) -> FCMAE:
    """FCMAE of ConvNeXt V2 small."""
    return _fcmae("convnextv2_small", pretrained, num_classes, in_channels, **kwargs)


@register_model
def fcmae_convnextv2_base(pretrained: bool = False, num_classes: int = 0, in_channels: int = 3, **kwargs) -> FCMAE:
    """FCMAE of ConvNeXt V2 base."""
    return _fcmae("convnextv2_base", pretrained, num_classes, in_channels, **kwargs)


@register_model
def fcmae_convnextv2_large(pretrained: bool = False, num_classes: int = 0, in_channels: int = 3, **kwargs) -> FCMAE:
    """FCMAE of ConvNeXt V2 large."""
    return _fcmae("convnextv2_large", pretrained, num_classes, in_channels, **kwargs)


@register_model
def fcmae_convnextv2_huge(pretrained: bool = False, num_classes: int = 0, in_channels: int = 3, **kwargs) -> FCMAE:
    """FCMAE of ConvNeXt V2 huge."""
    return _fcmae("convnextv2_huge", pretrained, num_classes, in_channels, **kwargs)
