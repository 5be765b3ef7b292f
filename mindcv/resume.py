"""Which interrupted run a command line resumes, and with which options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional, TypeVar, Union

from mindcv.config import COMMAND_OPTIONS, MACHINE_OPTIONS, NEUTRAL_OPTIONS, PretrainConfig, RunConfig, TrainConfig
from mindcv.convert import is_pretraining_name
from mindcv.data import ImageDataset
from mindcv.engine.run_folder import find_checkpoints, is_without_state
from mindcv.engine.snapshot import SUFFIX, RunDescription, Snapshot, find_newest, read_snapshot
from mindcv.recipe import checkpoint_metadata, parse_command_line, show_if_asked, tell_warnings
from mindcv.recipe_data import holdout_digest
from mindcv.utils.distributed import Group, is_launched
from mindcv.utils.errors import CheckpointError, ConfigError, DataError, UserError
from mindcv.utils.locks import hold_folder
from mindcv.utils.logger import counted, logger

__all__ = ["check_agreement", "check_classes", "check_save_dir", "read_training_config", "run_description"]

# What may change without changing the numbers.
_FREE = (*COMMAND_OPTIONS, *MACHINE_OPTIONS, *NEUTRAL_OPTIONS)
# Options that decide which weights a snapshot holds, and of which shapes.
_SHAPING = ("model", "in_channels", "patch_size", "ema", "mask_patch_size", "decoder_embed_dim", "decoder_depth")
_MOST_LISTED = 4  # changed options in a warning
_Config = TypeVar("_Config", bound=RunConfig)


def read_training_config(config_class: type[_Config] = TrainConfig) -> tuple[_Config, Optional[Snapshot]]:
    """Read the options of the command line, and the snapshot to resume from if one is asked for.

    `config_class` is the configuration of a script that trains: `TrainConfig` or `PretrainConfig`.

    Options that are not given have the values of the interrupted run, and a warning lists given options that differ.
    The returned `overwrite` says whether `ckpt_save_dir` holds files of an earlier run that must be removed. This
    process then keeps other runs out of `ckpt_save_dir`, until `mindcv.utils.locks.release_folders`.

    Raises:
        ConfigError: see `parse_command_line`.
        CheckpointError: the named run does not exist, is damaged, or has other weights.
        UserError: another process trains into `ckpt_save_dir`, or it holds another run, which this one would overwrite.
    """
    config = parse_command_line(config_class)
    snapshot = None
    if not (is_launched() or config.print_config):
        _hold_before_reading(config)
    found = _find(config)
    if found is not None:
        path, snapshot = found
        _check_script(config, path, snapshot)
        config = _completed(config, path, snapshot.description.config)
        logger.info("resuming '%s': epoch %d, step %d", path, snapshot.progress.epoch, snapshot.progress.step)
        _tell_other_division(snapshot)
        if config.loss.startswith("asl"):  # its operators are not steady: decision 0071
            logger.warning("the asymmetric losses are not steady to the last bit: the run may go on slightly otherwise")
    else:
        config = config.completed({})  # checks options that `parse_command_line` leaves to a snapshot
        tell_warnings(config)
    show_if_asked(config)
    return (config if is_launched() else _with_overwrite(config, snapshot)), snapshot


def check_save_dir(config: _Config, snapshot: Optional[Snapshot], group: Group) -> _Config:
    """Check `ckpt_save_dir` as `read_training_config` does, for processes that a launcher started.

    Only the main process checks, because another host can have another folder of that name. If it refuses, all
    processes end. If it ended alone before the group was joined, msrun's scheduler would wait for it for minutes.

    Raises:
        UserError: see `read_training_config`.
    """
    if not is_launched():
        return config
    return group.together(lambda: _with_overwrite(config, snapshot) if group.is_main else config)


def run_description(config: TrainConfig, dataset: ImageDataset, started: float) -> RunDescription:
    """Describe a run for its snapshots; `started` is the time at which the process began."""
    return RunDescription(started, config.as_dict(), checkpoint_metadata(config, dataset), len(dataset))


def check_classes(snapshot: Snapshot, dataset: ImageDataset) -> None:
    """Raise a DataError if the data set numbers its classes differently from the interrupted run.

    Warn if the number of training images differs, or if other images are held out for validation.
    """
    before = snapshot.description.metadata["class_to_idx"]
    if before != dataset.class_to_idx:
        raise DataError(
            f"the training images are of {len(dataset.class_to_idx)} classes, and not of the {len(before)} that the "
            "saved run was trained on, in their order: a run goes on with the classes it began with"
        )
    num_images = snapshot.description.num_images
    if num_images not in (None, len(dataset)):
        logger.warning(
            "the training data had %s, and has %d now: the resumed run will not be bit-identical to the original one",
            counted(num_images, "image"),
            len(dataset),
        )
    held_out = snapshot.description.metadata.get("held_out")
    if held_out and held_out["digest"] != holdout_digest(dataset):
        logger.warning(
            "other images are held out for validation now than in the interrupted run, because files were added, "
            "removed or renamed or an option changed: the run may validate on images that it was trained on"
        )


def check_agreement(snapshot: Optional[Snapshot], group: Group) -> None:
    """Raise a CheckpointError if the processes would begin at different steps, because they share no folder."""
    step = snapshot.progress.global_step + 1 if snapshot else 0
    if group.sum_integers([step])[0] != step * group.size:
        raise CheckpointError("the processes do not see the same saved run: the folder must be one that all share")


def _find(config: RunConfig) -> Optional[tuple[Path, Snapshot]]:
    if config.resume == "auto":
        found = find_newest(config.ckpt_save_dir)
        if found is None:
            logger.info("nothing to resume in '%s': this is a new run", config.ckpt_save_dir)
            if not config.model:
                raise ConfigError(["model: is required, since there is no run to resume"])
        return found
    if config.resume or config.resume_opt:
        return _saved_at(Path(config.resume or config.ckpt_path))
    return None


def _check_script(config: RunConfig, path: Path, snapshot: Snapshot) -> None:
    """Raise a CheckpointError if the other kind of script made the snapshot at `path`."""
    is_pretraining = is_pretraining_name(snapshot.description.config["model"])
    if is_pretraining == isinstance(config, PretrainConfig):
        return
    if is_pretraining:
        raise CheckpointError(
            f"'{path}' is a run of pretrain.py: resume it with pretrain.py --resume {path.parent}, or train a "
            f"classifier from its encoder with train.py --pretrained_encoder {path.parent}"
        )
    raise CheckpointError(f"'{path}' is a run of train.py: resume it with train.py --resume {path.parent}")


def _saved_at(path: Path) -> tuple[Path, Snapshot]:
    """Find the snapshot in a folder, in a file, or beside a checkpoint file."""
    if path.is_dir():
        found = find_newest(path)
        if found is None:
            raise CheckpointError(f"folder '{path}' holds no saved run (*{SUFFIX})")
        return found
    if not path.exists() and not path.suffix:
        raise CheckpointError(f"there is no folder '{path}', and the run to resume is a folder or a file")
    file = path if path.name.endswith(SUFFIX) else path.with_name(path.stem + SUFFIX)
    if not file.is_file():
        there = ", ".join(sorted(other.name for other in file.parent.glob(f"*{SUFFIX}"))) or "none"
        missing = f"no saved run '{file}'"
        if file != path and path.is_file():
            missing = f"'{path}' is no saved run, and there is none beside it: '{file.name}'"
        raise CheckpointError(f"{missing} (in that folder there are: {there})")
    return file, read_snapshot(file)


def _hold_before_reading(config: RunConfig) -> None:
    """Lock the folder of the run, if it exists, because another process could be writing the files that are read."""
    folder = Path(config.ckpt_save_dir)
    if config.resume != "auto" and (config.resume or config.resume_opt) and "ckpt_save_dir" not in config.given:
        path = Path(config.resume or config.ckpt_path)
        folder = path if path.is_dir() else path.parent
        if not any(folder.glob(f"*{SUFFIX}")):  # a mistyped path, whose error comes later
            return
    if folder.is_dir() and not config.print_param_groups:
        _hold(folder)


def _hold(folder: Union[str, Path]) -> None:
    """Keep other runs out of `folder`.

    Raises:
        UserError: another process trains into it.
    """
    holder = hold_folder(folder, "start only one run at a time in this folder")
    if holder:
        raise UserError(
            f"ckpt_save_dir '{folder}' is in use by another run ({holder}): wait until that run ends, stop it, or give "
            "another --ckpt_save_dir"
        )


def _with_overwrite(config: _Config, snapshot: Optional[Snapshot]) -> _Config:
    """The config, whose `overwrite` then says whether files in `ckpt_save_dir` are to be removed.

    Raises:
        UserError: they must not be, or another process trains into `ckpt_save_dir`.
    """
    if config.print_param_groups:
        return config
    _hold(config.ckpt_save_dir)
    is_own = snapshot is not None and snapshot.folder.resolve() == Path(config.ckpt_save_dir).resolve()
    if is_own and config.overwrite:
        logger.warning("overwrite removes nothing: the run that '%s' holds is resumed", config.ckpt_save_dir)
    return replace(config, overwrite=not is_own and _overwrites(config))


def _overwrites(config: RunConfig) -> bool:
    files = find_checkpoints(config.ckpt_save_dir)
    if not files:
        return False
    if config.overwrite:
        for name in ("ckpt_path", "pretrained_encoder", "teacher_ckpt_path"):
            path = getattr(config, name)
            if path and Path(path).resolve() in [file.resolve() for file in files]:
                raise UserError(f"overwrite would remove {name} '{path}': give another ckpt_save_dir")
        return True
    # A run that was killed before its first snapshot begins again; it loses at most an epoch.
    if config.resume == "auto" and is_without_state(config.ckpt_save_dir):
        return True
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    is_saved = any(file.name.endswith(SUFFIX) for file in files)
    raise UserError(
        f"ckpt_save_dir '{config.ckpt_save_dir}' holds an earlier run ({files[0].name}{more}), which this run would "
        "overwrite: give another --ckpt_save_dir, "
        + (f"go on with that run (--resume {config.ckpt_save_dir}), " if is_saved else "")
        + "or remove it with --overwrite True"
    )


def _completed(config: _Config, path: Path, before: Mapping[str, Any]) -> _Config:
    """Return the configuration; options that are not given have the values of the snapshot at `path`."""
    values = {name: value for name, value in before.items() if name not in COMMAND_OPTIONS + MACHINE_OPTIONS}
    config = config.completed({**values, "ckpt_save_dir": str(path.parent)})
    _check_shaping(config, path, before)
    tell_warnings(config)
    _tell_other_folder(config, path.parent)
    _tell_changed(config, before)
    return config


def _check_shaping(config: RunConfig, path: Path, before: Mapping[str, Any]) -> None:
    """Raise a CheckpointError if options ask for other weights than the snapshot at `path` holds."""
    after = config.as_dict()
    differing = [
        name
        for name in _SHAPING
        if name in before and name in after and _without_tag(before[name]) != _without_tag(after[name])
    ]
    if differing:
        listed = ", ".join(f"{name} is {before[name]} there and {after[name]} here" for name in differing)
        these = "this option" if len(differing) == 1 else "these options"
        way_out = "leave --config out" if _in_recipe(config, differing) else f"leave {these} out"
        raise CheckpointError(
            f"the saved run '{path}' has other weights: {listed}; {way_out}, or begin a new run in another "
            "--ckpt_save_dir"
        )


def _in_recipe(config: RunConfig, names: Sequence[str]) -> bool:
    """Return whether a recipe sets one of these options."""
    return any(config.given.get(name) not in (None, "command line") for name in names)


def _without_tag(value: Any) -> Any:
    """Return a model's name without the tag of published weights, from which the run may have begun."""
    return value.partition(".")[0] if isinstance(value, str) else value


