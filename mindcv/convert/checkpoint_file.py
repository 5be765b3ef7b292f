"""Checkpoint files of any format, told apart by their content.

Formats: PyTorch's zip and the one before it, safetensors, MindSpore's `.ckpt`, and an index of shards (PyTorch or
safetensors). A suffix says little: Lightning writes zip files called `.ckpt`.
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

__all__ = ["CheckpointContents", "open_checkpoint", "read_checkpoint"]

# Entries of a PyTorch training state that hold its weights, and their moving average.
_WEIGHTS = ("model", "state_dict", "model_state_dict", "module", "params", "student")
_EMA = ("model_ema", "ema", "state_dict_ema", "ema_state_dict", "params_ema", "teacher")
# What wraps a network puts its own name before all others: data parallel training, compilation.
_WRAPPERS = ("module.", "_orig_mod.")

# What MindSpore's and MindCV's training leave beside the weights: copies of each weight under a prefix of their own ...
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
# What this library's saved runs hold beside them.
_RUN_STATE = re.compile(r"(optimizer|loss_scale|network_state|ema_state)\..+")
# In the metadata of this library's files: which weights training validated, "ema" or "online" (those of the last step).
_VALIDATED = "validated_weights"
# What the names begin with where a student and its teacher are in one file. In self-distillation the teacher is the
# student's average, so that the choice between them is the choice of `ema`.
_STUDENT, _TEACHER = "student.", "teacher."

# The file of a folder, in this order.
_STANDARD_NAMES = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)
_MAX_INDEX = 100_000_000
_MAX_NESTING = 4  # {"state_dict": {"module": {...}}} has two
_ARRAYS = (np.ndarray, TorchTensor, NumpyArray)
_FOLDER_PATTERNS = ("*.index.json", "*.safetensors", "*.bin", "*.ckpt", "*.pth", "*.pt")
_STATE_OF_A_RUN = ".resume.safetensors"  # for resuming, beside the files of weights


@dataclass(frozen=True)
class CheckpointContents:
    """The weights of a checkpoint under the names of the file, and what else it says of them.

    `metadata` is a dictionary of JSON values for a file of this library, of strings for another's safetensors, the
    index's own for shards, and {} where the format has none.
    """

    arrays: dict[str, np.ndarray]
    metadata: dict[str, Any]


def read_checkpoint(path: Union[str, os.PathLike], ema: Optional[bool] = None) -> dict[str, np.ndarray]:
    """The weights of a checkpoint of any format, by the names that are in it. No PyTorch is needed.

    Args:
        path: a file of PyTorch, safetensors or MindSpore, an index of shards, or a folder with one of them.
        ema: whether to take the moving average of the weights that the file holds beside them. None takes those that
            training validated, where the file says so, and else the weights themselves.

    Arrays may be read-only views of the mapped file, of any strides. bfloat16 becomes float32; other types stay.

    Raises:
        CheckpointError: see `open_checkpoint`.
    """
    return open_checkpoint(path, ema).arrays


def open_checkpoint(path: Union[str, os.PathLike], ema: Optional[bool] = None) -> CheckpointContents:
    """Read a checkpoint once: its weights and its metadata.

    Weights inside a training state ({"model": ...}, "state_dict" ...) are taken out of it, and a "module." before all
    names is dropped. Of a student and its teacher in one file the student is taken, or the teacher with `ema`. What is
    left out (optimizer, counters, entries that are no arrays) is logged by name, in one line, and so are arrays with
    NaN or infinity in them.

    Args:
        path: as for `read_checkpoint`.
        ema: as for `read_checkpoint`.

    Raises:
        CheckpointError: no such file; of no known format, damaged, or with code in it; with no weights, several sets of
            them, or not those asked for.
    """
    file = _file_of(Path(path))
    try:
        tree, metadata = _read_any(file)
        if ema is None and _validated_average(tree, metadata):
            ema = True
            logger.info("%s: the averaged weights (ema) are taken, which training validated", file)
        arrays, left_out = _weights_of(tree, bool(ema))
    except CheckpointError as error:
        named = f"'{file}'" in str(error)
        raise CheckpointError(str(error) if named else f"checkpoint '{file}': {error}") from None
    if left_out:
        logger.info("%s: left out: %s", file, _shortened(left_out))
    broken = [name for name, array in arrays.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
    if broken:
        logger.warning("%s: %d of its arrays hold NaN or infinity: %s", file, len(broken), _shortened(broken))
    return CheckpointContents(arrays, metadata)


def _validated_average(tree: Any, metadata: dict[str, Any]) -> bool:
    """Whether training validated the averages, and the file holds them."""
    return metadata.get(_VALIDATED) == "ema" and any(str(name).startswith(_EMA_PREFIX) for name in tree)


def _file_of(path: Path) -> Path:
    """`path`, or the one checkpoint in it if it is a folder."""
    if not path.is_dir():
        return existing_file(path)
    for name in _STANDARD_NAMES:
        if (path / name).is_file():
            return path / name
    for pattern in _FOLDER_PATTERNS:
        found = [file for file in path.glob(pattern) if not file.name.endswith(_STATE_OF_A_RUN)]
        if len(found) == 1:
            return found[0]
        if found:
            names = _shortened([file.name for file in sorted(found, key=_best_first)])
            raise CheckpointError(f"folder '{path}' holds several checkpoints: give the path of one ({names})")
    raise CheckpointError(f"folder '{path}' holds no checkpoint ({', '.join(_FOLDER_PATTERNS)})")


def _best_first(file: Path) -> tuple[bool, str]:
    return not file.stem.endswith("_best"), file.name


def _read_any(path: Path) -> tuple[Any, dict[str, Any]]:
    """What a file or the shards of an index hold, arrays or descriptions of them in any nesting, and the metadata."""
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
    # The length of the header, 100 MB at most, in 64 bits; then JSON. Other formats have no zeros there.
    return start[4:9] == b"\0\0\0\0{"


def _read_file(path: Path) -> tuple[Any, dict[str, Any]]:
    start = _start_of(path)
    if _is_safetensors(start):
        arrays, texts = read_safetensors(path)
        return arrays, parse_json(texts[METADATA_KEY].encode()) if METADATA_KEY in texts else texts
    if start[:4] == b"PK\x03\x04" or start[:1] == b"\x80" or start[257:262] == b"ustar":
        return read_torch_file(path), {}
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError("it is a pointer of Git LFS: the file itself was not fetched (git lfs pull)")
    if re.match(rb"\s*<(!doctype|html|\?xml)", start, re.IGNORECASE):
        raise CheckpointError("it is a web page, not a checkpoint: fetch the file again")
    if start[:1] == b"\n":  # the first field of MindSpore's message
        return read_ckpt(path)
    raise CheckpointError("it is damaged, or none of: PyTorch, safetensors, MindSpore .ckpt, index of shards")


def _read_shards(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays of the shards that an index names, which are beside it."""
    if path.stat().st_size > _MAX_INDEX:
        raise CheckpointError("it is too long for an index of shards")
    index = parse_json(path.read_bytes())
    weight_map, metadata = index.get("weight_map"), index.get("metadata", {})
    if not isinstance(weight_map, dict) or not weight_map or not isinstance(metadata, dict):
        raise CheckpointError("it is JSON without a weight_map: no index of shards")
    names_by_shard: dict[str, set[str]] = {}
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or shard in ("", ".", "..") or re.search(r"[/\\:\0]", shard):
            raise CheckpointError(f"its shard {quoted(str(shard))} is not the name of a file beside it")
        names_by_shard.setdefault(shard, set()).add(name)
    found: dict[str, Any] = {}
    for shard, names in sorted(names_by_shard.items()):
        content = _read_file(existing_file(path.parent / shard))[0]
        if not isinstance(content, dict):
            raise CheckpointError(f"its shard '{shard}' holds no arrays by name")
        for what, fault in (
            (content.keys() & found.keys(), "has again what another has"),
            (content.keys() - names, "has what the index does not list there"),
            (names - content.keys(), "lacks"),
        ):
            if what:
                raise CheckpointError(f"its shard '{shard}' {fault}: {_shortened(sorted(map(str, what)))}")
        found.update(content)
    return found, metadata


