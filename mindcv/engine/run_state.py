"""All that a run is, as arrays and JSON values: taken from its objects, and put back into them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Union

import numpy as np
from mindspore import Parameter, Tensor, nn

from mindcv.convert import weight_parameters
from mindcv.engine.callbacks import Callback
from mindcv.engine.checkpoint import require_finite
from mindcv.engine.state import TrainState
from mindcv.engine.state_file import SavedRun
from mindcv.engine.train_step import AccumulatedStep, TrainStep
from mindcv.utils.errors import CheckpointError
from mindcv.utils.logger import logger

__all__ = ["RunState", "weights_to_save"]


def weights_to_save(network: nn.Cell, step: Union[TrainStep, AccumulatedStep]) -> dict[str, Parameter]:
    """The weights of a network under their names, and their averages, if there are any, as `ema.<name>`."""
    averages = {} if step.ema is None else {average.name: average for average in step.ema.averages.values()}
    return {**weight_parameters(network), **averages}


class RunState:
    """A run's parameters and callbacks, to be saved and restored together.

    What its next step depends on: weights and their averages, the optimizer's and the loss scale's state, the number
    of samples that random layers have seen, and the place in the data. All other randomness is a function of the seed
    and the place. And what it has to show so far, which is the callbacks' to save.

    Args:
        network: in training.
        step: trains it.
        callbacks: of the run; what those of a class save goes back to those of that class.
        description: JSON values that tell what run this is; `started`, the time this process began at, among them.
    """

    def __init__(
        self,
        network: nn.Cell,
        step: Union[TrainStep, AccumulatedStep],
        callbacks: Sequence[Callback],
        description: Mapping[str, Any],
    ):
        self.network = network
        self.step = step
        self.callbacks = callbacks
        self.description = dict(description)
        self.parameters = weights_to_save(network, step)
        weights = {id(weight) for weight in self.parameters.values()}
        state = {"network_state": network, "optimizer": step.optimizer, "loss_scale": step.loss_scale}
        for prefix, cell in state.items():
            for parameter in cell.get_parameters():
                if id(parameter) not in weights:
                    self.parameters[f"{prefix}.{parameter.name}"] = parameter
        if step.ema is not None:
            self.parameters["ema_state.num_updates"] = step.ema.num_updates

    def capture(self, state: TrainState) -> SavedRun:
        """The run at `state`.

        Raises:
            UserError: a weight is not finite.
        """
        require_finite(weights_to_save(self.network, self.step))
        arrays = {name: parameter.asnumpy() for name, parameter in self.parameters.items()}
        saved = {type(callback).__name__: callback.saved() for callback in self.callbacks}
        return arrays, {**self.description, "state": state.as_dict(), "callbacks": saved}

    def restore(self, saved: SavedRun, state: TrainState) -> None:
        """Put a captured run back into the objects of this one, and take `state` where it was.

        Where a step takes another number of images than it did, so that the same images are another number of steps,
        the optimizer's place in the schedule moves with them.

        Raises:
            CheckpointError: the parameters are not those of this run; nothing has been changed then.
        """
        arrays, record = saved
        self._check(arrays)
        before = record["state"]
        state.restore(before)
        for name, parameter in self.parameters.items():
            parameter.set_data(Tensor(np.array(arrays[name]), parameter.dtype))
        for callback in self.callbacks:
            if record["callbacks"].get(type(callback).__name__):
                callback.restore(record["callbacks"][type(callback).__name__])
        # What is saved from now on is newer than all that was, even if the run goes on from an older file, or the clock
        # has been set back.
        self.description["started"] = max(self.description["started"], record["started"])
        if state.global_step != before["global_step"]:
            self._move_schedule(state, before)

    def _check(self, arrays: Mapping[str, np.ndarray]) -> None:
        wanted = {name: tuple(parameter.shape) for name, parameter in self.parameters.items()}
        there = {name: tuple(array.shape) for name, array in arrays.items()}
        wrong = sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))
        if wrong:
            more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
            raise CheckpointError(
                f"the saved run is of another model, optimizer, ema or loss scale: {', '.join(wrong[:5])}{more} differ"
            )

    def _move_schedule(self, state: TrainState, before: Mapping[str, Any]) -> None:
        global_step = self.step.optimizer.global_step
        done = int(global_step.asnumpy().reshape(-1)[0])
        moved = round(done * state.global_step / max(before["global_step"], 1))
        global_step.set_data(Tensor(np.full(global_step.shape, moved), global_step.dtype))
        logger.warning(
            "an epoch has %d steps of %d images, not %d of %d: step %d becomes %d, and the schedule goes with it",
            state.steps_per_epoch,
            state.images_per_step,
            before["steps_per_epoch"],
            before["images_per_step"],
            before["step"],
            state.step,
        )
