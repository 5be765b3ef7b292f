"""Measure how long a training step waits for the device and for its data, on a simulated device.

    python tools/simulate_device.py

The device is an operator that sleeps, and the data set is a loop that sleeps. The tool prints the time of a step with
`dataset_sink_mode` off and on, as a Markdown table. It needs no accelerator, because MindSpore returns from an operator
in PyNative mode before the operator has ended, on a CPU too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import mindspore as ms
import numpy as np
import own_mindcv  # noqa: F401
from mindspore import Tensor, nn, ops

from mindcv.engine import Trainer

NUM_STEPS = 20
TIMES = ((100, 0), (100, 50), (100, 100), (50, 100), (0, 100))  # of the device and of the data, in ms


class SlowStep(nn.Cell):
    """A training step whose device is busy for `seconds`. Its loss is the mean of the images."""

    def __init__(self, seconds: float):
        super().__init__()

        def sleep(mean: np.ndarray) -> np.ndarray:
            time.sleep(seconds)
            return mean

        self.sleep = ops.Custom(sleep, lambda shape: shape, lambda dtype: dtype, func_type="pyfunc")

    def construct(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return ops.reshape(self.sleep(ops.reshape(ops.mean(images), (1,))), ()), labels


class SlowLoader:
    """A loader of an epoch of `num_batches` that takes `seconds` to hand over a batch."""

    drop_remainder = True

    def __init__(self, seconds: float, num_batches: int):
        self.seconds, self.num_batches = seconds, num_batches

    def get_batch_size(self) -> int:
        """See `ImageLoader.get_batch_size`."""
        return 8

    def get_dataset_size(self) -> int:
        """Return the number of batches."""
        return self.num_batches

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """See `ImageLoader.batches`. The images of batch i are all i."""
        for number in range(start, self.num_batches):
            time.sleep(self.seconds)
            yield np.full((8, 3, 32, 32), number, np.float32), np.zeros(8, np.int32)


def seconds_per_step(device: float, data: float, runs_ahead: bool, num_steps: int = NUM_STEPS) -> float:
    """Train an epoch, and return its time divided by the number of its steps.

    Args:
        device: time that the device is busy with a step, in seconds.
        data: time that a batch takes, in seconds.
        runs_ahead: see `Trainer`.
        num_steps: number of steps.
    """
    trainer = Trainer(SlowStep(device), runs_ahead=runs_ahead)
    started = time.perf_counter()
    trainer.train(1, SlowLoader(data, num_steps))
    return (time.perf_counter() - started) / num_steps


def main() -> None:
    """Print the table."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    ms.set_device("CPU")
    seconds_per_step(0.0, 0.0, runs_ahead=True)  # the first operators load libraries
    print("| device, ms | data, ms | step without sink mode, ms | step with sink mode, ms |\n|---|---|---|---|")
    for device, data in TIMES:
        off, on = (1000 * seconds_per_step(device / 1000, data / 1000, ahead) for ahead in (False, True))
        print(f"| {device} | {data} | {off:.0f} | {on:.0f} |")


if __name__ == "__main__":
    main()
