"""Compare the speed of exported files in ONNX Runtime:

    python examples/quantize/speed.py model.onnx int8.onnx --image_size 224 --batch_size 8

The files take turns, so other programs on the machine slow all of them down alike. Each line has the median of the
rounds and its ratio to the first file.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np

from mindcv.export import open_exported, require_onnxruntime
from mindcv.utils.checks import check_int
from mindcv.utils.cli import run_script
from mindcv.utils.errors import UserError


def check_file(path: str, images: np.ndarray) -> None:
    """Check that a file takes the images.

    Raises:
        UserError: it is no file of tools/export.py, or takes other images. The message says which.
    """
    exported = open_exported(path)
    if exported.metadata.takes_pixels:
        raise UserError(f"'{path}' prepares its images itself: export it without --with_preprocess")
    if exported.batch_size not in (None, len(images)):
        raise UserError(f"'{path}' takes {exported.batch_size} image at a time: give --batch_size 1")
    exported(images)


def open_session(path: str, threads: int) -> Any:
    """Return an `InferenceSession` of ONNX Runtime."""
    onnxruntime = require_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def seconds_of(session: Any, images: np.ndarray, steps: int) -> float:
    """Return the seconds that one step takes, as the mean over `steps`."""
    start = time.perf_counter()
    for _ in range(steps):
        session.run(None, {"images": images})
    return (time.perf_counter() - start) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the speed of exported files in ONNX Runtime.")
    parser.add_argument("files", nargs="+", help="ONNX files of tools/export.py, exported without --with_preprocess")
    parser.add_argument("--image_size", type=int, default=224, help="side in pixels (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=8, help="images in a step (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="threads; 0 is one for each core (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=5, help="steps in a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each file (default: %(default)s)")
    given = parser.parse_args()
    for name, low in (("image_size", 32), ("batch_size", 1), ("threads", 0), ("steps", 1), ("rounds", 1)):
        check_int(name, getattr(given, name), low=low)
    channels = open_exported(given.files[0]).metadata.preprocessing.get("in_channels", 3)
    shape = (given.batch_size, channels, given.image_size, given.image_size)
    images = np.random.default_rng(0).standard_normal(shape, np.float32)
    for path in given.files:
        check_file(path, images)
    sessions = [open_session(path, given.threads) for path in given.files]
    for session in sessions:
        seconds_of(session, images, 2)  # the first steps allocate memory
    rounds = [[seconds_of(session, images, given.steps) for session in sessions] for _ in range(given.rounds)]
    medians = [given.batch_size / statistics.median(seconds) for seconds in zip(*rounds)]
    for path, speed in zip(given.files, medians):
        print(f"{path}: {speed:.1f} images/s, {speed / medians[0]:.2f} times the first file")


if __name__ == "__main__":
    run_script(main)
