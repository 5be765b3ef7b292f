"""Write a checkpoint under other names or in another format: what this library reads, into `.ckpt` or `.safetensors`.

    python tools/convert.py --model convnextv2_tiny --src downloaded.pt --dst convnextv2_tiny.ckpt
    python tools/convert.py --model convnextv2_tiny --src best.ckpt --dst best.safetensors --layout timm

A `.ckpt` has this library's names and says which model it is of, so that `validate.py` and `infer.py` need not be told.
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
        arrays = fitting(renamed, args.model, args.num_classes)
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint '{args.src}': {error}") from None
    for sentence in renamed.told():
        logger.info("%s: %s", args.src, sentence)
    num_classes = renamed.num_classes
    metadata = described(contents.metadata, args.model, renamed)
    if args.dst.endswith(".ckpt"):
        tensors = {name: ms.Tensor.from_numpy(as_float32(array)) for name, array in arrays.items()}
        write_ckpt(args.dst, tensors, metadata)
    else:
        arrays = from_mindcv(arrays, args.layout)
        num_classes = 0 if args.layout == "fcmae" else num_classes
        # "pt" is what PyTorch's own readers ask for, whoever wrote the file.
        write_safetensors(args.dst, arrays, {"format": "pt", METADATA_KEY: json.dumps(metadata)})
    head = f"{num_classes} classes" if num_classes else "no head"
    print(f"{args.dst}: {args.model}, {head}, {len(arrays)} arrays, layout {renamed.layout.name} to {args.layout}")


def read_args() -> argparse.Namespace:
    """The command line.

    Raises:
        ConfigError: with a sentence for each option that is wrong.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="model that the weights are of")
    parser.add_argument("--src", required=True, help="checkpoint to read, of any format and layout")
    parser.add_argument("--dst", required=True, help="file to write; .ckpt or .safetensors")
    parser.add_argument("--layout", default="mindcv", help=f"names in a .safetensors file: {', '.join(LAYOUTS)}")
    parser.add_argument(
        "--ema",
        action=argparse.BooleanOptionalAction,
        help="take the averaged weights of the checkpoint, or not; by default those that training validated",
    )
    parser.add_argument("--num_classes", type=int, help="width that the head must have; default: any")
    args = parser.parse_args()
    problems = []
    if not is_model(args.model):
        problems.append(unknown_name("--model", args.model, list_models()))
    if args.layout not in LAYOUTS:
        problems.append(unknown_name("--layout", args.layout, LAYOUTS))
    if not args.dst.endswith((".ckpt", ".safetensors")):
        problems.append(f"--dst must end in .ckpt or .safetensors, got '{args.dst}'")
    if args.dst.endswith(".ckpt") and args.layout != "mindcv":
        problems.append(f"--layout {args.layout} goes with a .safetensors file: a .ckpt has this library's names")
    if problems:
        raise ConfigError(problems)
    ensure_writable(args.dst)
    return args


def fitting(renamed: Renamed, model_name: str, num_classes: Optional[int] = None) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint in the model's order, after they were found to be all of its weights.

    An encoder alone, as FCMAE leaves it, lacks the last norm and the head, and one line in the log says so.

    Args:
        renamed: the checkpoint.
        model_name: of the model.
        num_classes: width that the head must have; None for the checkpoint's.

    Raises:
        CheckpointError: a name or shape does not match.
    """
    stem = renamed.arrays.get(STEM, np.empty((0, 3, 4, 4)))
    in_channels = stem.shape[1] if stem.ndim == 4 else 3
    classes = renamed.num_classes if num_classes is None else num_classes
    with no_init_parameters():  # names and shapes alone: the values of a large network take seconds and gigabytes
        model = create_model(model_name, num_classes=classes, in_channels=in_channels)
    wanted = weight_parameters(model)
    if renamed.is_encoder and not num_classes:
        logger.info("there is no last norm and no head in it")
        wanted = {name: parameter for name, parameter in wanted.items() if name not in own_names("last norm")}
    mismatch = compare(renamed, wanted)
    if mismatch:
        raise CheckpointError(f"the weights (layout: {renamed.layout.name}) do not fit {model_name}: {mismatch}")
    return {name: renamed.arrays[name] for name in wanted}


def described(metadata: Mapping[str, Any], model_name: str, renamed: Renamed) -> dict[str, Any]:
    """The metadata of the result: what the source says of classes and preprocessing, and what the weights say."""
    known = {
        "model": model_name,
        "num_classes": renamed.num_classes,
        "in_channels": renamed.arrays[STEM].shape[1],
    }
    options = metadata.get("options", {})
    kept = {name: metadata[name] for name in ("class_to_idx", "held_out") if name in metadata}
    return {"options": {**options, **known}, **kept}


if __name__ == "__main__":
    run_script(main)
