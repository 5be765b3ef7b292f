"""The options that scripts share: name, type, default, range and help, each once.

The flags and YAML keys are MindCV's, with its defaults, except where decision 0038 says why not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Optional, Union

from mindcv.config.checks import cross_checks
from mindcv.config.parsing import used_options
from mindcv.config.warnings import suspicions
from mindcv.data.constants import DATASET_NAMES
from mindcv.data.mixup import MIXUP_MODES
from mindcv.data.random_erasing import NOISES
from mindcv.data.transforms import INTERPOLATIONS
from mindcv.engine.amp import AMP_DTYPES, AMP_LEVELS
from mindcv.engine.callbacks import EARLY_STOPPING_METRICS
from mindcv.engine.checkpoint import CHECKPOINT_POLICIES
from mindcv.engine.distillation import DISTILLATION_KINDS
from mindcv.engine.loss_scale import LOSS_SCALE_TYPES
from mindcv.loss.base import SCALAR_REDUCTIONS
from mindcv.loss.loss_factory import LOSS_NAMES
from mindcv.optim.optim_factory import OPTIMIZER_NAMES
from mindcv.optim.param_groups import LAYER_DECAY_TYPES, WEIGHT_DECAY_FILTERS
from mindcv.scheduler.scheduler_factory import SCHEDULER_NAMES
from mindcv.utils.device import DEVICE_TARGETS, JIT_LEVELS
from mindcv.utils.errors import ConfigError

__all__ = [
    "COMMAND_OPTIONS",
    "MACHINE_OPTIONS",
    "NEUTRAL_OPTIONS",
    "PREPROCESSING",
    "RunConfig",
    "option",
]

# Options of one command, which are never taken from a saved run.
COMMAND_OPTIONS = (
    "config",
    "resume",
    "resume_opt",
    "ckpt_path",
    "pretrained_encoder",
    "ckpt_save_dir",
    "overwrite",
    "compile_cache_dir",
    "print_config",
    "print_param_groups",
)
# Options of the machine, which may differ when a run is resumed elsewhere.
MACHINE_OPTIONS = ("distribute", "device_target", "jit_level")
# Options of a run that do not change its numbers.
NEUTRAL_OPTIONS = (
    "data_dir",
    "dataset_download",
    "check_val_images",
    "max_image_pixels",
    "num_parallel_workers",
    "python_multiprocessing",
    "log_interval",
    "keep_checkpoint_max",
    "ckpt_save_interval",
    "save_every_steps",
    "ckpt_save_policy",
    "tensorboard",
    "picture_interval",
    "dataset_sink_mode",
)
# Options that say how an image becomes the network's input without augmentation. They are stored with the weights.
PREPROCESSING = ("image_resize", "crop_pct", "interpolation", "mean", "std", "in_channels")


def option(
    default: Any,
    help: str,
    *,
    group: str,
    choices: Sequence[Any] = (),
    scripts: Sequence[str] = (),
    is_verbatim: bool = False,
    **bounds: float,
) -> Any:
    """A dataclass field that is a command-line flag and a YAML key.

    Args:
        default: value of the option when it is not given; for an option with the default `''`, null means `''` too.
        help: what the option does, in plain words that make sense on their own.
        group: heading of the option in `--help`.
        choices: allowed values; those that are text are allowed in upper and lower case.
        scripts: the scripts that use the option; empty for every script whose configuration class has it.
        is_verbatim: for a list of file names: each word is one name, even if it contains commas or spaces.
        **bounds: `low` and `high` (allowed themselves), `above` and `below` (not allowed) of its numbers.
    """
    metadata = {"help": help, "group": group, "choices": tuple(choices), "scripts": tuple(scripts), **bounds}
    metadata["is_verbatim"] = is_verbatim
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


# The scripts that use an option: a flag of another script is an error. A YAML file may be shared by all scripts.
_TRAIN = ("train.py",)
_TRAINING = ("train.py", "pretrain.py")
_SEVERAL_WEIGHTS = ("tools/validate_all.py", "tools/average.py")
_WITH_DATA = ("train.py", "validate.py", *_SEVERAL_WEIGHTS)
_WITH_SPLITS = (*_WITH_DATA, "pretrain.py")
_CLASSIFY = ("train.py", "validate.py", "infer.py", *_SEVERAL_WEIGHTS)
_COMPUTE = (*_CLASSIFY, "tools/extract_features.py", "tools/analyze.py")
_WITH_WEIGHTS = (*_COMPUTE, "tools/export.py")
_ONE_CHECKPOINT = (
    "train.py",
    "validate.py",
    "infer.py",
    "tools/extract_features.py",
    "tools/analyze.py",
    "tools/export.py",
)
_DISTRIBUTED = ("train.py", "validate.py", "pretrain.py")
_RUN = (*_COMPUTE, "pretrain.py")
_ALL = (*_RUN, "tools/export.py")

_general = partial(option, group="General", scripts=_TRAINING)
_data = partial(option, group="Data set and loader", scripts=_TRAIN)
_prepare = partial(option, group="Preprocessing", scripts=_ALL)
_augment = partial(option, group="Augmentation of the training images", scripts=_TRAIN)
_model = partial(option, group="Model and weights", scripts=_TRAIN)
_train = partial(option, group="Training", scripts=_TRAIN)
_save = partial(option, group="Saving and resuming", scripts=_TRAINING)
_optim = partial(option, group="Optimizer", scripts=_TRAINING)
_schedule = partial(option, group="Learning rate", scripts=_TRAINING)
_loss = partial(option, group="Loss and distillation", scripts=_TRAIN)
_amp = partial(option, group="Mixed precision", scripts=_TRAINING)


# Required option -> how to give it.
_WAYS_OUT = {
    "model": "give --model NAME, for example --model convnext_tiny, or a recipe with --config FILE",
    "ckpt_path": "give --ckpt_path FILE for your own weights, or --model NAME --pretrained True for published ones",
    "image_path": "give --image_path with one or more files, folders or patterns, for example --image_path photos",
    "checkpoints": "give one or more files, folders or patterns, for example --checkpoints runs/*/*_best.ckpt",
    "results_csv": "give the file for the results, for example --results_csv results.csv",
    "output_dir": "give the folder for the results, for example --output_dir analysis",
    "output": "give the file for the features, for example --output features.npz",
}


@dataclass
class RunConfig:
    """All options that scripts share. `given` names those that were set, and the place: command line or line of a file.

    `warnings` holds a sentence for each option that is allowed and probably not what the user meant.
    """

    # fmt: off
    config: str = _general(
        "", "YAML file with the configuration; an option on the command line overrides it", scripts=_ALL)
    mode: int = _general(
        0, "execution mode of MindSpore: 0 is graph mode, 1 is PyNative mode", choices=(0, 1), scripts=_RUN)
    distribute: bool = _general(False, "distribute the run over the processes that msrun started", scripts=_DISTRIBUTED)
    seed: int = _general(42, "seed of all random numbers", low=0, scripts=_WITH_SPLITS)
    print_config: bool = _general(
        False, "print the value of every option and where it comes from, then stop", scripts=_ALL)
    device_target: str = _general(
        "auto", "device to compute on; auto leaves the choice to MindSpore",
        choices=DEVICE_TARGETS, scripts=_ALL)
    jit_level: Optional[str] = _general(
        None, "compilation level of graph mode; None means O2 on Ascend and MindSpore's default elsewhere",
        choices=JIT_LEVELS, scripts=_RUN)
    compile_cache_dir: str = _general(
        "", "folder that keeps the compiled training step, so that a later run with the same options starts faster")
    log_interval: int = _general(100, "number of steps between two lines of the progress log", low=1)

    dataset: str = _data(
        "imagenet", "name of the data set; imagenet, folder and an empty name all mean a folder of images",
        choices=DATASET_NAMES, scripts=_WITH_SPLITS)
    data_dir: str = _data(
        "./", "folder that holds the data set; without it, fashion_mnist is read from where Debian's package puts it",
        scripts=_WITH_SPLITS)
    train_split: str = _data(
        "train", "part of the data set to train on; for image folders, a sub-folder of data_dir", scripts=_WITH_SPLITS)
    val_split: str = _data(
        "val", "part of the data set to validate on; for image folders, a sub-folder of data_dir", scripts=_WITH_DATA)
    val_fraction: float = _data(
        0.0, "share of the training images of each class that is held out for validation, instead of using val_split",
        low=0, below=1, scripts=_WITH_DATA)
    check_val_images: str = _data(
        "header", "check before any work whether the validation images can be read: only their headers, or the full "
        "images", choices=("off", "header", "full"), scripts=_WITH_DATA)
    max_image_pixels: int = _data(
        178956970, "largest number of pixels of an image, which limits the memory it takes; 0 means no limit",
        low=0, scripts=_ALL)
    dataset_download: bool = _data(
        False, "download the files of mnist, cifar10 or cifar100 that data_dir lacks", scripts=_WITH_SPLITS)
    num_parallel_workers: int = _data(8, "number of data-loader workers", low=1, scripts=_WITH_SPLITS)
    python_multiprocessing: Union[bool, str] = _data(
        "auto", "run the data-loader workers in Python processes of their own instead of threads; auto measures the "
        "threads, and uses processes if threads wait too long for each other", choices=("auto",),
        scripts=_WITH_SPLITS)
    shuffle: bool = _data(True, "shuffle the training images in each epoch", scripts=_TRAINING)
    eval_shuffle: bool = _data(False, "shuffle the validation images", scripts=_WITH_DATA)
    num_samples: Optional[int] = _data(None, "number of training images to use; None means all", low=1,
        scripts=_TRAINING)
    batch_size: int = _data(128, "number of images in a batch, for each process", low=1, scripts=_RUN)
    drop_remainder: bool = _data(True, "drop the last batch of an epoch when it is not full", scripts=_TRAINING)
    skip_corrupt: bool = _data(
        False, "skip corrupt images, which are otherwise an error: training takes another image instead, "
        "validation, inference and the check of an exported file leave the image out", scripts=_ALL)

    image_resize: int = _prepare(
        224, "size that images are resized to: height and width of the network's input in pixels", low=32)
    crop_pct: float = _prepare(
        0.875, "side of the centre crop divided by that of the resized image; training uses scale and ratio instead",
        above=0, high=1)
    interpolation: str = _prepare("bilinear", "interpolation used to resize images", choices=INTERPOLATIONS)
    mean: list[float] = _prepare(
        [123.675, 116.28, 103.53], "mean that is subtracted from each channel, on the scale from 0 to 255",
        low=0, high=255)
    std: list[float] = _prepare(
        [58.395, 57.12, 57.375], "standard deviation that each channel is divided by, on the scale from 0 to 255",
        above=0)

    scale: tuple[float, float] = _augment(
        (0.08, 1.0), "scale of the random crop: smallest and largest area, as a share of the image", above=0,
        scripts=_TRAINING)
    ratio: tuple[float, float] = _augment(
        (0.75, 1.333), "aspect ratio of the random crop, width divided by height: smallest and largest value", above=0,
        scripts=_TRAINING)
    hflip: float = _augment(0.5, "probability of a horizontal flip", low=0, high=1, scripts=_TRAINING)
    vflip: float = _augment(0.0, "probability of a vertical flip", low=0, high=1, scripts=_TRAINING)
    color_jitter: Union[float, list[float], None] = _augment(
        0.4, "strength of colour jitter, random changes of brightness, contrast and saturation: one number for all "
        "three, a list of three, or of four with hue; has no effect when auto_augment is set", low=0)
    auto_augment: Optional[str] = _augment(
        None, "augmentation policy: randaug-m9-mstd0.5-inc1, autoaug, autoaugr, 3a, trivialaugwide, augmix-m3-w3 and "
        "the like; None means no policy")
    aug_splits: int = _augment(
        0, "number of versions of each image for the loss JSD; the first is not augmented; 0 turns this off", low=0)
    re_prob: float = _augment(0.0, "probability of random erasing", low=0, high=1)
    re_scale: tuple[float, float] = _augment(
        (0.02, 0.33), "smallest and largest area that random erasing erases, as a share of the image", above=0, high=1)
    re_ratio: tuple[float, float] = _augment(
        (0.3, 3.3), "smallest and largest aspect ratio of the area that random erasing erases", above=0)
    re_value: Union[int, list[float], str] = _augment(
        0, "what random erasing fills in: one number, a list with one number for each channel, a random colour for "
        "each pixel (random or pixel), or one random colour (rand)", choices=NOISES)
    re_count: int = _augment(1, "largest number of areas that random erasing erases in an image", low=1)
    re_max_attempts: int = _augment(10, "number of attempts to place an area that random erasing erases", low=1)
    mixup: float = _augment(0.0, "alpha of mixup; 0 turns mixup off", low=0)
    cutmix: float = _augment(0.0, "alpha of CutMix; 0 turns CutMix off", low=0)
    cutmix_prob: float = _augment(1.0, "probability that a batch is mixed, by mixup or by CutMix", low=0, high=1)
    mixup_mode: str = _augment(
        "batch", "how often mixup and CutMix draw new random numbers: once for each batch, pair of images or image",
        choices=MIXUP_MODES)
    mixup_group_size: Optional[int] = _augment(
        None, "number of images of a batch that mixup and CutMix mix with each other, as if they were a batch of their "
        "own; it must divide batch_size; None means the whole batch", low=1)
    mixup_switch_prob: float = _augment(
        0.5, "probability of CutMix instead of mixup when both are on", low=0, high=1)
    mixup_off_epoch: int = _augment(
        0, "epoch (counted from 0) from which mixup and CutMix are off; 0 means that they stay on", low=0)
    cutmix_minmax: Optional[tuple[float, float]] = _augment(
        None, "smallest and largest side of the CutMix box, as a share of the image's side; None means that the "
        "alpha of CutMix decides", above=0, high=1)
    aug_repeats: int = _augment(
        0, "number of times that an epoch repeats each image with different augmentation; 0 means no repeats", low=0)

    model: str = _model("", "name of the model, for example convnext_tiny", scripts=_ALL)
    num_classes: Optional[int] = _model(
        None, "number of classes; None means that of the data set or the checkpoint", low=1,
        scripts=(*_CLASSIFY, "tools/export.py"))
    in_channels: int = _model(
        3, "number of channels of the images: 3 for colour, 1 for grey", choices=(1, 3), scripts=_ALL)
    patch_size: int = _model(
        4, "height, width and stride of the patches that the stem, the first layer of the model, cuts the images into; "
        "smaller patches suit small images", low=1, scripts=_ALL)
    drop_rate: Optional[float] = _model(
        None, "dropout rate before the classifier; None means the model's default", low=0, below=1)
    drop_path_rate: Optional[float] = _model(
        None, "rate of stochastic depth (drop path); None means the model's default", low=0, below=1)
    pretrained: bool = _model(
        False, "download the published pretrained weights of the model; where there are several, the name of the "
        "model selects one, for example convnextv2_tiny.fcmae_ft_in1k", scripts=_ONE_CHECKPOINT)
    ckpt_path: str = _model(
        "", "checkpoint file whose weights are loaded; validate.py, infer.py, tools/validate_all.py and "
        "tools/report.py also take an exported file, .onnx or .mindir", scripts=_ONE_CHECKPOINT)
    pretrained_encoder: str = _model(
        "", "checkpoint file of a pre-trained encoder to start from, or the folder of a run of pretrain.py, of which "
        "the newest is taken; a decoder or a classifier in it is left out")
    ema: bool = _model(
        False, "in training, keep an exponential moving average of the weights; in validation and inference, use the "
        "averaged weights of the checkpoint", scripts=_WITH_WEIGHTS)
    head_init_scale: float = _model(1.0, "factor that the classifier's initial weights are multiplied by", low=0)
    layer_scale_init_value: Optional[float] = _model(
        None, "initial value of LayerScale in ConvNeXt (V1); None means the model's default", low=0)
    recompute_stages: list[int] = _model(
        [], "stages of the model (0 to 3) that recompute their activations in the backward pass to save memory",
        low=0, high=3, scripts=_TRAINING)
    freeze: Optional[list[str]] = _model(
        None, "patterns of the names of parameters to freeze, so that they are not trained, for example "
        "feature.0.*; None trains all")

    epoch_size: int = _train(90, "number of epochs", low=1, scripts=_TRAINING)
    val_while_train: bool = _train(False, "validate the model while it trains")
    val_interval: int = _train(1, "number of epochs between two validations", low=1)
    early_stopping_patience: Optional[int] = _train(
        None, "patience of early stopping: number of validations without improvement after which training stops; None "
        "means never", low=1)
    early_stopping_metric: str = _train(
        "top_1", "metric that must improve for early stopping", choices=tuple(EARLY_STOPPING_METRICS))
    gradient_accumulation_steps: int = _train(
        1, "number of batches whose gradients are accumulated before the weights are updated", low=1, scripts=_TRAINING)
    clip_grad: bool = _train(False, "clip the global norm of the gradients", scripts=_TRAINING)
    clip_value: float = _train(15.0, "largest global norm of the gradients when clip_grad is on", above=0,
        scripts=_TRAINING)
    ema_decay: float = _train(0.9999, "decay of the moving average of the weights", low=0, high=1)
    ema_warmup: int = _train(
        2000, "number of updates in which the decay of the moving average rises to ema_decay; 0 means none", low=0)
    val_ema: bool = _train(True, "validate the averaged weights while training, when ema is on")
    dataset_sink_mode: bool = _train(
        True, "sink mode: the next batch is prepared and the next step started while a step runs, and the device "
        "normalises the images; results do not change; it has no effect in graph mode on CPU", scripts=_TRAINING)

    ckpt_save_dir: str = _save("./ckpt", "folder for the checkpoints, the metrics and the learning curve")
    overwrite: bool = _save(
        False, "overwrite the earlier run in ckpt_save_dir: its files are removed after the first step of the new run")
    ckpt_save_interval: int = _save(1, "number of epochs between two checkpoints", low=1)
    ckpt_save_policy: str = _save(
        "latest_k", "which checkpoints are kept: the latest ones or the best ones", choices=CHECKPOINT_POLICIES,
        scripts=_TRAIN)
    keep_checkpoint_max: int = _save(10, "number of checkpoints that are kept", low=1)
    save_every_steps: Optional[int] = _save(
        None, "number of steps after which the run is also saved within an epoch, for resume; None means never", low=1)
    tensorboard: bool = _save(
        False, "write the metrics of each epoch to an event file for TensorBoard in ckpt_save_dir, beside metrics.csv")
    resume: str = _save(
        "", "interrupted run to resume: a file, a folder, or auto for the newest one in ckpt_save_dir (auto starts a "
        "new run when there is none)")
    resume_opt: bool = _save(False, "resume the run that saved the weights ckpt_path, with the state of its optimizer")

    opt: str = _optim("adam", "name of the optimizer", choices=OPTIMIZER_NAMES)
    momentum: float = _optim(0.9, "momentum of the optimizers sgd, momentum and rmsprop", low=0, below=1)
    weight_decay: float = _optim(1e-6, "coefficient of the weight decay", low=0)
    use_nesterov: bool = _optim(False, "use Nesterov's momentum in sgd, momentum and adam")
    weight_decay_filter: str = _optim(
        "auto", "which parameters have no weight decay: vectors, biases, LayerScale and GRN (auto and norm_and_bias), "
        "or none (disable)", choices=WEIGHT_DECAY_FILTERS)
    eps: float = _optim(1e-10, "epsilon, a small number that adaptive optimizers add to the denominator", above=0)
    betas: Optional[list[float]] = _optim(
        None, "betas of the optimizer, the decay rates of its moments; None means the optimizer's default", low=0,
        below=1)
    layer_decay: Optional[float] = _optim(
        None, "learning rate of each layer divided by that of the next layer; None means the same rate for all layers",
        above=0, high=1, scripts=_TRAIN)
    layer_decay_type: str = _optim(
        "single", "what layer_decay counts as one layer: a single block, or a group of blocks",
        choices=LAYER_DECAY_TYPES, scripts=_TRAIN)
    print_param_groups: bool = _optim(
        False, "print the learning rate and weight decay of each parameter, then stop")

    scheduler: str = _schedule(
        "cosine_decay", "schedule of the learning rate after the warm-up", choices=SCHEDULER_NAMES)
    lr: float = _schedule(0.001, "learning rate at the end of the warm-up", above=0)
    lr_base_batch_size: Optional[int] = _schedule(
        None, "batch size that lr is meant for; lr is scaled in proportion to the number of images in a step of "
        "the run; None means no scaling", low=1)
    min_lr: float = _schedule(1e-6, "lowest learning rate of cosine_decay, one_cycle and cyclic", low=0)
    warmup_epochs: int = _schedule(3, "number of epochs in which the learning rate rises linearly to lr", low=0)
    warmup_factor: float = _schedule(
        0.0, "factor that lr is multiplied by to give the learning rate at the start of the warm-up", low=0)
    warmup_lr: Optional[float] = _schedule(
        None, "learning rate at the start of the warm-up; None means that warmup_factor decides", low=0)
    decay_epochs: int = _schedule(
        100, "number of epochs of one cycle of cosine_decay, or between two decays of step_decay", low=1)
    decay_rate: float = _schedule(
        0.9, "factor of each decay of step_decay and multi_step_decay, factor per epoch of exponential_decay, power of "
        "polynomial_decay", above=0)
    multi_step_decay_milestones: list[int] = _schedule(
        [30, 60, 90], "epochs at which multi_step_decay decays, counted from the end of the warm-up", low=1)
    lr_epoch_stair: bool = _schedule(False, "change the learning rate once in each epoch instead of at each step")
    num_cycles: int = _schedule(1, "number of cycles of cosine_decay and cyclic", low=1)
    cycle_decay: float = _schedule(
        1.0, "highest learning rate of each cycle of cosine_decay, divided by that of the cycle before", above=0)

    loss: str = _loss(
        "CE", "loss function: softmax cross-entropy (CE), sigmoid cross-entropy (BCE), an asymmetric loss "
        "(asl_single_label, asl_multi_label), or cross-entropy with Jensen-Shannon consistency (JSD)",
        choices=LOSS_NAMES)
    bce_target_threshold: Optional[float] = _loss(
        None, "threshold of loss BCE: targets above it become 1, the others 0; None keeps the targets", low=0, below=1)
    label_smoothing: float = _loss(
        0.0, "strength of label smoothing: share of each target that is spread evenly over all classes", low=0, below=1)
    aux_factor: float = _loss(
        0.0, "weight of the losses of auxiliary classifiers, for models that have them", low=0)
    reduction: str = _loss(
        "mean", "reduction of the losses of the images in a batch to one number", choices=SCALAR_REDUCTIONS)
    teacher_model: str = _loss("", "name of the model that teaches in distillation; empty means no distillation")
    teacher_ckpt_path: str = _loss("", "checkpoint file of the teacher in distillation")
    distillation_type: str = _loss(
        "soft", "what the teacher gives in distillation: its probabilities (soft) or the class it predicts (hard)",
        choices=DISTILLATION_KINDS)
    distillation_alpha: float = _loss(0.5, "weight of the teacher's part of the loss in distillation", low=0, high=1)
    distillation_tau: float = _loss(1.0, "temperature of soft distillation", above=0)

    amp_level: str = _amp("O0", "mixed precision level of training; O0 is float32 throughout", choices=AMP_LEVELS)
    val_amp_level: str = _amp(
        "O0", "mixed precision level of validation and inference; O0 is float32 throughout",
        choices=AMP_LEVELS, scripts=_COMPUTE)
    amp_dtype: str = _amp(
        "float16", "number format of mixed precision", choices=tuple(AMP_DTYPES), scripts=_RUN)
    amp_cast_list: Optional[list[str]] = _amp(
        None, "list of the classes of layers that amp_level O1 casts to amp_dtype; None means all with matrix products")
    loss_scale_type: str = _amp("fixed", "kind of loss scaling", choices=LOSS_SCALE_TYPES)
    loss_scale: float = _amp(1.0, "factor of fixed loss scaling, or the first factor of dynamic loss scaling", above=0)
    drop_overflow_update: bool = _amp(False, "skip the update of the weights when the gradients overflow")
    # fmt: on

    given: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    warnings: Sequence[str] = field(default=(), repr=False, compare=False)
    required: ClassVar[Mapping[str, str]] = {"model": "required"}  # required option -> words for `--help`
    ways_out: ClassVar[Mapping[str, str]] = {}  # how to give a required option, where a script differs from others
    # Options that name what the run writes: a folder if the name ends in _dir, and a file otherwise.
    outputs: ClassVar[Sequence[str]] = ()
    script: ClassVar[str] = ""  # The script whose options are accepted; empty for all scripts.

    def missing(self) -> list[str]:
        """A sentence for each required option that is not given."""
        ways_out = {**_WAYS_OUT, **self.ways_out}
        missing = [name for name in self.required if not getattr(self, name)]
        return [f"{name}: is required; {ways_out.get(name, f'give --{name}')}" for name in missing]

    def completed_later(self) -> Collection[str]:
        """The options that `completed` will set when they are not given."""
        return ()

    def as_dict(self) -> dict[str, Any]:
        """The value of every option that the script uses, by name."""
        return self.subset(*used_options(type(self)))

    def subset(self, *names: str) -> dict[str, Any]:
        """The values of some options by name, to pass on as keywords."""
        return {name: getattr(self, name) for name in names}

    def described(self) -> str:
        """A line for every option that the script uses: its value, and where the value comes from."""
        rows = [(name, repr(value), self.given.get(name, "default")) for name, value in self.as_dict().items()]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        return "\n".join(f"{name:{widths[0]}}  {value:{widths[1]}}  {source}" for name, value, source in rows)

    def completed(self, values: Mapping[str, Any]) -> RunConfig:
        """A copy in which options that were not given have the values that a checkpoint or a saved run holds.

        Its `warnings` are those that come of these values alone.

        Args:
            values: option -> value; lists stand for tuples. Options that the script does not use are left out.

        Raises:
            ConfigError: no model is named, neither here nor there, or options do not go together.
        """
        used = used_options(type(self))
        taken = {name: value for name, value in values.items() if name in used and name not in self.given}
        config = replace(self, **taken, given={**self.given, **dict.fromkeys(taken, "checkpoint")})
        if not config.model:
            raise ConfigError(["model: is required, since the checkpoint does not name one"])
        problems = cross_checks(config, used)
        if problems:
            raise ConfigError(problems)
        doubts = suspicions(config, used)
        return replace(config, warnings=tuple(doubt for doubt in doubts if doubt not in self.warnings))
