"""Write handwritten digits as PNG files: `sample_0004_is_4.png` and so on.

    python tools/export_digits.py --dir digits --num 20 [--size 64] [--split val]

The images are taken from all ten classes in turn. The number in a file name is the sample's index in scikit-learn.
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
    """Write `num` digits of `size` x `size` pixels into `folder`, and return their paths.

    Raises:
        UserError: there are fewer than `num` digits, the folder cannot be written to, or scikit-learn is missing.
    """
    digits = read_digits(split)
    if not 1 <= num <= len(digits) or size < 1:
        raise UserError(f"--num must be from 1 to {len(digits)} and --size at least 1, got {num} and {size}")
    output_folder = ensure_writable_dir(folder)
    # The rank of a sample is the number of earlier samples of its class. Sorting by rank and then
    # by class takes the classes in turn.
    rank_in_class = [np.sum(digits.labels[:index] == label) for index, label in enumerate(digits.labels)]
    paths = []
    for index in np.lexsort((digits.labels, rank_in_class))[:num]:
        path = output_folder / f"sample_{digits.numbers[index]:04d}_is_{digits.labels[index]}.png"
        Image.fromarray(digits.images[index]).resize((size, size), Image.Resampling.BICUBIC).save(path)
        paths.append(str(path))
    return paths


def main() -> None:
    """Parse the command line and write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", required=True, help="folder to write to; it is created if it does not exist")
    parser.add_argument("--num", type=int, required=True, help="number of images to write")
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
