"""Every option of the scripts once: name, type, default, range and help; and how a command line becomes a config.

The flags and YAML keys are MindCV's, with its defaults unless `docs/decisions.md` says why not.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Callable, ClassVar, Optional, TypeVar, Union

from mindcv.config_checks import cross_checks
from mindcv.config_parsing import help_text, options_of, read_command_line, read_value, read_yaml
from mindcv.utils.errors import ConfigError

__all__ = [
    "COMMAND_OPTIONS",
    "MACHINE_OPTIONS",
    "NEUTRAL_OPTIONS",
    "InferConfig",
    "RunConfig",
    "TrainConfig",
    "ValidateConfig",
    "option",
    "parse_args",
]

# Not the run's but the command's: they are never taken from a saved run.
COMMAND_OPTIONS = (
    "config",
    "resume",
    "resume_opt",
    "ckpt_path",
    "ckpt_save_dir",
    "overwrite",
    "compile_cache_dir",
    "print_config",
    "print_param_groups",
)
# Of the machine; a run that was moved may have others.
MACHINE_OPTIONS = ("distribute", "device_target", "jit_level")
# Of the run, but what it computes is the same whatever they are.
NEUTRAL_OPTIONS = (
    "data_dir",
    "dataset_download",
    "check_val_images",
    "max_image_pixels",
    "num_parallel_workers",
    "log_interval",
    "keep_checkpoint_max",
    "ckpt_save_interval",
    "save_every_steps",
    "ckpt_save_policy",
)


def option(
    default: Any, help: str, *, group: str, choices: Sequence[Any] = (), is_verbatim: bool = False, **bounds: float
) -> Any:
    """A dataclass field that is a command-line flag and a YAML key.

    Args:
        default: its value when not given; `''` also stands for null.
        help: what it does, in a few words.
        group: heading it is listed under.
        choices: allowed values, those that are text in any case of letters.
        is_verbatim: for a list of file names: each word is one name, even if it contains commas or spaces.
        **bounds: `low` and `high` (allowed themselves), `above` and `below` (not allowed) of its numbers.
    """
    metadata = {"help": help, "group": group, "choices": tuple(choices), "is_verbatim": is_verbatim, **bounds}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


_system = partial(option, group="System")
_data = partial(option, group="Data set")
_augment = partial(option, group="Augmentation")
_model = partial(option, group="Model")
_train = partial(option, group="Training and checkpoints")
_optim = partial(option, group="Optimizer")
_schedule = partial(option, group="Learning rate")
_loss = partial(option, group="Loss")
_amp = partial(option, group="Mixed precision")
_result = partial(option, group="Results")

_DEVICES = ("auto", "Ascend", "GPU", "CPU")
_DATASETS = ("imagenet", "folder", "digits", "mnist", "cifar10", "cifar100", "")
_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
_SCHEDULERS = (
    "constant",
    "cosine_decay",
    "exponential_decay",
    "polynomial_decay",
    "step_decay",
    "multi_step_decay",
    "one_cycle",
    "cyclic",
)
_LOSSES = ("CE", "BCE", "asl_single_label", "asl_multi_label", "JSD")
_OPTIMIZERS = ("sgd", "momentum", "adam", "adamw", "lion", "rmsprop", "adagrad", "lamb", "nadam", "adan")
_AMP_LEVELS = ("O0", "O1", "O2", "O3")
_JIT_LEVELS = ("O0", "O1", "O2")


@dataclass
class RunConfig:
    """The options all scripts share. `given` holds those set, and by what: the command line, or a line of a file."""

    # fmt: off
    config: str = _system("", "YAML file of options")
    mode: int = _system(0, "0: graph mode, 1: PyNative", choices=(0, 1))
    distribute: bool = _system(False, "one of several processes started by msrun")
    val_while_train: bool = _system(False, "validate while training")
    val_interval: int = _system(1, "epochs from one validation to the next", low=1)
    log_interval: int = _system(100, "steps from one line of the log to the next", low=1)
    seed: int = _system(42, "seed of everything random", low=0)
    print_config: bool = _system(False, "show every option's value and where it comes from, and stop")
    device_target: str = _system("auto", "device; auto takes the best there is", choices=_DEVICES)
    jit_level: Optional[str] = _system(
        None, "graph mode's level of compilation; None: O2 on Ascend, MindSpore's own elsewhere", choices=_JIT_LEVELS)
    compile_cache_dir: str = _system("", "keep the compiled training step in this folder, for later runs like this one")

    dataset: str = _data("imagenet", "kind of data set", choices=_DATASETS)
    data_dir: str = _data("./", "its folder")
    train_split: str = _data("train", "its part to train on")
    val_split: str = _data("val", "its part to validate on")
    val_fraction: float = _data(
        0.0, "share of the training images to hold out for validation, in each class; used instead of val_split",
        low=0, below=1)
    check_val_images: str = _data(
        "header", "check before the work that validation images can be read: their headers, or the full images",
        choices=("off", "header", "full"))
    max_image_pixels: int = _data(178956970, "refuse images of more pixels, lest memory runs out; 0: no limit", low=0)
    dataset_download: bool = _data(False, "download what data_dir lacks of mnist, cifar10 or cifar100")
    num_parallel_workers: int = _data(8, "workers that load images", low=1)
    shuffle: bool = _data(True, "shuffle the training images")
    eval_shuffle: bool = _data(False, "shuffle the images of validation too")
    num_samples: Optional[int] = _data(None, "train on so many images, all if None", low=1)
    batch_size: int = _data(128, "images a step, of each process", low=1)
    drop_remainder: bool = _data(True, "drop the last batch of an epoch if it is not full")
    skip_corrupt: bool = _data(
        False, "go on when images cannot be read: train.py takes others instead, the other scripts leave them out")

    image_resize: int = _augment(224, "height and width the network gets, pixels", low=32)
    scale: tuple[float, float] = _augment((0.08, 1.0), "range of the cropped part of the area", above=0)
    ratio: tuple[float, float] = _augment((0.75, 1.333), "range of the crop's width over height", above=0)
    hflip: float = _augment(0.5, "probability of a left-right flip", low=0, high=1)
    vflip: float = _augment(0.0, "probability of an upside-down flip", low=0, high=1)
    color_jitter: Union[float, list[float], None] = _augment(
        0.4, "strength of brightness, contrast and saturation, or one each, and of hue; without auto_augment", low=0)
    interpolation: str = _augment("bilinear", "how images are resized", choices=_INTERPOLATIONS)
    auto_augment: Optional[str] = _augment(
        None, "policy: randaug-m9-mstd0.5-inc1, autoaug, autoaugr, 3a, trivialaugwide, augmix-m3-w3")
    aug_splits: int = _augment(0, "copies of a batch, all but the first augmented (for loss JSD), 0 for none", low=0)
    re_prob: float = _augment(0.0, "probability of random erasing", low=0, high=1)
    re_scale: tuple[float, float] = _augment((0.02, 0.33), "range of the erased part of the area", above=0, high=1)
    re_ratio: tuple[float, float] = _augment((0.3, 3.3), "range of the erased box's ratio", above=0)
    re_value: Union[int, list[float], str] = _augment(
        0, "what erases: a value, one a channel, noise (pixel, random) or one random colour (rand)",
        choices=("random", "pixel", "rand"))
    re_count: int = _augment(1, "boxes erased at most", low=1)
    re_max_attempts: int = _augment(10, "tries to place the erased box", low=1)
    mean: list[float] = _augment([123.675, 116.28, 103.53], "mean of each channel, of 0 to 255")
    std: list[float] = _augment([58.395, 57.120000000000005, 57.375], "deviation of each channel, of 0 to 255", above=0)
    crop_pct: float = _augment(0.875, "validation: centre crop over resized image", above=0, high=1)
    mixup: float = _augment(0.0, "alpha of mixup, 0 for none", low=0)
    cutmix: float = _augment(0.0, "alpha of cutmix, 0 for none", low=0)
    cutmix_prob: float = _augment(1.0, "probability of mixing a batch at all", low=0, high=1)
    mixup_mode: str = _augment("batch", "mix alike in a batch, a pair or an element", choices=("batch", "pair", "elem"))
    mixup_switch_prob: float = _augment(0.5, "with both mixup and cutmix, the share of cutmix", low=0, high=1)
    mixup_off_epoch: int = _augment(0, "epoch from which nothing is mixed, 0 for never", low=0)
    cutmix_minmax: Optional[tuple[float, float]] = _augment(
        None, "range of the cut box's side over the image's, instead of alpha", above=0, high=1)
    aug_repeats: int = _augment(0, "times an image is in one epoch (repeated augmentation), 0 for plain", low=0)

    model: str = _model("", "architecture, such as convnext_tiny; required")
    num_classes: Optional[int] = _model(None, "classes; those of the data set if None", low=1)
    in_channels: int = _model(3, "channels of the images", low=1)
    drop_rate: Optional[float] = _model(None, "dropout of the classifier; the architecture's if None", low=0, below=1)
    drop_path_rate: Optional[float] = _model(None, "stochastic depth; the architecture's if None", low=0, below=1)
    pretrained: bool = _model(False, "take published weights; model may say which: convnextv2_tiny.fcmae_ft_in1k")
    ckpt_path: str = _model("", "checkpoint to start from")
    head_init_scale: float = _model(1.0, "factor of the classifier's initial weights", low=0)
    layer_scale_init_value: Optional[float] = _model(None, "initial LayerScale; the architecture's if None", low=0)
    recompute_stages: list[int] = _model([], "stages that recompute activations to save memory, from 0", low=0, high=3)

    resume: str = _train(
        "", "go on with an interrupted run: auto, the newest in ckpt_save_dir if there is one; or a file or folder")
    resume_opt: bool = _train(False, "go on with the run that ckpt_path is the weights of")
    keep_checkpoint_max: int = _train(10, "checkpoints kept", low=1)
    ckpt_save_dir: str = _train("./ckpt", "folder of the checkpoints and the log")
    overwrite: bool = _train(False, "remove the files of an earlier run from ckpt_save_dir before a new run begins")
    ckpt_save_interval: int = _train(1, "epochs from one checkpoint to the next", low=1)
    save_every_steps: Optional[int] = _train(None, "steps after which to save the run as well, for --resume", low=1)
    ckpt_save_policy: str = _train("latest_k", "keep the latest, or the best", choices=("latest_k", "top_k"))
    epoch_size: int = _train(90, "epochs", low=1)
    dataset_sink_mode: bool = _train(True, "for MindCV's recipes; changes nothing: batches are fed a step at a time")
    ema: bool = _train(False, "keep an average of the weights; without training: take it from the checkpoint")
    ema_decay: float = _train(0.9999, "decay of that average", low=0, high=1)
    ema_warmup: int = _train(2000, "updates in which that decay is approached, 0 for none", low=0)
    val_ema: bool = _train(True, "validate the average while training, not the weights themselves")
    clip_grad: bool = _train(False, "clip the gradient's global norm")
    clip_value: float = _train(15.0, "to this", above=0)
    layer_decay: Optional[float] = _train(None, "learning rate of a layer over that of the next", above=0, high=1)
    layer_decay_type: str = _train("single", "a layer is a block, or a group of them", choices=("single", "group"))
    freeze: Optional[list[str]] = _train(None, "patterns of parameters not to train, such as feature.0.*")
    print_param_groups: bool = _train(False, "show the rate and decay of each parameter, and stop")
    early_stopping_patience: Optional[int] = _train(None, "validations without a better one to stop after", low=1)
    early_stopping_metric: str = _train("top_1", "what must get better", choices=("top_1", "val_loss"))
    gradient_accumulation_steps: int = _train(1, "batches an update", low=1)

    opt: str = _optim("adam", "optimizer", choices=_OPTIMIZERS)
    momentum: float = _optim(0.9, "momentum of sgd and momentum", low=0, below=1)
    weight_decay: float = _optim(1e-6, "weight decay", low=0)
    use_nesterov: bool = _optim(False, "Nesterov's form of sgd, momentum and adam")
    weight_decay_filter: str = _optim(
        "auto", "auto and norm_and_bias: no decay of vectors, biases, LayerScale and GRN; disable: decay everything",
        choices=("disable", "auto", "norm_and_bias"))
    eps: float = _optim(1e-10, "eps of the adaptive optimizers", above=0)
    betas: Optional[list[float]] = _optim(None, "decay rates of the moments; the optimizer's if None", low=0, below=1)

    scheduler: str = _schedule("cosine_decay", "schedule after the warm-up", choices=_SCHEDULERS)
    lr: float = _schedule(0.001, "learning rate", above=0)
    lr_base_batch_size: Optional[int] = _schedule(
        None, "lr is for so many images a step, and grows in proportion to those of the run", low=1)
    min_lr: float = _schedule(1e-6, "lowest rate of cosine_decay, one_cycle and cyclic", low=0)
    warmup_epochs: int = _schedule(3, "epochs of linear rise to lr", low=0)
    warmup_factor: float = _schedule(0.0, "the rise starts at lr times this", low=0)
    warmup_lr: Optional[float] = _schedule(None, "or at this rate", low=0)
    decay_epochs: int = _schedule(100, "length of a cosine, or of a step of step_decay", low=1)
    decay_rate: float = _schedule(0.9, "factor of a step, or an epoch, or power of polynomial_decay", above=0)
    multi_step_decay_milestones: list[int] = _schedule([30, 60, 90], "epochs after the warm-up to decay at", low=1)
    lr_epoch_stair: bool = _schedule(False, "change the rate once an epoch, not at every step")
    num_cycles: int = _schedule(1, "cycles of cosine_decay and cyclic", low=1)
    cycle_decay: float = _schedule(1.0, "top of a cosine cycle over that of the one before", above=0)

    loss: str = _loss("CE", "softmax (CE) or sigmoid (BCE) cross-entropy, asymmetric, JSD", choices=_LOSSES)
    bce_target_threshold: Optional[float] = _loss(None, "BCE: targets above it are 1, the others 0", low=0, below=1)
    label_smoothing: float = _loss(0.0, "share of the target spread over all classes", low=0, below=1)
    aux_factor: float = _loss(0.0, "weight of auxiliary heads' losses", low=0)
    teacher_model: str = _loss("", "distillation: architecture of the teacher")
    teacher_ckpt_path: str = _loss("", "distillation: its checkpoint")
    distillation_type: str = _loss("soft", "its probabilities, or its choice", choices=("soft", "hard"))
    distillation_alpha: float = _loss(0.5, "share of the teacher in the loss", low=0, high=1)
    distillation_tau: float = _loss(1.0, "temperature of soft distillation", above=0)
    reduction: str = _loss("mean", "over the samples", choices=("mean", "sum"))

    amp_level: str = _amp("O0", "mixed precision of training", choices=_AMP_LEVELS)
    val_amp_level: str = _amp("O0", "mixed precision of validation", choices=_AMP_LEVELS)
    amp_dtype: str = _amp("float16", "the number format of mixed precision", choices=("float16", "bfloat16"))
    amp_cast_list: Optional[list[str]] = _amp(None, "with O1: classes of layers in amp_dtype, instead of all products")
    loss_scale_type: str = _amp("fixed", "loss scaling", choices=("fixed", "dynamic", "auto"))
    loss_scale: float = _amp(1.0, "loss scale, or where the dynamic one starts", above=0)
    drop_overflow_update: bool = _amp(False, "leave out an update whose gradients overflow")
    # fmt: on

    given: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    required: ClassVar[tuple[str, ...]] = ("model",)

    def missing(self) -> list[str]:
        """The options that are required and not there; published weights of a model stand for a checkpoint."""
        required = ["model" if name == "ckpt_path" and self.pretrained else name for name in self.required]
        return [name for name in required if not getattr(self, name)]

    def as_dict(self) -> dict[str, Any]:
        """The value of every option by name."""
        return self.subset(*options_of(type(self)))

    def subset(self, *names: str) -> dict[str, Any]:
        """The values of some options by name, to pass on as keywords."""
        return {name: getattr(self, name) for name in names}

    def described(self) -> str:
        """A line for every option: its value, and where that came from."""
        rows = [(name, repr(value), self.given.get(name, "default")) for name, value in self.as_dict().items()]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        return "\n".join(f"{name:{widths[0]}}  {value:{widths[1]}}  {source}" for name, value, source in rows)

    def completed(self, values: Mapping[str, Any]) -> RunConfig:
        """A copy in which options that were not given have the values that a checkpoint holds.

        Args:
            values: option -> value; lists stand for tuples.

        Raises:
            ConfigError: no model is named, neither here nor there.
        """
        taken = {name: value for name, value in values.items() if name not in self.given}
        config = replace(self, **taken, given={**self.given, **dict.fromkeys(taken, "checkpoint")})
        if not config.model:
            raise ConfigError(["model: is required, since the checkpoint does not name one"])
        return config


@dataclass
class TrainConfig(RunConfig):
    """Train a model.

    With resume, what is not given is as it was in the interrupted run.
    """

    def missing(self) -> list[str]:
        """See `RunConfig.missing`; a run that is resumed has its model."""
        return [] if self.resume or self.resume_opt else super().missing()


@dataclass
class ValidateConfig(RunConfig):
    """Measure a model on the validation images.

    What is not given of the model and of how images are prepared comes from the checkpoint, if it holds that, or from
    what is known of the published weights.
    """

    required: ClassVar[tuple[str, ...]] = ("ckpt_path",)
    results_json: str = _result("", "write the metrics to this file")
    per_class_csv: str = _result("", "write the accuracy of each class to this file")
    confusion_matrix: str = _result("", "draw the confusion matrix to this picture")
    class_names_file: str = _result("", "text file with the names of the checkpoint's classes, one a line")
    restrict_classes: bool = _result(
        False, "predict only classes that have images, as is usual for a data set with some of ImageNet's classes"
    )


@dataclass
class InferConfig(RunConfig):
    """Classify images.

    What is not given of the model and of how images are prepared comes from the checkpoint, if it holds that, or from
    what is known of the published weights.
    """

    image_path: list[str] = _result(
        [], "images to classify: one or more files, folders or glob patterns; required", is_verbatim=True
    )
    top_k: int = _result(5, "classes told for each image", low=1)
    results_file: str = _result("", "write the classes to this .csv or .json file")
    picture: str = _result("", "draw the images with their classes to this picture")
    class_names_file: str = _result("", "text file with the names of the checkpoint's classes, one a line")
    required: ClassVar[tuple[str, ...]] = ("ckpt_path", "image_path")


_Config = TypeVar("_Config", bound=RunConfig)


def parse_args(
    argv: Optional[Sequence[str]] = None,
    config_class: type[_Config] = RunConfig,
    checks: Sequence[Callable[[RunConfig], list[str]]] = (),
) -> _Config:
    """The configuration of a run: the command line over the YAML file of `-c`/`--config` over the defaults.

    `--help` prints the options and exits. Flags cannot be abbreviated.

    Args:
        argv: the words after the script's name; those of this process if None.
        config_class: `RunConfig` or a class made from it.
        checks: each gives a sentence for every problem of the values that is beyond this module's knowledge.

    Raises:
        ConfigError: with a sentence for every problem there is, not only the first.
    """
    options = options_of(config_class)
    problems: list[str] = []
    flags, wants_help = read_command_line(sys.argv[1:] if argv is None else argv, options, problems)
    if wants_help:
        print(help_text(config_class.__doc__, options))
        raise SystemExit(0)
    raw: dict[str, tuple[str, Any]] = {}
    is_yaml_read = True
    if "config" in flags and len(flags["config"][1]) == 1:
        known_problems = len(problems)
        raw.update(read_yaml(flags["config"][1][0], options, problems))
        is_yaml_read = bool(raw) or len(problems) == known_problems
    raw.update(flags)

    values: dict[str, Any] = {}
    for name, (where, value) in raw.items():
        try:
            values[name] = read_value(options[name], value)
        except ValueError as error:
            problems.append(f"{where}: {error}")
    sources = {name: _source(where, name) for name, (where, _) in raw.items()}
    config = config_class(**values, given=sources)
    ill_typed = raw.keys() - values.keys()
    if is_yaml_read:  # else it might have named them
        problems += [f"{name}: is required" for name in config.missing() if name not in ill_typed]
    problems += cross_checks(config, options.keys() - ill_typed)
    for check in checks:
        problems += check(config)
    if problems:
        raise ConfigError(problems)
    return config


def _source(where: str, name: str) -> str:
    return "command line" if where.startswith("--") else where[: -len(f": {name}")]