def _weights_of(tree: Any, ema: bool) -> tuple[dict[str, np.ndarray], list[str]]:
    """The weights in what a file held, and what is left out."""
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
        raise CheckpointError("it holds arrays whose names are no text")
    left_out += [str(name) for name in tree if name not in weights]
    weights = _without_training_state(weights, left_out)
    if ema and not is_average and not any(name.startswith(_average_prefix(weights)) for name in weights):
        raise CheckpointError(f"it holds no moving average of its weights ({entries})")
    weights = _one_copy(weights, ema and not is_average, left_out)
    if not weights:
        raise CheckpointError(f"it holds a training state without weights ({entries})")
    return {name: _array(value) for name, value in _without_wrappers(weights).items()}, left_out


def _container(tree: Any, ema: bool) -> Optional[str]:
    """The entry of a training state that holds the weights; None if `tree` is no training state."""
    if not isinstance(tree, dict):
        return None
    online = [key for key in _WEIGHTS if _is_container(tree.get(key))]
    averages = [key for key in _EMA if _is_container(tree.get(key))]
    if not online and not averages:
        return None
    wanted = averages if ema and averages else online
    if not wanted:
        raise CheckpointError(f"it holds only a moving average of weights ({', '.join(averages)}): ask for it with ema")
    if len(wanted) > 1:
        raise CheckpointError(f"it holds several sets of weights ({', '.join(wanted)})")
    return wanted[0]


