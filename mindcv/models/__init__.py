"""ConvNeXt and ConvNeXt V2, with a registry and a factory of models."""

from mindcv.models import convnext, fcmae
from mindcv.models.convnext import *  # noqa: F403  (its __all__ is the list of entry functions)
from mindcv.models.fcmae import *  # noqa: F403  (as above)
from mindcv.models.features import ConvNeXtFeatures
from mindcv.models.model_factory import create_model
from mindcv.models.packing import pack_for_inference
from mindcv.models.pretrained import list_pretrained_tags
from mindcv.models.registry import (
    get_pretrained_cfg,
    get_pretrained_cfg_value,
    has_pretrained_cfg_key,
    is_model,
    is_model_in_modules,
    is_model_pretrained,
    list_models,
    list_modules,
    model_entrypoint,
    register_model,
)

__all__ = [
    "ConvNeXtFeatures",
    "create_model",
    "get_pretrained_cfg",
    "get_pretrained_cfg_value",
    "has_pretrained_cfg_key",
    "is_model",
    "is_model_in_modules",
    "is_model_pretrained",
    "list_models",
    "list_modules",
    "list_pretrained_tags",
    "model_entrypoint",
    "pack_for_inference",
    "register_model",
    *convnext.__all__,
    *fcmae.__all__,
]