def _tell_other_folder(config: RunConfig, resumed: Path) -> None:
    """Warn if a recipe, and not the command line, names another folder than that of the interrupted run."""
    source = config.given.get("ckpt_save_dir", "")
    if source not in ("checkpoint", "command line") and Path(config.ckpt_save_dir).resolve() != resumed.resolve():
        logger.warning(
            "ckpt_save_dir: the resumed run writes to '%s' of %s, and not to '%s', which it is resumed from; leave "
            "--config out to stay there",
            config.ckpt_save_dir,
            source,
            resumed,
        )


def _tell_changed(config: RunConfig, before: Mapping[str, Any]) -> None:
    """Warn about options that differ from the interrupted run and change its numbers."""
    after = {name: _as_json(value) for name, value in config.as_dict().items() if name not in _FREE}
    changed = [name for name, value in after.items() if name in before and value != before[name]]
    if not changed:
        return
    listed = ", ".join(f"{name}: {before[name]!r} -> {after[name]!r}" for name in changed[:_MOST_LISTED])
    listed += f" and {len(changed) - _MOST_LISTED} more" if len(changed) > _MOST_LISTED else ""
    logger.warning(
        "%s not as in the interrupted run, so the resumed run may not be bit-identical to the original one: %s%s",
        "1 option is" if len(changed) == 1 else f"{len(changed)} options are",
        listed,
        "; leave --config out to keep the options of the interrupted run" if _in_recipe(config, changed) else "",
    )


def _tell_other_division(snapshot: Snapshot) -> None:
    """Warn about a run whose images an earlier version divided between several processes in another way."""
    before, images_per_step = snapshot.description.config, snapshot.progress.images_per_step
    images_per_process = before.get("batch_size", images_per_step) * before.get("gradient_accumulation_steps", 1)
    if snapshot.description.division == RunDescription.division or images_per_step <= images_per_process:
        return
    is_mixed = before.get("mixup") or before.get("cutmix") or before.get("cutmix_minmax")
    logger.warning(
        "the saved run was made by an earlier version of mindcv, which divided the images of a step between processes "
        "in another way%s: the resumed run will not be bit-identical to the original one",
        " and mixed other images with each other" if is_mixed else "",
    )


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
