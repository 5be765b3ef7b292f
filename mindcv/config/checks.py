"""Rules between options. The type and range of each option are checked elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Optional

from mindcv.data.constants import DOWNLOADABLE_DATASETS, FASHION_MNIST_SOURCES
from mindcv.data.five_crop import five_crop_problem
from mindcv.data.mixup import group_size_problem
from mindcv.export import EXPORT_FORMATS, is_exported
from mindcv.optim.optim_factory import betas_problem, nesterov_momentum_problem, nesterov_problem
from mindcv.scheduler.dynamic_lr import milestones_problem
from mindcv.scheduler.scheduler_factory import min_lr_problem, warmup_problem, warmup_start_problem
from mindcv.utils.patch_masks import mask_ratio_problem

__all__ = ["cross_checks", "exported_file_problems", "without_network_options"]

# Picture formats that Pillow can write, and those that matplotlib can write.
_PICTURES = (".png", ".jpg", ".jpeg", ".webp")
_FIGURES = (*_PICTURES, ".pdf", ".svg")
_EXPORTED = tuple(f".{name}" for name in EXPORT_FORMATS)

_Check = tuple[Sequence[str], Callable[[Any], bool], str]


def _increasing(pair: tuple[float, float]) -> bool:
    return pair[0] <= pair[1]


def _multiple_problem(value: int, unit: int, name: str) -> str:
    return f"must be a multiple of {unit}, {name}, got {value}" if value % unit else ""


def _export_name_problem(dst: str, export_format: Optional[str]) -> str:
    suffix = Path(dst).suffix.lower()
    if export_format is None:
        return "" if suffix in _EXPORTED else f"its name must end in {', '.join(_EXPORTED)}, and it is '{dst}'"
    if suffix == f".{export_format}":
        return ""
    return f"its name must end in .{export_format} because format is {export_format}, and it is '{dst}'"


# (the options looked at, whether all is well, what is wrong otherwise); a bound of one number
# stands with its option.
_CHECKS: tuple[_Check, ...] = (
    (
        ("dataset", "dataset_download"),
        lambda c: not c.dataset_download or c.dataset in (*DOWNLOADABLE_DATASETS, "fashion_mnist"),
        f"dataset_download: only the data sets {', '.join(DOWNLOADABLE_DATASETS)} can be downloaded",
    ),
    (
        ("dataset", "dataset_download"),
        lambda c: not c.dataset_download or c.dataset != "fashion_mnist",
        f"dataset_download: fashion_mnist cannot be downloaded: {FASHION_MNIST_SOURCES}",
    ),
    *(
        ((name,), lambda c, name=name: _increasing(getattr(c, name)), f"{name}: the first number is above the second")
        for name in ("scale", "ratio", "re_scale", "re_ratio")
    ),
    (
        ("cutmix_minmax",),
        lambda c: c.cutmix_minmax is None or _increasing(c.cutmix_minmax),
        "cutmix_minmax: the first number is above the second",
    ),
    *(
        (
            (name, "in_channels"),
            lambda c, name=name: len(getattr(c, name)) == c.in_channels,
            f"{name}: needs one number for each of in_channels, 3 for colour or 1 for grey images",
        )
        for name in ("mean", "std")
    ),
    (
        ("patch_size", "image_resize"),
        lambda c: 8 * c.patch_size <= c.image_resize,
        "patch_size: is above an eighth of image_resize, so the last stage of the model would have no pixel",
    ),
    (
        ("color_jitter",),
        lambda c: not isinstance(c.color_jitter, list) or len(c.color_jitter) in (3, 4),
        "color_jitter: a list needs 3 numbers (brightness, contrast, saturation), or 4 with hue",
    ),
    (
        ("re_value", "in_channels"),
        lambda c: not isinstance(c.re_value, list) or len(c.re_value) == c.in_channels,
        "re_value: a list needs one number for each of in_channels",
    ),
    (
        ("ckpt_save_dir",),
        lambda c: bool(c.ckpt_save_dir.strip()),
        "ckpt_save_dir: is empty, and the folder for the checkpoints is expected; '.' is the current folder",
    ),
    (
        ("ckpt_save_policy", "val_while_train"),
        lambda c: c.ckpt_save_policy != "top_k" or c.val_while_train,
        "ckpt_save_policy: top_k keeps the checkpoints that validate best, so it needs val_while_train: True",
    ),
    (
        ("ckpt_save_policy", "ckpt_save_interval", "val_interval"),
        lambda c: c.ckpt_save_policy != "top_k" or c.ckpt_save_interval % c.val_interval == 0,
        "ckpt_save_interval: with top_k it must be a multiple of val_interval, so that each saved epoch is validated",
    ),
    (
        ("scheduler", "lr", "min_lr"),
        lambda c: c.scheduler not in ("cosine_decay", "one_cycle", "cyclic") or c.min_lr <= c.lr,
        "min_lr: is above lr, the learning rate that it is the lowest value of",
    ),
    (
        ("amp_cast_list", "amp_level"),
        lambda c: not c.amp_cast_list or c.amp_level == "O1",
        "amp_cast_list: is used with amp_level: O1 only",
    ),
    (
        ("loss", "aug_splits"),
        lambda c: (c.loss == "JSD") == (c.aug_splits > 0) and c.aug_splits != 1,
        "aug_splits: loss JSD needs 2 or more versions of each image, and no other loss uses them",
    ),
    (
        ("teacher_model", "teacher_ckpt_path"),
        lambda c: bool(c.teacher_model) == bool(c.teacher_ckpt_path),
        "teacher_model: distillation needs both teacher_model and teacher_ckpt_path",
    ),
    (
        ("early_stopping_patience", "val_while_train"),
        lambda c: c.early_stopping_patience is None or c.val_while_train,
        "early_stopping_patience: needs val_while_train: True, since it counts validations",
    ),
    (
        ("jit_level", "mode"),
        lambda c: c.jit_level is None or c.mode == 0,
        "jit_level: is used in graph mode (mode 0) only",
    ),
    (
        ("compile_cache_dir", "mode"),
        lambda c: not c.compile_cache_dir or c.mode == 0,
        "compile_cache_dir: is used in graph mode (mode 0) only",
    ),
    (
        ("resume", "resume_opt"),
        lambda c: not (c.resume and c.resume_opt),
        "resume_opt: cannot stand beside resume, which names the run itself",
    ),
    (
        ("resume_opt", "ckpt_path"),
        lambda c: not c.resume_opt or c.ckpt_path,
        "resume_opt: needs ckpt_path, a checkpoint of the run to resume",
    ),
    (
        ("pretrained", "ckpt_path"),
        lambda c: not (c.pretrained and c.ckpt_path) or c.resume_opt,
        "pretrained: give either pretrained or ckpt_path, since each names the weights to load",
    ),
    *(
        (
            ("pretrained_encoder", other),
            lambda c, other=other: not (c.pretrained_encoder and getattr(c, other)),
            f"pretrained_encoder: give either pretrained_encoder or {other}, since each names the weights to load",
        )
        for other in ("pretrained", "ckpt_path")
    ),
    (
        ("results_file",),
        lambda c: not c.results_file or c.results_file.lower().endswith((".csv", ".json")),
        "results_file: its name must end in .csv or .json",
    ),
    (
        ("dst", "checkpoints"),
        lambda c: not c.dst or c.dst.lower().endswith(".ckpt"),
        "dst: its name must end in .ckpt",
    ),
    (
        ("output",),
        lambda c: not c.output or c.output.lower().endswith((".npz", ".safetensors")),
        "output: its name must end in .npz or .safetensors",
    ),
    (
        ("dst", "with_preprocess"),
        lambda c: not c.with_preprocess or not c.dst or c.dst.lower().endswith(".onnx"),
        "with_preprocess: only an ONNX file can hold the preprocessing",
    ),
    (
        ("with_softmax", "features_only"),
        lambda c: not (c.with_softmax and c.features_only),
        "with_softmax: the feature maps of features_only have no probabilities",
    ),
    (
        ("out_indices", "features_only"),
        lambda c: c.out_indices is None or c.features_only,
        "out_indices: selects feature maps, so it needs features_only: True",
    ),
    (
        ("image_size", "image_resize"),
        lambda c: c.image_size is None or c.given.get("image_resize") != "command line",
        "image_size: give either image_size or image_resize, which say the same of an exported file",
    ),
    (
        ("image_size", "patch_size"),
        lambda c: c.image_size is None or 8 * c.patch_size <= c.image_size,
        "image_size: is below 8 times patch_size, so the last stage of the model would have no pixel",
    ),
    (
        ("compare_with", "compare_model"),
        lambda c: bool(c.compare_with) or not c.compare_model,
        "compare_model: has no effect without compare_with",
    ),
    (
        ("probe", "probe_k"),
        lambda c: c.probe == "knn" or c.given.get("probe_k") != "command line",
        "probe_k: is used with probe: knn only",
    ),
    *(
        (
            ("probe", name),
            lambda c, name=name: not (c.probe and getattr(c, name)),
            f"{name}: cannot stand beside probe, whose classes are those of the training images",
        )
        for name in ("class_names_file", "restrict_classes")
    ),
    *(
        (
            ("probe", name),
            lambda c, name=name: not (c.probe and getattr(c, name)),
            f"{name}: cannot stand beside probe, which does not use the probabilities of a classifier",
        )
        for name in ("reliability_plot", "confused_pairs", "real_labels")
    ),
    (
        ("probe", "tta"),
        lambda c: not c.probe or c.tta == "none",
        "tta: cannot stand beside probe, which does not use the probabilities of a classifier",
    ),
    (
        ("val_fraction", "val_split"),
        lambda c: {c.given.get("val_fraction"), c.given.get("val_split")} != {"command line"} or not c.val_fraction,
        "val_fraction: holds out training images to validate on, so val_split has no use beside it",
    ),
    *(
        (
            (name,),
            lambda c, name=name: not getattr(c, name) or getattr(c, name).lower().endswith(_PICTURES),
            f"{name}: must end in {', '.join(_PICTURES)}",
        )
        for name in ("picture", "confused_pairs")
    ),
    *(
        (
            (name,),
            lambda c, name=name: not getattr(c, name) or getattr(c, name).lower().endswith(_FIGURES),
            f"{name}: must end in {', '.join(_FIGURES)}",
        )
        for name in ("confusion_matrix", "reliability_plot")
    ),
    (
        ("explain", "explain_picture"),
        lambda c: c.explain is None or c.explain_picture.lower().endswith(_PICTURES),
        f"explain_picture: must end in {', '.join(_PICTURES)}",
    ),
    (
        ("explain", "explain_stage", "image_resize", "patch_size"),
        lambda c: c.explain is None or c.image_resize >= 2 * c.patch_size * 2**c.explain_stage,
        "explain_stage: the map of this stage has a single cell at this image_resize, so a heat map shows nothing; "
        "give a smaller explain_stage",
    ),
    *(
        (
            ("explain", name),
            lambda c, name=name: c.explain is not None or c.given.get(name) != "command line",
            f"{name}: has no effect without explain",
        )
        for name in ("explain_picture", "explain_images", "explain_stage")
    ),
)


# (options that the rule reads, option that the message names, function that returns the problem or
# ''). The factories apply the same rules to their arguments.
_FACTORY_RULES: tuple[tuple[Sequence[str], str, Callable[[Any], str]], ...] = (
    (
        ("scheduler", "warmup_epochs", "lr_epoch_stair"),
        "scheduler",
        lambda c: warmup_problem(c.scheduler, c.warmup_epochs, c.lr_epoch_stair),
    ),
    (
        ("warmup_lr", "warmup_factor"),
        "warmup_lr",
        lambda c: warmup_start_problem(c.warmup_factor, c.warmup_lr),
    ),
    (
        ("multi_step_decay_milestones",),
        "multi_step_decay_milestones",
        lambda c: milestones_problem(c.multi_step_decay_milestones),
    ),
    (("dst", "format"), "dst", lambda c: _export_name_problem(c.dst, c.format) if c.dst else ""),
    (("opt", "betas"), "betas", lambda c: betas_problem(c.opt, len(c.betas)) if c.betas else ""),
    (("scheduler", "min_lr"), "min_lr", lambda c: min_lr_problem(c.scheduler, c.min_lr)),
    (("opt", "use_nesterov"), "use_nesterov", lambda c: nesterov_problem(c.opt, c.use_nesterov)),
    (
        ("opt", "use_nesterov", "momentum"),
        "use_nesterov",
        lambda c: nesterov_momentum_problem(c.opt, c.use_nesterov, c.momentum),
    ),
    (
        ("mixup_group_size", "batch_size"),
        "mixup_group_size",
        lambda c: group_size_problem(c.mixup_group_size, c.batch_size) if c.mixup_group_size else "",
    ),
    (
        ("mask_patch_size", "patch_size"),
        "mask_patch_size",
        lambda c: _multiple_problem(c.mask_patch_size, 8 * c.patch_size, "the encoder's reduction (8 * patch_size)"),
    ),
    (
        ("tta", "image_resize", "crop_pct"),
        "tta",
        lambda c: five_crop_problem(c.image_resize, c.crop_pct) if c.tta == "ten_crop" else "",
    ),
    (
        ("image_resize", "mask_patch_size"),
        "image_resize",
        lambda c: _multiple_problem(c.image_resize, c.mask_patch_size, "which is mask_patch_size"),
    ),
    (
        ("image_resize", "mask_patch_size", "mask_ratio"),
        "mask_ratio",
        lambda c: mask_ratio_problem(c.mask_ratio, max(c.image_resize // c.mask_patch_size, 1) ** 2),
    ),
)


# The scripts that take an exported file as `ckpt_path`. Other tools read their options through them.
_TAKE_EXPORTED_FILES = ("validate.py", "infer.py")
# Option of training -> what to give instead of an exported file.
_NEEDS_CHECKPOINT = {
    **dict.fromkeys(("teacher_ckpt_path", "pretrained_encoder"), "give the checkpoint that it was exported from"),
    "resume": "give the folder of the run",
}
# Option -> (whether its value needs the layers of a network, what to do instead).
_NEEDS_LAYERS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "explain": (lambda c: bool(c.explain), "give the checkpoint to draw heat maps"),
    "probe": (lambda c: bool(c.probe), "give the checkpoint to measure its features"),
    "ema": (lambda c: c.ema, "leave ema out; tools/export.py --ema True exports the averaged weights"),
    "val_amp_level": (
        lambda c: c.val_amp_level != "O0",
        "leave val_amp_level out; tools/export.py --half True exports a file that computes in float16",
    ),
    "patch_size": (lambda c: c.given.get("patch_size") == "command line", "leave patch_size out"),
}


# Options of training recipes that have no meaning for an exported file -> the value of a run without them.
_OF_RECIPES = {"ema": False, "val_amp_level": "O0"}


def without_network_options(config: Any) -> tuple[Any, list[str]]:
    """Return a configuration without the options of a recipe that have no meaning for an exported file.

    The configuration stays as it is if `ckpt_path` is no exported file. What the command line gives stays too.

    Returns:
        The configuration, and a sentence for each option that was left out.
    """
    if not is_exported(config.ckpt_path):
        return config, []
    left_out = {
        name: value
        for name, value in _OF_RECIPES.items()
        if getattr(config, name) != value and config.given.get(name, "command line") != "command line"
    }
    sentences = [
        f"{name}: {getattr(config, name)} ({config.given[name]}) is not used, because the exported file "
        f"'{config.ckpt_path}' is a finished network"
        for name in left_out
    ]
    return replace(config, **left_out) if left_out else config, sentences


def exported_file_problems(config: Any) -> list[str]:
    """Return a sentence for each option that cannot stand beside an exported file as `ckpt_path`."""
    return [
        f"{name}: cannot be used with '{config.ckpt_path}', because an exported file is a finished network: {way_out}"
        for name, (is_used, way_out) in _NEEDS_LAYERS.items()
        if hasattr(config, name) and is_used(config)
    ]


def cross_checks(config: Any, names: Collection[str]) -> list[str]:
    """Return a sentence for each broken rule between the options `names`; other options are not checked."""
    problems = [says for looked_at, is_well, says in _CHECKS if set(looked_at) <= set(names) and not is_well(config)]
    for looked_at, option, find_problem in _FACTORY_RULES:
        problem = find_problem(config) if set(looked_at) <= set(names) else ""
        problems += [f"{option}: {problem}"] if problem else []
    if "ckpt_path" in names and is_exported(config.ckpt_path):
        if config.script in _TAKE_EXPORTED_FILES:
            problems += exported_file_problems(config)
        else:
            problems.append(
                f"ckpt_path: '{config.ckpt_path}' is an exported file, which only validate.py, infer.py, "
                "tools/validate_all.py and tools/report.py take: give the checkpoint that it was exported from"
            )
    problems += [
        f"{name}: '{getattr(config, name)}' is an exported file, which training cannot start from: {way_out}"
        for name, way_out in _NEEDS_CHECKPOINT.items()
        if name in names and is_exported(getattr(config, name))
    ]
    return problems
