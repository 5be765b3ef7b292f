"""Validation of many checkpoints, from a configuration: one row of a CSV file each."""

from __future__ import annotations

import csv
import gc
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from mindcv.config import NEUTRAL_OPTIONS, ValidateAllConfig
from mindcv.convert import find_checkpoint_files
from mindcv.convert.averaging import file_digest
from mindcv.export import EXPORT_SUFFIXES, files_of_exported, is_exported
from mindcv.models import list_models
from mindcv.models.pretrained import list_pretrained_tags, pretrained_weights
from mindcv.recipe_validate import Measured, measure_predictions
from mindcv.utils.errors import MissingSplitError, UserError, unknown_name
from mindcv.utils.files import atomic_write_text
from mindcv.utils.logger import logger

__all__ = ["validate_all"]

_METRICS = ("num_images", "top_1", "top_5", "loss", "ece", "real_top_1")
_OPTIONS = ("image_resize", "crop_pct", "interpolation")
_COLUMNS = ("checkpoint", "model", "num_classes", *_OPTIONS, *_METRICS, "images_per_s", "settings", "sha256", "error")
# Options that do not change a figure, or that the other columns show.
_NO_SETTINGS = {
    *("checkpoints", "models", "results_csv", "repeat", "config", "model", "num_classes", "print_config"),
    *("batch_size", "mode", "device_target", "jit_level"),
} | {name for name in NEUTRAL_OPTIONS if name != "data_dir"}

_Row = dict[str, str]


def validate_all(config: ValidateAllConfig) -> Iterator[_Row]:
    """Measure each checkpoint that the configuration names, and yield its row once it is in the file.

    Rows that the file has are kept and yielded too, unless `repeat` says otherwise. The row of a file that has changed
    since is measured again.

    Raises:
        UserError: there is no such checkpoint or model, or the rows of the file were measured with other options.
        MissingSplitError: the data set has no images for validation.
    """
    # A YAML file may also hold options that this tool does not use.
    given = {name: value for name, value in sorted(config.as_dict().items()) if name in config.given}
    settings = json.dumps({name: value for name, value in given.items() if name not in _NO_SETTINGS})
    rows = _read_rows(config.results_csv)
    if config.repeat == "all":
        rows = {}
    elif config.repeat == "failed":
        rows = {name: row for name, row in rows.items() if not row["error"]}
    _check_settings(rows, settings, config.results_csv)
    for name, one in _single_configs(config).items():
        digest = _digest(name, one.pretrained)
        known = rows.get(name)
        if known is None or known["sha256"] != digest:
            if known is not None:
                logger.info("%s: the file has changed, so it is measured again", name)
            rows[name] = {**dict.fromkeys(_COLUMNS, ""), "checkpoint": name, "settings": settings, "sha256": digest}
            rows[name].update(_measure(one))
            _write_rows(config.results_csv, rows)
        yield rows[name]


def _digest(name: str, is_published: bool) -> str:
    """Return the SHA-256 digest of the weights; "" if it is unknown or the file cannot be read.

    If an exported file has other files beside it, the digest is that of the digests of all of them.
    """
    if is_published:
        return pretrained_weights(name).sha256 or ""
    try:
        digests = [file_digest(path) for path in (files_of_exported(name) if is_exported(name) else [name])]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    except OSError:  # the row will say why
        return ""


def _single_configs(config: ValidateAllConfig) -> dict[str, ValidateAllConfig]:
    """Return the configuration of the validation of each checkpoint, by the name of the checkpoint."""
    files = find_checkpoint_files(config.checkpoints, EXPORT_SUFFIXES) if config.checkpoints else []
    singles = {path: replace(config, ckpt_path=path) for path in files}
    for pattern in config.models:
        models = [model for model in list_models() if fnmatchcase(model, pattern)]
        tags = [f"{model}.{tag}" for model in models for tag in list_pretrained_tags(model)]
        with_classifier = [name for name in tags if pretrained_weights(name).num_classes]
        if not models:
            raise UserError(unknown_name("models:", pattern, list_models()))
        if not with_classifier:
            raise UserError(f"models: '{pattern}' has no published weights with a classifier")
        if len(with_classifier) < len(tags):
            others = len(tags) - len(with_classifier)
            logger.info("%s: %d published weights have no classifier and are left out", pattern, others)
        for name in with_classifier:
            given = {**config.given, "model": "models", "pretrained": "models"}
            singles[name] = replace(config, model=name, pretrained=True, given=given)
    return singles


def _measure(config: ValidateAllConfig) -> _Row:
    """Return the columns that a measurement fills."""
    try:
        measured = measure_predictions(config)
    except MissingSplitError:  # no checkpoint can be measured
        raise
    except UserError as error:
        return {"model": config.model, "error": " ".join(str(error).split())}
    finally:
        gc.collect()  # a network and its compiled graph refer to each other
    return _columns_of(measured)


def _columns_of(measured: Measured) -> _Row:
    config, metrics = measured.config, measured.metrics
    columns = {"model": config.model, "num_classes": str(metrics["num_classes"])}
    columns |= {name: str(getattr(config, name)) for name in _OPTIONS}
    columns |= {name: f"{metrics[name]:.6g}" for name in _METRICS if name in metrics}
    return {**columns, "images_per_s": f"{metrics['images_per_s']:.1f}"}


def _check_settings(rows: Mapping[str, _Row], settings: str, path: str) -> None:
    others = {row["settings"] for row in rows.values()} - {settings}
    if others:
        raise UserError(
            f"results_csv '{path}' has rows that were measured with other options: {min(others)}, and the options are "
            f"now {settings}: give another file, or --repeat all"
        )


def _read_rows(path: str) -> dict[str, _Row]:
    """Return the rows of an earlier run by checkpoint; {} if there is no file.

    Raises:
        UserError: the file is not such a table.
    """
    if not os.path.exists(path) or not os.path.getsize(path):
        return {}
    try:
        reader = csv.DictReader(io.StringIO(Path(path).read_text(encoding="utf-8")))
        rows = {row["checkpoint"]: row for row in reader} if tuple(reader.fieldnames or ()) == _COLUMNS else None
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"results_csv '{path}' cannot be read: {error}") from None
    if rows is None:
        raise UserError(f"results_csv '{path}' is not a table of this tool: give the name of another file")
    return rows


def _write_rows(path: str, rows: Mapping[str, _Row]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows.values())
    atomic_write_text(path, text.getvalue())
