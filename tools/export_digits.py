"""Write handwritten digits as PNG files: `sample_0004_is_4.png` and so on.

    python tools/export_digits.py --dir digits --num 20 [--size 64] [--split val]

The images are taken from all ten classes in turn. The number in a file name is that of the sample.
The split `val` holds the digits that the recipe for digits never trains on.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import own_mindcv  # noqa: F401
from PIL import Image

from mindcv.data.digits import read_digits
from mindcv.utils.errors import UserError
from mindcv.utils.files import ensure_writable_dir


def export_digits(folder: str, num: int, size: int = 64, split: str = "val") -> list[str]:
    """Write `num` digits of `size` x `size` pixels into `folder`; returns the paths.

    Raises:
        UserError: there are not that many, the folder cannot be written to, or scikit-learn is missing.
    """
    digits = read_digits(split)
    if not 1 <= num <= len(digits) or size < 1:
        raise UserError(f"--num must be from 1 to {len(digits)} and --size at least 1, got {num} and {size}")
    written = ensure_writable_dir(folder)
    # How many of its class come before each sample: sorting by that, then by class, takes the classes in turn.
    rank_in_class = [np.sum(digits.labels[:place] == label) for place, label in enumerate(digits.labels)]
    paths = []
    for place in np.lexsort((digits.labels, rank_in_class))[:num]:
        path = written / f"sample_{digits.numbers[place]:04d}_is_{digits.labels[place]}.png"
        Image.fromarray(digits.images[place]).resize((size, size), Image.Resampling.BICUBIC).save(path)
        paths.append(str(path))
    return paths


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", required=True, help="folder to write to; the tool creates it if it is missing")
    parser.add_argument("--num", type=int, required=True, help="number of images")
    parser.add_argument("--size", type=int, default=64, help="height and width of the images in pixels")
    parser.add_argument(
        "--split", choices=("train", "val"), default="val", help="which digits to write: for training or for validation"
    )
    args = parser.parse_args()
    try:
        print("\n".join(export_digits(args.dir, args.num, args.size, args.split)))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
