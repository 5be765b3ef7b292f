"""Reads checkpoint files of any format. The content of a file decides its format, not its suffix.

The formats are PyTorch's zip archive and its older format, safetensors, MindSpore's `.ckpt`, and an index of shards
(PyTorch or safetensors). A suffix is unreliable: PyTorch Lightning writes zip archives whose names end in `.ckpt`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from mindcv.convert.ckpt_file import METADATA_KEY, read_ckpt
from mindcv.convert.file_bytes import existing_file, quoted
from mindcv.convert.safetensors_file import parse_json, read_safetensors
from mindcv.convert.torch_file import read_torch_file
from mindcv.convert.torch_values import NumpyArray, TorchTensor
from mindcv.utils.errors import CheckpointError
from mindcv.utils.logger import logger

__all__ = [
    "INDEX_SUFFIX",
    "SNAPSHOT_SUFFIX",
    "CheckpointContents",
    "checkpoint_in",
    "open_checkpoint",
    "read_checkpoint",
]

# Entries of a PyTorch training state that hold the weights, and entries that hold their moving
# average.
_WEIGHTS = ("model", "state_dict", "model_state_dict", "module", "params", "student")
_EMA = ("model_ema", "ema", "state_dict_ema", "ema_state_dict", "params_ema", "teacher")
# Prefixes that wrappers of a network add to all parameter names: data-parallel training and
# compilation.
_WRAPPERS = ("module.", "_orig_mod.")

# MindSpore and MindCV save training state beside the weights: copies of each weight under a prefix
# of their own ...
_EMA_PREFIX = "ema."
_TRAINING_COPIES = re.compile(
    r"((?:n?adam|adan|lamb|lion)_\w+|moments?\d?|vhat|mean_square|mean_grad|accum|accum_update|accumulated|stat|exp_avg)"
    r"\.(.+)"
)
# ... and counters.
_TRAINING_STATE = re.compile(
    r"learning_rate(_.*)?|lr|global_step|beta[12]_power|momentum|momentum_product|scale_sense|loss_scale(_good_steps)?"
    r"|current_iterator_step|last_overflow_iterator_step|epoch_num|step_num|ema_updates"
)
# Training state that the snapshots of this library hold beside the weights.
_RUN_STATE = re.compile(r"(optimizer|loss_scale|network_state|ema_state)\..+")
# Metadata key of this library's files. It says which weights training validated: "ema", or "online"
# for those of the last step.
_VALIDATED = "validated_weights"
# Name prefixes in a file that holds a student and its teacher. In self-distillation the teacher is
# the moving average of the student, so `ema` chooses between them.
_STUDENT, _TEACHER = "student.", "teacher."

# Standard file names to look for in a folder. The first that exists is read.
_STANDARD_NAMES = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)
_MAX_INDEX = 100_000_000  # bytes
_MAX_NESTING = 4  # {"state_dict": {"module": {...}}} has two
_ARRAYS = (np.ndarray, TorchTensor, NumpyArray)
INDEX_SUFFIX = ".index.json"
_MEASURABLE = (".onnx", ".mindir")  # ends of the names of exported files that the scripts can run
_EXPORTED = (*_MEASURABLE, ".air")  # ends of the names of files that tools/export.py writes
_FOLDER_PATTERNS = (f"*{INDEX_SUFFIX}", "*.safetensors", "*.bin", "*.ckpt", "*.pth", "*.pt")
SNAPSHOT_SUFFIX = ".resume.safetensors"  # snapshots for resuming a run lie beside the files of weights


@dataclass(frozen=True)
class CheckpointContents:
    """The weights and the metadata of a checkpoint.

    Attributes:
        arrays: name in the file -> array.
        metadata: JSON values in a file of this library, strings in a safetensors file of other software, the metadata
            of the index for shards, and {} for formats without metadata.
    """

    arrays: dict[str, np.ndarray]
    metadata: dict[str, Any]


def read_checkpoint(path: Union[str, os.PathLike], ema: Optional[bool] = None) -> dict[str, np.ndarray]:
    """Return the weights of a checkpoint of any format under the names in the file. PyTorch is not needed.

    Args:
        path: file of PyTorch, safetensors or MindSpore, an index of shards, or a folder that holds one of them.
        ema: True returns the moving average of the weights, which the file must hold, and False the weights of the
            last step. None returns whichever of the two training validated, if the file says so, and otherwise the
            weights of the last step.

    Returns:
        Name -> array. Arrays may be read-only views of the mapped file with any strides. bfloat16 is converted to
        float32, and other types stay.

    Raises:
        CheckpointError: the file cannot be read or holds no such weights (see `open_checkpoint`).
    """
    return open_checkpoint(path, ema).arrays


def open_checkpoint(path: Union[str, os.PathLike], ema: Optional[bool] = None) -> CheckpointContents:
    """Read the weights and the metadata of a checkpoint of any format.

    Weights inside a training state (under "model", "state_dict" and so on) are extracted, and a prefix "module." that
    all names share is removed. If a file holds a student and its teacher, the student is returned, or the teacher if
    `ema` is on. One line in the log names the entries that are left out (optimizer, counters, entries that are not
    arrays), and another names arrays that contain NaN or infinity.

    Args:
        path: see `read_checkpoint`.
        ema: see `read_checkpoint`.

    Raises:
        CheckpointError: the file does not exist, has no known format, is damaged, or contains code; or it holds no
            weights, several sets of weights, or not the weights that `ema` asks for.
    """
    file = checkpoint_in(Path(path))
    try:
        tree, metadata = _read_any(file)
        if ema is None and _validated_average(tree, metadata):
            ema = True
            logger.info("%s: the averaged weights (ema) are used, because training validated them", file)
        arrays, left_out = _weights_of(tree, bool(ema))
    except CheckpointError as error:
        names_file = f"'{file}'" in str(error)
        raise CheckpointError(str(error) if names_file else f"checkpoint '{file}': {error}") from None
    if left_out:
        logger.info("%s: left out: %s", file, _shortened(left_out))
    not_finite = [name for name, array in arrays.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
    if not_finite:
        logger.warning("%s: %d array(s) contain NaN or infinity: %s", file, len(not_finite), _shortened(not_finite))
    return CheckpointContents(arrays, metadata)


def _validated_average(tree: Any, metadata: dict[str, Any]) -> bool:
    """Tell whether training validated the moving averages and the file holds them."""
    return metadata.get(_VALIDATED) == "ema" and any(str(name).startswith(_EMA_PREFIX) for name in tree)


def checkpoint_in(path: Path) -> Path:
    """Return `path` if it is a file, and the only checkpoint in it if it is a folder.

    Raises:
        CheckpointError: there is no such file, or the folder does not hold exactly one checkpoint.
    """
    if not path.is_dir():
        return existing_file(path)
    for name in _STANDARD_NAMES:
        if (path / name).is_file():
            return path / name
    for pattern in _FOLDER_PATTERNS:
        files = [file for file in path.glob(pattern) if not file.name.endswith(SNAPSHOT_SUFFIX)]
        if len(files) == 1:
            return files[0]
        if files:
            best, *others = sorted(files, key=_by_best_first)
            names = _shortened([file.name for file in others])
            raise CheckpointError(
                f"folder '{path}' holds several checkpoints: give the path of one, such as '{best}'; the others are "
                f"{names}"
            )
    patterns = ", ".join(_FOLDER_PATTERNS)
    raise CheckpointError(
        f"folder '{path}' holds no checkpoint: no file name matches {patterns}; give the path of a checkpoint file"
        f"{_advice_on_exported(path)}"
    )


def _advice_on_exported(folder: Path) -> str:
    exported = sorted(file for file in folder.iterdir() if file.suffix.lower() in _MEASURABLE)
    if not exported:
        return ""
    return f", or to classify or validate that of an exported file, such as '{exported[0]}'"


def _by_best_first(file: Path) -> tuple[bool, str]:
    return not file.stem.endswith("_best"), file.name


def _read_any(path: Path) -> tuple[Any, dict[str, Any]]:
    """Return the content of a file, or of the shards of an index, and its metadata.

    The content holds arrays, or descriptions of arrays, nested in any way.
    """
    start = _start_of(path)
    is_index = start[:1] == b"{" and not _is_safetensors(start)
    return _read_shards(path) if is_index else _read_file(path)


def _start_of(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(512)
    except OSError as error:
        raise CheckpointError(f"it cannot be read: {error.strerror}") from None


def _is_safetensors(start: bytes) -> bool:
    # A file starts with the length of the header as 64 bits, at most 100 MB, and JSON follows.
    # Other formats have no zeros in these places.
    return start[4:9] == b"\0\0\0\0{"


def _read_file(path: Path) -> tuple[Any, dict[str, Any]]:
    if path.suffix.lower() in _EXPORTED:
        raise CheckpointError(
            "it is an exported file, whose weights cannot be loaded: give the checkpoint that it was exported from"
        )
    start = _start_of(path)
    if _is_safetensors(start):
        arrays, texts = read_safetensors(path)
        return arrays, parse_json(texts[METADATA_KEY].encode()) if METADATA_KEY in texts else texts
    if start[:4] == b"PK\x03\x04" or start[:1] == b"\x80" or start[257:262] == b"ustar":
        return read_torch_file(path), {}
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError("it is a Git LFS pointer, not the file itself: run 'git lfs pull'")
    if re.match(rb"\s*<(!doctype|html|\?xml)", start, re.IGNORECASE):
        raise CheckpointError("it is a web page, not a checkpoint: download the file again")
    if start[:1] == b"\n":  # tag of the first field in MindSpore's protobuf message
        return read_ckpt(path)
    raise CheckpointError(
        "it is damaged or has an unknown format (known are: PyTorch, safetensors, MindSpore .ckpt, index of shards)"
    )


def _read_shards(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arrays of the shards, which lie beside the index that names them, and the metadata of the index."""
    if path.stat().st_size > _MAX_INDEX:
        raise CheckpointError(f"it is too long for an index of shards: at most {_MAX_INDEX} bytes are expected")
    index = parse_json(path.read_bytes())
    weight_map, metadata = index.get("weight_map"), index.get("metadata", {})
    if not isinstance(weight_map, dict) or not weight_map or not isinstance(metadata, dict):
        raise CheckpointError("it is a JSON file without a weight_map, so it is not an index of shards")
    names_by_shard: dict[str, set[str]] = {}
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or shard in ("", ".", "..") or re.search(r"[/\\:\0]", shard):
            raise CheckpointError(f"its shard {quoted(str(shard))} must be the name of a file in the same folder")
        names_by_shard.setdefault(shard, set()).add(name)
    arrays: dict[str, Any] = {}
    for shard, names in sorted(names_by_shard.items()):
        content = _read_file(existing_file(path.parent / shard))[0]
        if not isinstance(content, dict):
            raise CheckpointError(f"its shard '{shard}' does not map names to arrays")
        for wrong_names, fault in (
            (content.keys() & arrays.keys(), "repeats arrays of another shard"),
            (content.keys() - names, "holds arrays that the index does not list for it"),
            (names - content.keys(), "lacks arrays that the index lists for it"),
        ):
            if wrong_names:
                raise CheckpointError(f"its shard '{shard}' {fault}: {_shortened(sorted(map(str, wrong_names)))}")
        arrays.update(content)
    return arrays, metadata


