"""Objects of a probe and of the extraction of features, built from a configuration."""

from __future__ import annotations

from collections.abc import Callable

from mindspore import nn

from mindcv.config import RunConfig, ValidateConfig
from mindcv.convert import CheckpointContents, fill_weights
from mindcv.data import ImageDataset, ImageLoader
from mindcv.engine import apply_amp
from mindcv.engine.features import Features
from mindcv.engine.probe import ProbeResult, check_training_images, knn_probe, linear_probe
from mindcv.models import pack_for_inference
from mindcv.recipe_data import build_evaluation_loader, build_probe_training_loader
from mindcv.recipe_weights import build_model
from mindcv.utils.distributed import Group

__all__ = ["build_backbone", "build_feature_network", "build_probe_loaders", "run_probe"]

_Data = tuple[ImageDataset, ImageLoader]


def build_feature_network(config: RunConfig, read_weights: Callable[[], CheckpointContents]) -> nn.Cell:
    """Build the network that maps images [N, C, H, W] to pooled and normalized features [N, `num_features`].

    Args:
        config: of the run.
        read_weights: function that reads the weights, as `open_backbone_weights` returns it.
    """
    network = apply_amp(build_backbone(config, read_weights), config.val_amp_level, dtype=config.amp_dtype)
    return pack_for_inference(network, keep_weights=False).set_train(False)


def build_backbone(config: RunConfig, read_weights: Callable[[], CheckpointContents]) -> nn.Cell:
    """Build a network without a head from the weights of a backbone. See `build_feature_network`."""
    network = build_model(config, num_classes=0)
    # The new last norm has the scale 1 and the shift 0. It stays when the checkpoint has none (decision 0083).
    fill_weights(network, read_weights(), config.ckpt_path or config.model, replace_head=True)
    return network


def build_probe_loaders(config: ValidateConfig, group: Group, recorded_digest: str) -> tuple[_Data, _Data]:
    """Build the training and the validation images of a probe. The classes are those of the training images.

    Args:
        config: of the run.
        group: the processes that share the images.
        recorded_digest: see `build_evaluation_loader`.

    Raises:
        UserError: there are too few training images, or they are the validation images.
        DataError: the images are not there, cannot be read, or are of other classes.
    """
    dataset, loader = build_probe_training_loader(config, group)
    check_training_images(config.probe, dataset.labels, config.probe_k)
    return (dataset, loader), build_evaluation_loader(config, group, dataset.class_to_idx, recorded_digest)


def run_probe(config: ValidateConfig, training: Features, validation: Features, num_classes: int) -> ProbeResult:
    """Run the probe that the configuration names."""
    if config.probe == "knn":
        return knn_probe(training, validation, num_classes, config.probe_k)
    return linear_probe(training, validation, num_classes)
