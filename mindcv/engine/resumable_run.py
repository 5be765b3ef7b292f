"""The parts of a run that a snapshot holds: taken from the objects of the run, and put back into them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Union

import numpy as np
from mindspore import Parameter, Tensor, nn

from mindcv.convert import weight_parameters
from mindcv.engine.callbacks import Callback
from mindcv.engine.checkpoint import require_finite
from mindcv.engine.progress import RunProgress
from mindcv.engine.snapshot import RunDescription, Snapshot
from mindcv.engine.train_step import AccumulatedStep, TrainStep
from mindcv.utils.errors import CheckpointError
from mindcv.utils.logger import logger

__all__ = ["ResumableRun", "weights_to_save"]


def weights_to_save(network: nn.Cell, step: Union[TrainStep, AccumulatedStep]) -> dict[str, Parameter]:
    """The weights of a network under their names, and their averages, if there are any, as `ema.<name>`."""
    averages = {} if step.ema is None else {average.name: average for average in step.ema.averages.values()}
    return {**weight_parameters(network), **averages}


class ResumableRun:
    """The objects of a run whose state a snapshot holds.

    The next step of a run depends on the weights and their averages, on the state of the optimizer and of the loss
    scale, on the number of samples that random layers have seen, and on the progress. All other randomness is a
    function of the seed and of the progress. Callbacks save what the run has to show so far.

    Args:
        network: the network in training.
        step: the training step.
        description: what run it is.
    """

    def __init__(
        self,
        network: nn.Cell,
        step: Union[TrainStep, AccumulatedStep],
        description: RunDescription,
    ):
        self.network = network
        self.step = step
        self.description = description
        self.parameters = weights_to_save(network, step)
        weights = {id(weight) for weight in self.parameters.values()}
        state = {"network_state": network, "optimizer": step.optimizer, "loss_scale": step.loss_scale}
        for prefix, cell in state.items():
            for parameter in cell.get_parameters():
                if id(parameter) not in weights:
                    self.parameters[f"{prefix}.{parameter.name}"] = parameter
        if step.ema is not None:
            self.parameters["ema_state.num_updates"] = step.ema.num_updates

    def capture(self, progress: RunProgress, callbacks: Sequence[Callback]) -> Snapshot:
        """Take a snapshot of the run at `progress`, with what `callbacks` save.

        Raises:
            UserError: a weight is not finite.
        """
        require_finite(weights_to_save(self.network, self.step))
        arrays = {name: parameter.asnumpy() for name, parameter in self.parameters.items()}
        saved = {type(callback).__name__: callback.saved() for callback in callbacks}
        return Snapshot(arrays, self.description, replace(progress), saved)

    def restore(self, snapshot: Snapshot, progress: RunProgress, callbacks: Sequence[Callback]) -> None:
        """Put a snapshot back into the objects of this run, and set `progress` to its step.

        What a callback saved goes to the callback of the same class. The place in the learning rate schedule moves
        with the step, where a step takes another number of images now.

        Raises:
            CheckpointError: the parameters are not those of this run; nothing has been changed then.
        """
        self._check(snapshot.arrays)
        progress.restore(snapshot.progress)
        for name, parameter in self.parameters.items():
            parameter.set_data(Tensor(np.array(snapshot.arrays[name]), parameter.dtype))
        for callback in callbacks:
            if snapshot.callbacks.get(type(callback).__name__):
                callback.restore(snapshot.callbacks[type(callback).__name__])
        # Later snapshots must count as newer than all earlier ones, even if this run continues from an older file or
        # the clock has been set back.
        started = max(self.description.started, snapshot.description.started)
        self.description = replace(self.description, started=started)
        if progress.global_step != snapshot.progress.global_step:
            self._move_schedule(progress, snapshot.progress)

    def _check(self, arrays: Mapping[str, np.ndarray]) -> None:
        wanted = {name: tuple(parameter.shape) for name, parameter in self.parameters.items()}
        there = {name: tuple(array.shape) for name, array in arrays.items()}
        wrong = sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))
        if wrong:
            more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
            raise CheckpointError(
                f"the saved run is of another model, optimizer, ema or loss scale: {', '.join(wrong[:5])}{more} differ"
            )

    def _move_schedule(self, progress: RunProgress, before: RunProgress) -> None:
        global_step = self.step.optimizer.global_step
        done = int(global_step.asnumpy().reshape(-1)[0])
        moved = round(done * progress.global_step / max(before.global_step, 1))
        global_step.set_data(Tensor(np.full(global_step.shape, moved), global_step.dtype))
        logger.warning(
            "an epoch has %d steps of %d images, not %d of %d: step %d becomes %d, and the schedule goes with it",
            progress.steps_per_epoch,
            progress.images_per_step,
            before.steps_per_epoch,
            before.images_per_step,
            before.step,
            progress.step,
        )
