"""The configuration of each script, and how a command line becomes one."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, ClassVar, Optional, TypeVar

from mindcv.config.options import PREPROCESSING, RunConfig, option
from mindcv.config.parsing import used_options
from mindcv.config.reading import read_config
from mindcv.engine.heat_maps import EXPLANATIONS
from mindcv.engine.probe import PROBES
from mindcv.engine.views import TTA_MODES
from mindcv.export.metadata import EXPORT_FORMATS
from mindcv.models.layers.masked import GRN_SCOPES

__all__ = [
    "SCRIPT_CONFIGS",
    "AnalyzeConfig",
    "AverageConfig",
    "ExportConfig",
    "ExtractConfig",
    "InferConfig",
    "PretrainConfig",
    "TrainConfig",
    "ValidateAllConfig",
    "ValidateConfig",
    "ValidationConfig",
    "parse_args",
]

_output = partial(option, group="Results")
_measure = partial(option, group="Measurement")
_several = partial(option, group="Several checkpoints")
_probe = partial(option, group="Probe of frozen features")
_export = partial(option, group="Export")
_extract = partial(option, group="Extraction of features")
_analyze = partial(option, group="Analysis of features")
_explain = partial(option, group="Heat maps")


def _mask(help: str, default: Any, **bounds: Any) -> Any:
    return option(default, help, group="Masked pre-training", **bounds)


@dataclass
class TrainConfig(RunConfig):
    """Train a model: python train.py --config RECIPE.yaml [--option value ...]

    With resume, options that you leave out have the values of the interrupted run.
    """

    outputs: ClassVar[Sequence[str]] = ("ckpt_save_dir", "compile_cache_dir")
    script: ClassVar[str] = "train.py"

    def missing(self) -> list[str]:
        """See `RunConfig.missing`; the model of a run that is resumed is known."""
        return [] if self.resume or self.resume_opt else super().missing()

    def completed_later(self) -> Collection[str]:
        """See `RunConfig.completed_later`."""
        return used_options(TrainConfig) if self.resume or self.resume_opt else ()


@dataclass
class _WeightsConfig(RunConfig):
    """The scripts that compute with weights which exist already."""

    required: ClassVar[Mapping[str, str]] = {"ckpt_path": "required, unless pretrained is on"}

    def missing(self) -> list[str]:
        """See `RunConfig.missing`; the published weights of a model stand for a checkpoint."""
        told = super().missing()
        if self.pretrained:
            told = [problem for problem in told if not problem.startswith("ckpt_path: ")]
            return told if self.model else ["model: is required, since it names the published weights", *told]
        return told

    def completed_later(self) -> Collection[str]:
        """See `RunConfig.completed_later`."""
        return ("model", "num_classes", "patch_size", "val_fraction", "seed", "train_split", *PREPROCESSING)


def _required_with_weights(*names: str) -> Mapping[str, str]:
    """Return the required options of a script that needs weights and `names`, as in `RunConfig.required`."""
    return {**_WeightsConfig.required, **dict.fromkeys(names, "required")}


@dataclass
class ValidationConfig(_WeightsConfig):
    """The scripts that measure classifiers on validation images."""

    # fmt: off
    tta: str = _measure(
        "none", "test-time augmentation (TTA), which averages the probabilities of several views of an image: the "
        "image and its mirror image (flip), or these two of the four corners and the centre (ten_crop)",
        choices=TTA_MODES)
    real_labels: str = _measure(
        "", "JSON file real.json with the ReaL labels of ImageNet's validation images, on which the accuracy is "
        "measured as well")
    class_names_file: str = _measure("", "text file with the name of one class of the model in each line")
    restrict_classes: bool = _measure(
        False, "predict only classes that have images, as is usual for a data set with some of ImageNet's classes")
    # fmt: on


@dataclass
class ValidateConfig(ValidationConfig):
    """Measure a model on validation images: python validate.py --ckpt_path FILE --data_dir FOLDER [--option value ...]

    Options you leave out (model, number of classes, preprocessing) are read from the checkpoint, if it holds them, or
    from the table of published weights.
    """

    # fmt: off
    results_json: str = _output("", "JSON file to write the metrics to")
    per_class_csv: str = _output("", "CSV file to write the accuracy of each class to")
    confusion_matrix: str = _output("", "picture file to draw the confusion matrix to, for example confusion.png")
    reliability_plot: str = _output(
        "", "picture file for the reliability plot, which shows the accuracy at each confidence, for example "
        "reliability.png")
    confused_pairs: str = _output(
        "", "picture file for the ten pairs of classes that are confused most often, with images of each pair, for "
        "example confused.png")
    probe: Optional[str] = _probe(
        None, "probe that measures the features of a frozen backbone instead of the predictions of its classifier: "
        "nearest neighbours (knn) or a linear classifier (linear), which learn from train_split; None means no probe",
        choices=PROBES)
    probe_k: int = _probe(20, "number k of the nearest training images that vote in the probe knn", low=1)
    # fmt: on
    outputs: ClassVar[Sequence[str]] = (
        *("results_json", "per_class_csv", "confusion_matrix", "reliability_plot", "confused_pairs"),
    )
    script: ClassVar[str] = "validate.py"


_CHECKPOINTS = "checkpoint files: one or more files, folders or glob patterns"


@dataclass
class ValidateAllConfig(ValidationConfig):
    """Measure many checkpoints on the same images: python tools/validate_all.py --checkpoints FILES --data_dir FOLDER
    --results_csv results.csv [--option value ...]

    Options you leave out (model, number of classes, preprocessing) are read from each checkpoint, if it holds them, or
    from the table of published weights.
    """

    # fmt: off
    checkpoints: list[str] = _several(
        [], f"{_CHECKPOINTS} to measure; exported files, .onnx and .mindir, count as checkpoints", is_verbatim=True)
    models: list[str] = _several(
        [], "models of which all published weights with a classifier are measured: one or more names or patterns, for "
        "example convnextv2_*", is_verbatim=True)
    results_csv: str = _several("", "CSV file for the results, with a row for each checkpoint")
    repeat: str = _several(
        "none", "which rows of an earlier results file to repeat: none, those with an error (failed), or all",
        choices=("none", "failed", "all"))
    # fmt: on
    required: ClassVar[Mapping[str, str]] = {"results_csv": "required"}
    outputs: ClassVar[Sequence[str]] = ("results_csv",)
    script: ClassVar[str] = "tools/validate_all.py"

    def missing(self) -> list[str]:
        """See `RunConfig.missing`; checkpoints or models are required."""
        told = super().missing()
        if not self.checkpoints and not self.models:
            told.append("checkpoints: is required, unless models is given; give --checkpoints FILE or --models NAME")
        return told


@dataclass
class AverageConfig(ValidationConfig):
    """Average the weights of checkpoints: python tools/average.py --checkpoints FILES --dst mean.ckpt
    [--option value ...]

    Options you leave out (model, number of classes, preprocessing) are read from the checkpoints, if they hold them.
    """

    # fmt: off
    checkpoints: list[str] = _several([], f"{_CHECKPOINTS} to average", is_verbatim=True)
    dst: str = _several("", "destination of the averaged weights: a file whose name ends in .ckpt")
    method: str = _several(
        "mean", "method to choose the checkpoints that are averaged: all (mean), or those that do not lower the "
        "accuracy on the validation images (greedy)", choices=("mean", "greedy"))
    # fmt: on
    required: ClassVar[Mapping[str, str]] = {"checkpoints": "required", "dst": "required"}
    ways_out: ClassVar[Mapping[str, str]] = {"dst": "give the file to write, for example --dst mean.ckpt"}
    outputs: ClassVar[Sequence[str]] = ("dst",)
    script: ClassVar[str] = "tools/average.py"


@dataclass
class InferConfig(_WeightsConfig):
    """Classify images: python infer.py --ckpt_path FILE --image_path IMAGE_OR_FOLDER [--option value ...]

    Options you leave out (model, number of classes, preprocessing) are read from the checkpoint, if it holds them, or
    from the table of published weights.
    """

    image_path: list[str] = _output(
        [], "images to classify: one or more files, folders or glob patterns", is_verbatim=True
    )
    top_k: int = _output(5, "number k of top classes to print for each image, the most probable first", low=1)
    results_file: str = _output("", "file to write the predictions to; its name ends in .csv or .json")
    picture: str = _output(
        "", "picture file to draw the first 24 images with their predictions to, for example predictions.png"
    )
    class_names_file: str = _output("", "text file with the name of one class of the model in each line")
    explain: Optional[str] = _explain(
        None,
        "explain the predictions by heat maps of what the network looks at: Grad-CAM, which explains the predicted "
        "class (gradcam), or Eigen-CAM, which does not depend on the class (eigencam); None means no heat maps",
        choices=EXPLANATIONS,
    )
    explain_picture: str = _explain("heat_maps.png", "picture file to draw the heat maps of explain to")
    explain_images: int = _explain(24, "largest number of images that explain draws heat maps of", low=1)
    explain_stage: int = _explain(
        3,
        "stage of the model (0 to 3) whose map explain shows; the map of an earlier stage has more and smaller cells",
        choices=(0, 1, 2, 3),
    )
    required: ClassVar[Mapping[str, str]] = _required_with_weights("image_path")
    outputs: ClassVar[Sequence[str]] = ("results_file", "picture", "explain_picture")
    script: ClassVar[str] = "infer.py"


_ONE_FOLDER = {"image_path": "give the folder of the images, for example --image_path photos"}


@dataclass
class ExtractConfig(_WeightsConfig):
    """Write the features of images to a file: python tools/extract_features.py --ckpt_path FILE --image_path FOLDER
    --output features.npz [--option value ...]

    Options you leave out (model and preprocessing) are read from the checkpoint, if it holds them, or from the table of
    published weights.
    """

    image_path: str = _extract(
        "", "folder of images, whose sub-folders are the classes; images outside of them have the label -1"
    )
    output: str = _extract("", "output file for the features of the images; its name ends in .npz or .safetensors")
    required: ClassVar[Mapping[str, str]] = _required_with_weights("image_path", "output")
    ways_out: ClassVar[Mapping[str, str]] = _ONE_FOLDER
    outputs: ClassVar[Sequence[str]] = ("output",)
    script: ClassVar[str] = "tools/extract_features.py"


@dataclass
class AnalyzeConfig(_WeightsConfig):
    """Show what the features of one or two networks are like: python tools/analyze.py --ckpt_path FILE
    --image_path FOLDER --output_dir FOLDER [--compare_with FILE_OR_NAME] [--option value ...]

    Options you leave out (model and preprocessing) are read from the checkpoint, if it holds them, or from the table of
    published weights.
    """

    # fmt: off
    image_path: str = _analyze("", "folder of images, whose sub-folders are the classes that colour the embedding")
    output_dir: str = _analyze("", "output folder for the pictures and the tables")
    compare_with: str = _analyze(
        "", "weights to compare with: a checkpoint file, or the name of a model with published weights, for example "
        "convnextv2_atto.fcmae")
    compare_model: str = _analyze(
        "", "name of the model of the checkpoint compare_with; empty means the one that the file names, or else model")
    max_images: Optional[int] = _analyze(
        1000, "largest number of images to analyze, taken evenly from the sorted files; None means all", low=1)
    num_drawn: int = _analyze(2, "number of images whose feature maps are drawn; 0 means none", low=0)
    # fmt: on
    required: ClassVar[Mapping[str, str]] = _required_with_weights("image_path", "output_dir")
    ways_out: ClassVar[Mapping[str, str]] = _ONE_FOLDER
    outputs: ClassVar[Sequence[str]] = ("output_dir",)
    script: ClassVar[str] = "tools/analyze.py"


@dataclass
class ExportConfig(_WeightsConfig):
    """Write a model to a MindIR, ONNX or AIR file: python tools/export.py --ckpt_path FILE --dst model.onnx
    [--option value ...]

    Options you leave out (model, number of classes, preprocessing) are read from the checkpoint, if it holds them, or
    from the table of published weights.
    """

    # fmt: off
    dst: str = _export("", "destination of the exported model: a file whose name ends in .mindir, .onnx or .air")
    format: Optional[str] = _export(
        None, "format of the exported file; None means that the end of dst decides", choices=EXPORT_FORMATS)
    image_size: Optional[int] = _export(
        None, "height and width in pixels of the images that the exported file is for: a MindIR file takes images of "
        "this size only, and an ONNX file takes any size; None means image_resize of the checkpoint", low=32)
    dynamic_batch: bool = _export(
        True, "leave the batch size of the exported file open, so that it takes any number of images instead of one")
    with_preprocess: bool = _export(
        False, "put the preprocessing into the ONNX file, which then takes uint8 images [N, H, W, 3] of any size")
    with_softmax: bool = _export(
        False, "end the exported network with a softmax, so that it returns probabilities instead of logits")
    half: bool = _export(False, "use half precision: the exported file stores its weights and computes in float16")
    features_only: bool = _export(
        False, "export the backbone, which returns the feature maps of stages instead of logits")
    out_indices: Optional[list[int]] = _export(
        None, "indices, 0 to 3, of the stages whose feature maps features_only returns; None means all stages",
        low=-4, high=3)
    image_path: list[str] = _export(
        [], "images to check the exported file with: files, folders or glob patterns; without them, the tool draws "
        "four images", is_verbatim=True)
    class_names_file: str = _export("", "text file with the name of one class of the model in each line")
    # fmt: on
    required: ClassVar[Mapping[str, str]] = _required_with_weights("dst")
    ways_out: ClassVar[Mapping[str, str]] = {"dst": "give the file to write, for example --dst model.onnx"}
    outputs: ClassVar[Sequence[str]] = ("dst",)
    script: ClassVar[str] = "tools/export.py"


@dataclass
class PretrainConfig(RunConfig):
    """Pre-train an encoder with FCMAE: python pretrain.py --config RECIPE.yaml [--option value ...]

    With resume, options that you leave out have the values of the interrupted run.
    """

    # fmt: off
    mask_ratio: float = _mask(
        "mask ratio: share of the patches of an image that the mask removes", 0.6, above=0, below=1)
    mask_patch_size: int = _mask("height and width of a patch of the mask in pixels", 32, low=1)
    norm_pix_loss: bool = _mask(
        "normalize the pixels of each patch to mean 0 and variance 1 before they are predicted", True)
    grn_scope: str = _mask(
        "scope of the norms of global response normalization (GRN): the visible cells of one image (sample), or of all "
        "images in the batch of a process (batch)", "sample", choices=GRN_SCOPES)
    decoder_embed_dim: int = _mask("number of channels of the decoder", 512, low=1)
    decoder_depth: int = _mask("number of blocks of the decoder", 1, low=0)
    picture_interval: int = _mask(
        "number of epochs between two pictures of reconstructed images; 0 means no pictures", 10, low=0)
    # fmt: on
    outputs: ClassVar[Sequence[str]] = ("ckpt_save_dir", "compile_cache_dir")
    script: ClassVar[str] = "pretrain.py"

    def missing(self) -> list[str]:
        """See `RunConfig.missing`; the model of a run that is resumed is known."""
        return [] if self.resume else super().missing()

    def completed_later(self) -> Collection[str]:
        """See `RunConfig.completed_later`."""
        return used_options(PretrainConfig) if self.resume else ()


SCRIPT_CONFIGS = (
    TrainConfig,
    PretrainConfig,
    ValidateConfig,
    InferConfig,
    ExtractConfig,
    AnalyzeConfig,
    ExportConfig,
    ValidateAllConfig,
    AverageConfig,
)
_Config = TypeVar("_Config", bound=RunConfig)


def parse_args(
    argv: Optional[Sequence[str]] = None,
    config_class: type[_Config] = RunConfig,
    checks: Sequence[Callable[[RunConfig], list[str]]] = (),
) -> _Config:
    """The configuration of a run: the command line over the YAML file of `-c`/`--config` over the defaults.

    `--help` prints the options and exits. Flags cannot be abbreviated. A flag must be one that the script uses; a YAML
    file, which several scripts may share, can hold the options of all of them.

    Args:
        argv: the words after the script's name; those of this process if None.
        config_class: `RunConfig` or a class made from it.
        checks: each gives a sentence for every problem of the values that is beyond this module's knowledge.

    Raises:
        ConfigError: with a sentence for every problem there is, not only the first.
    """
    words = sys.argv[1:] if argv is None else argv
    return read_config(words, config_class, SCRIPT_CONFIGS, checks)
