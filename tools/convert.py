"""Convert a checkpoint of any format and layout that this library reads to a `.ckpt` or `.safetensors` file.

    python tools/convert.py --model convnextv2_tiny --src downloaded.pt --dst convnextv2_tiny.ckpt
    python tools/convert.py --model convnextv2_tiny --src best.ckpt --dst best.safetensors --layout timm

A `.ckpt` file has this library's names. It also records the model, so `validate.py` and `infer.py` do not need the
option --model.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any, Optional

import mindspore as ms
import numpy as np
import own_mindcv  # noqa: F401
from mindspore.nn.utils import no_init_parameters

from mindcv.convert import from_mindcv, weight_parameters, write_ckpt, write_safetensors
from mindcv.convert.checkpoint_file import open_checkpoint
from mindcv.convert.ckpt_file import METADATA_KEY
from mindcv.convert.layout_tables import LAYOUTS, own_names
from mindcv.convert.layouts import Renamed, compare, rename
from mindcv.convert.load import as_float32
from mindcv.models import create_model, is_model, list_models
from mindcv.utils.cli import run_script
from mindcv.utils.errors import CheckpointError, ConfigError, unknown_name
from mindcv.utils.files import ensure_writable
from mindcv.utils.logger import logger

STEM = own_names("stem conv")[0]


def main() -> None:
    args = read_args()
    contents = open_checkpoint(args.src, ema=args.ema)
    try:
        renamed = rename(contents.arrays)
        arrays = arrays_for_model(renamed, args.model, args.num_classes)
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint '{args.src}': {error}") from None
    for sentence in renamed.log_messages():
        logger.info("%s: %s", args.src, sentence)
    num_classes = renamed.num_classes
    metadata = new_metadata(contents.metadata, args.model, renamed)
    if args.dst.endswith(".ckpt"):
        tensors = {name: ms.Tensor.from_numpy(as_float32(array)) for name, array in arrays.items()}
        write_ckpt(args.dst, tensors, metadata)
    else:
        arrays = from_mindcv(arrays, args.layout)
        num_classes = 0 if args.layout == "fcmae" else num_classes
        # Readers written for PyTorch require the format "pt", whichever software wrote the file.
        write_safetensors(args.dst, arrays, {"format": "pt", METADATA_KEY: json.dumps(metadata)})
    head = f"{num_classes} classes" if num_classes else "no head"
    print(f"{args.dst}: {args.model}, {head}, {len(arrays)} arrays, layout {renamed.layout.name} to {args.layout}")


def read_args() -> argparse.Namespace:
    """Parse and check the command line.

    Raises:
        ConfigError: options are wrong. It holds one sentence for each of them.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="name of the model that the weights belong to")
    parser.add_argument("--src", required=True, help="checkpoint to read, in any format and layout")
    parser.add_argument("--dst", required=True, help="file to write, which must end in .ckpt or .safetensors")
    parser.add_argument(
        "--layout", default="mindcv", help=f"layout of the names in a .safetensors file: {', '.join(LAYOUTS)}"
    )
    parser.add_argument(
        "--ema",
        action=argparse.BooleanOptionalAction,
        help="convert the moving average of the weights; by default, convert the weights that training validated",
    )
    parser.add_argument(
        "--num_classes", type=int, help="number of classes that the head must have (default: any number)"
    )
    args = parser.parse_args()
    problems = []
    if not is_model(args.model):
        problems.append(unknown_name("--model", args.model, list_models()))
    if args.layout not in LAYOUTS:
        problems.append(unknown_name("--layout", args.layout, LAYOUTS))
    if not args.dst.endswith((".ckpt", ".safetensors")):
        problems.append(f"--dst must end in .ckpt or .safetensors, got '{args.dst}'")
    if args.dst.endswith(".ckpt") and args.layout != "mindcv":
        problems.append(
            f"--layout {args.layout} needs a --dst that ends in .safetensors: a .ckpt file has this library's names"
        )
    if problems:
        raise ConfigError(problems)
    ensure_writable(args.dst)
    return args


def arrays_for_model(renamed: Renamed, model_name: str, num_classes: Optional[int] = None) -> dict[str, np.ndarray]:
    """Check that a checkpoint holds all weights of a model, and return its arrays in the model's order.

    An encoder from FCMAE pre-training may lack the last norm and the head. One line in the log then says so.

    Args:
        renamed: checkpoint under this library's names.
        model_name: name of the model.
        num_classes: number of classes that the head must have; None accepts the checkpoint's.

    Raises:
        CheckpointError: a name or shape does not match.
    """
    stem = renamed.arrays.get(STEM, np.empty((0, 3, 4, 4)))
    in_channels, patch_size = stem.shape[1:3] if stem.ndim == 4 else (3, 4)
    classes = renamed.num_classes if num_classes is None else num_classes
    with no_init_parameters():  # only names and shapes are needed; values take seconds and gigabytes
        model = create_model(model_name, num_classes=classes, in_channels=in_channels, patch_size=patch_size)
    wanted = weight_parameters(model)
    if renamed.is_encoder and not num_classes:
        logger.info("the checkpoint has no last norm and no head")
        wanted = {name: parameter for name, parameter in wanted.items() if name not in own_names("last norm")}
    mismatch = compare(renamed, wanted)
    if mismatch:
        raise CheckpointError(f"the weights (layout: {renamed.layout.name}) do not fit {model_name}: {mismatch}")
    return {name: renamed.arrays[name] for name in wanted}


def new_metadata(metadata: Mapping[str, Any], model_name: str, renamed: Renamed) -> dict[str, Any]:
    """Return the metadata of the new file: classes and preprocessing from the source, and facts from the weights."""
    from_weights = {
        "model": model_name,
        "num_classes": renamed.num_classes,
        "in_channels": renamed.arrays[STEM].shape[1],
        "patch_size": renamed.arrays[STEM].shape[2],
    }
    options = metadata.get("options", {})
    kept = {name: metadata[name] for name in ("class_to_idx", "held_out") if name in metadata}
    return {"options": {**options, **from_weights}, **kept}


if __name__ == "__main__":
    run_script(main)