def _weights_of(tree: Any, ema: bool) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the weights in the content of a file, and the names of the entries that are left out."""
    entries = _shortened(list(map(str, tree))) if isinstance(tree, dict) else "it has no names"
    left_out: list[str] = []
    is_average = False
    for _ in range(_MAX_NESTING):
        key = _container(tree, ema and not is_average)
        if key is None:
            break
        left_out += [str(other) for other in tree if other != key]
        is_average = is_average or key in _EMA
        tree = tree[key]
    if not _holds_arrays(tree):
        raise CheckpointError(f"it holds no weights ({entries})")
    weights = {name: value for name, value in tree.items() if isinstance(value, _ARRAYS)}
    if not all(isinstance(name, str) for name in weights):
        raise CheckpointError("it holds arrays whose names are not strings")
    left_out += [str(name) for name in tree if name not in weights]
    weights = _without_training_state(weights, left_out)
    if ema and not is_average and not any(name.startswith(_average_prefix(weights)) for name in weights):
        raise CheckpointError(f"it holds no moving average of its weights ({entries})")
    weights = _one_copy(weights, ema and not is_average, left_out)
    if not weights:
        raise CheckpointError(f"it holds a training state without weights ({entries})")
    return {name: _array(value) for name, value in _without_wrappers(weights).items()}, left_out


def _container(tree: Any, ema: bool) -> Optional[str]:
    """Return the name of the entry of a training state that holds the weights; None if `tree` is not such a state."""
    if not isinstance(tree, dict):
        return None
    online = [key for key in _WEIGHTS if _is_container(tree.get(key))]
    averages = [key for key in _EMA if _is_container(tree.get(key))]
    if not online and not averages:
        return None
    wanted = averages if ema and averages else online
    if not wanted:
        raise CheckpointError(f"it holds only a moving average of weights ({', '.join(averages)}): set ema to read it")
    if len(wanted) > 1:
        raise CheckpointError(
            f"it holds several sets of weights ({', '.join(wanted)}): save one of them in its own file"
        )
    return wanted[0]


def _is_container(value: Any) -> bool:
    return _holds_arrays(value) or isinstance(value, dict) and any(_holds_arrays(value.get(key)) for key in _WEIGHTS)


def _holds_arrays(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(entry, _ARRAYS) for entry in value.values())


def _without_training_state(weights: dict[str, Any], left_out: list[str]) -> dict[str, Any]:
    """Remove the state that an optimizer and a training loop of MindSpore save beside the weights."""
    copies: Counter[str] = Counter()
    kept = {}
    for name, value in weights.items():
        copy = _TRAINING_COPIES.fullmatch(name)
        state = _RUN_STATE.fullmatch(name)
        if state or (copy and copy[2] in weights):
            copies[(state or copy)[1]] += 1
        elif _TRAINING_STATE.fullmatch(name):
            left_out.append(name)
        else:
            kept[name] = value
    left_out += [f"{prefix}.* ({count})" for prefix, count in copies.items()]
    return kept


def _one_copy(weights: dict[str, Any], ema: bool, left_out: list[str]) -> dict[str, Any]:
    """Return either the weights or their moving average, in a flat file where the averages have a prefix."""
    prefix = _average_prefix(weights)
    averages = {name[len(prefix) :]: value for name, value in weights.items() if name.startswith(prefix)}
    online = {name: value for name, value in weights.items() if not name.startswith(prefix)}
    if not averages:
        return online
    if not ema and not online:
        raise CheckpointError(f"it holds only a moving average of weights ({prefix}*): set ema to read it")
    left_out.append(f"the weights of the last step ({len(online)})" if ema else f"{prefix}* ({len(averages)})")
    return averages if ema else online


def _average_prefix(names: Collection[str]) -> str:
    """Return the prefix of the names of averaged weights: the teacher's, if there are a student and a teacher."""
    has_both = all(any(name.startswith(prefix) for name in names) for prefix in (_STUDENT, _TEACHER))
    return _TEACHER if has_both else _EMA_PREFIX


def _without_wrappers(weights: dict[str, Any]) -> dict[str, Any]:
    """Remove the prefixes of wrappers that all names share."""
    for prefix in _WRAPPERS * 2:  # each wrapper may enclose the other
        if all(name.startswith(prefix) for name in weights):
            weights = {name[len(prefix) :]: value for name, value in weights.items()}
    return weights


def _array(value: Any) -> np.ndarray:
    return value if isinstance(value, np.ndarray) else value.array()


def _shortened(names: list[str]) -> str:
    shown = ", ".join("".join(char if char.isprintable() else "?" for char in name[:60]) for name in names[:8])
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown
