"""Compare the speed of exported files in ONNX Runtime:

    python examples/quantize/speed.py model.onnx int8.onnx --image_size 224 --batch_size 8

The files take turns, so other programs on the machine slow all of them down alike. Each line has the median of the
rounds and its ratio to the first file.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import onnxruntime


def open_session(path: str, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def seconds_of(session: onnxruntime.InferenceSession, images: np.ndarray, steps: int) -> float:
    """Return the seconds that one step takes, as the mean over `steps`."""
    start = time.perf_counter()
    for _ in range(steps):
        session.run(None, {"images": images})
    return (time.perf_counter() - start) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the speed of exported files in ONNX Runtime.")
    parser.add_argument("files", nargs="+", help="ONNX files of tools/export.py without --with_preprocess")
    parser.add_argument("--image_size", type=int, default=224, help="side in pixels (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=8, help="images in a step (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="threads; 0 is one for each core (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=5, help="steps in a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each file (default: %(default)s)")
    given = parser.parse_args()
    sessions = [open_session(path, given.threads) for path in given.files]
    channels = sessions[0].get_inputs()[0].shape[1]
    shape = (given.batch_size, channels, given.image_size, given.image_size)
    images = np.random.default_rng(0).standard_normal(shape, np.float32)
    for session in sessions:
        seconds_of(session, images, 2)  # the first steps allocate memory
    rounds = [[seconds_of(session, images, given.steps) for session in sessions] for _ in range(given.rounds)]
    medians = [given.batch_size / statistics.median(seconds) for seconds in zip(*rounds)]
    for path, speed in zip(given.files, medians):
        print(f"{path}: {speed:.1f} images/s, {speed / medians[0]:.2f} times the first file")


if __name__ == "__main__":
    main()