def _is_container(value: Any) -> bool:
    return _holds_arrays(value) or isinstance(value, dict) and any(_holds_arrays(value.get(key)) for key in _WEIGHTS)


def _holds_arrays(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(entry, _ARRAYS) for entry in value.values())


def _without_training_state(weights: dict[str, Any], left_out: list[str]) -> dict[str, Any]:
    """Without what an optimizer and a training loop of MindSpore keep beside the weights."""
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
    """The weights or their average, of those in a flat file whose averages have a prefix."""
    prefix = _average_prefix(weights)
    averages = {name[len(prefix) :]: value for name, value in weights.items() if name.startswith(prefix)}
    online = {name: value for name, value in weights.items() if not name.startswith(prefix)}
    if not averages:
        return online
    if not ema and not online:
        raise CheckpointError(f"it holds only a moving average of weights ({prefix}*): ask for it with ema")
    left_out.append(f"the weights of the last step ({len(online)})" if ema else f"{prefix}* ({len(averages)})")
    return averages if ema else online


def _average_prefix(names: Collection[str]) -> str:
    """What the names of averaged weights begin with; of a student and its teacher those are the teacher's."""
    has_both = all(any(name.startswith(prefix) for name in names) for prefix in (_STUDENT, _TEACHER))
    return _TEACHER if has_both else _EMA_PREFIX


def _without_wrappers(weights: dict[str, Any]) -> dict[str, Any]:
    """Without the prefixes of wrappers that all names have."""
    for prefix in _WRAPPERS * 2:  # either may be around the other
        if all(name.startswith(prefix) for name in weights):
            weights = {name[len(prefix) :]: value for name, value in weights.items()}
    return weights


def _array(value: Any) -> np.ndarray:
    return value if isinstance(value, np.ndarray) else value.array()


def _shortened(names: list[str]) -> str:
    shown = ", ".join("".join(char if char.isprintable() else "?" for char in name[:60]) for name in names[:8])
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown
