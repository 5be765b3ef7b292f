"""The training step: takes one batch, or several one after another, updates the weights and returns the loss."""

from __future__ import annotations

from typing import Any, Optional

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from mindcv.engine.compile_cache import CompileCache
from mindcv.engine.ema import WeightAverage
from mindcv.models.layers import SampleCounter
from mindcv.utils.distributed import ALONE, Group

__all__ = ["AccumulatedStep", "TrainStep"]

_unscale = ops.MultitypeFuncGraph("unscale")
_is_finite = ops.MultitypeFuncGraph("is_finite")
_over_group = ops.MultitypeFuncGraph("over_group")
_add = ops.MultitypeFuncGraph("add")
_divide = ops.MultitypeFuncGraph("divide")
_clear = ops.MultitypeFuncGraph("clear")


@_unscale.register("Function", "Tensor")
def _unscale_one(unscale, gradient):
    return unscale(gradient)


@_is_finite.register("Tensor")
def _is_finite_one(gradient):
    return ops.cast(ops.reduce_min(ops.cast(ops.isfinite(gradient), ms.float32)), ms.float32)


@_over_group.register("Function", "Number", "Tensor")
def _over_group_one(all_reduce, divisor, gradient):
    return all_reduce(gradient) / divisor


@_add.register("Number", "Tensor", "Tensor")
def _add_one(weight, total, gradient):
    return ops.assign_add(total, gradient * weight)


@_divide.register("Tensor", "Tensor")
def _divide_one(divisor, total):
    return total / divisor


@_clear.register("Tensor")
def _clear_one(total):
    return ops.assign(total, ops.zeros_like(total))


class _Called(nn.Cell):
    """A Cell that Python calls for each step.

    At each call MindSpore passes the name of the compiled graph to every inner Cell, which takes 5 ms for the 200 Cells
    of a step of convnextv2_atto. This class passes it on only when the name has changed.

    With a `graph_cache`, the graph of the first call is loaded from the cache if it holds it.
    """

    graph_cache: Optional[CompileCache] = None

    def __call__(self, *arguments: Tensor) -> Any:
        """As `nn.Cell`."""
        cache = self.graph_cache
        if cache is None:
            return super().__call__(*arguments)
        self.graph_cache = None
        with cache.compiling(arguments):
            return super().__call__(*arguments)

    @nn.Cell.compile_phase.setter
    def compile_phase(self, value: str) -> None:
        """Name of the compiled graph of the last call."""
        if value != self._compile_phase:
            nn.Cell.compile_phase.fset(self, value)


class TrainStep(_Called):
    """Forward, backward, update, in this order: scale the loss, differentiate, sum over processes, unscale, check,
    clip, update, average the weights.

    Args:
        network: maps images to logits.
        loss: maps (logits, labels) to a scalar: the mean over the samples, or with `reduction` "sum" their sum. None if
            the network maps (images, labels) to a tuple that begins with the loss, as `FCMAE` does with its masks.
        optimizer: holds the parameters to train.
        loss_scale: made by `create_loss_scale`.
        skip_overflow: do not change the weights when a gradient is not finite.
        clip_norm: largest global norm of the gradients; 0 means no clipping.
        group: the processes that share the batch.
        ema: moving average of the weights to update, if any.

    The step is one Cell, so that graph mode compiles it into one graph. On CPU, a step of convnextv2_tiny with two
    images of 224 pixels took 1.75 s that way, and 4.9 s in PyNative mode.
    """

    def __init__(
        self,
        network: nn.Cell,
        loss: Optional[nn.Cell],
        optimizer: nn.Optimizer,
        loss_scale: nn.Cell,
        skip_overflow: bool = False,
        clip_norm: float = 0.0,
        group: Group = ALONE,
        ema: Optional[WeightAverage] = None,
    ):
        super().__init__(auto_prefix=False)
        self.optimizer = optimizer
        self.loss_scale = loss_scale
        self.ema = ema
        self.gradient = _Gradient(network, loss, loss_scale, optimizer)
        self.over_group = _over(group, loss)
        self.update = _Update(optimizer, loss_scale, skip_overflow, clip_norm, self.over_group, ema)

    def use_compile_cache(self, cache: CompileCache) -> None:
        """Load the graph from `cache`, or store it there. Call this before the first step."""
        cache.serve(self)

    def construct(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Map images [B, C, H, W] and labels [B] or [B, K] to (loss of all processes, are the gradients finite)."""
        loss, gradients = self.gradient(images, labels)
        return self.over_group((loss,))[0], self.update(gradients)


class AccumulatedStep:
    """A training step whose batch comes in parts: `accumulate` all parts but the last, and call with the last one.

    The gradients are added up as they would be in one large batch. Learning rate, average of the weights, overflow
    check, clipping and the sum over processes therefore happen once for each update. The step has two graphs, one for a
    part and one for the update, and keeps one more copy of the gradients.

    Args:
        step: the step for a whole batch, whose gradient and update are used.
    """

    def __init__(self, step: TrainStep):
        self.optimizer = step.optimizer
        self.loss_scale = step.loss_scale
        self.ema = step.ema
        network = step.gradient.network
        self._counters = [cell for _, cell in network.cells_and_names() if isinstance(cell, SampleCounter)]
        self._num_images = 0  # accumulated since the last update
        totals = _Totals(step.optimizer.parameters, is_mean=_is_mean(step.gradient.loss))
        self._accumulate = _Accumulate(step.gradient, totals)
        self._finish = _Finish(totals, step.update, step.over_group)

    def set_train(self, mode: bool = True) -> AccumulatedStep:
        """As `nn.Cell.set_train`."""
        self._accumulate.set_train(mode)
        self._finish.set_train(mode)
        return self

    def use_compile_cache(self, cache: CompileCache) -> None:
        """As `TrainStep.use_compile_cache`."""
        cache.serve(self._accumulate, self._finish)

    def accumulate(self, images: Tensor, labels: Tensor) -> None:
        """Add the gradients of one part of the batch; arguments as for `TrainStep`."""
        self._accumulate(images, labels)
        self._num_images += images.shape[0]

    def drop_parts(self) -> None:
        """Subtract the samples accumulated since the last update from the network's count of samples.

        A snapshot that is taken then holds the run as it was after that update. The accumulated gradients are not part
        of a snapshot.
        """
        for counter in self._counters:
            count = counter.count.asnumpy() - self._num_images * counter.num_ranks
            counter.count.set_data(Tensor(count, counter.count.dtype))
        self._num_images = 0

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Add the gradients of the last part and update; returns what `TrainStep` returns, for the whole batch."""
        self._accumulate(images, labels)
        self._num_images = 0
        return self._finish()


def _is_mean(loss: Optional[nn.Cell]) -> bool:
    return getattr(loss, "reduction", "mean") == "mean"


def _over(group: Group, loss: Optional[nn.Cell]) -> nn.Cell:
    """Return a Cell that combines gradients or losses of all processes: by their mean if the loss is a mean."""
    return nn.Identity() if group.size == 1 else _OverGroup(group.size if _is_mean(loss) else 1)


class _Gradient(nn.Cell):
    """Maps a batch to its loss and the gradients of the scaled loss."""

    def __init__(self, network: nn.Cell, loss: Optional[nn.Cell], loss_scale: nn.Cell, optimizer: nn.Optimizer):
        super().__init__(auto_prefix=False)
        self.network = network
        self.loss = loss
        self.loss_scale = loss_scale
        self.gradient = ms.value_and_grad(self.forward, None, optimizer.parameters)

    def forward(self, images, labels):
        """Return the scaled loss of a batch."""
        if self.loss is None:
            return self.loss_scale(self.network(images, labels)[0])
        return self.loss_scale(self.loss(self.network(images), labels))

    def construct(self, images, labels):
        scaled_loss, gradients = self.gradient(images, labels)
        return self.loss_scale.unscale(scaled_loss), gradients


class _Update(nn.Cell):
    """Updates the weights from gradients of the scaled loss, and returns whether the gradients were finite."""

    def __init__(
        self,
        optimizer: nn.Optimizer,
        loss_scale: nn.Cell,
        skip_overflow: bool,
        clip_norm: float,
        over_group: nn.Cell,
        ema: Optional[WeightAverage],
    ):
        super().__init__(auto_prefix=False)
        self.loss_scale = loss_scale
        self.over_group = over_group
        # With a scale of 1, unscaling would be a useless pass over all gradients.
        self.unscale = nn.Identity() if loss_scale.is_one else _Unscale(loss_scale)
        self.clip = _ClipByGlobalNorm(clip_norm) if clip_norm > 0 else nn.Identity()
        inner = optimizer if ema is None else _UpdateAndAverage(optimizer, ema)
        self.guard = _IfFinite(inner) if skip_overflow else _Always(inner)

    def construct(self, gradients):
        gradients = self.unscale(self.over_group(gradients))
        is_finite = self.guard.check(gradients)
        self.guard(self.clip(gradients), is_finite)
        return self.loss_scale.adjust(is_finite)


class _Unscale(nn.Cell):
    def __init__(self, loss_scale: nn.Cell):
        super().__init__(auto_prefix=False)
        self.loss_scale = loss_scale
        self.hyper_map = ops.HyperMap()

    def construct(self, gradients):
        return self.hyper_map(ops.partial(_unscale, self.loss_scale.unscale), gradients)


class _OverGroup(nn.Cell):
    """Sums tensors over the processes and divides by `divisor`."""

    def __init__(self, divisor: int):
        super().__init__()
        self.divisor = float(divisor)
        self.all_reduce = ops.AllReduce()
        self.hyper_map = ops.HyperMap()

    def construct(self, tensors):
        return self.hyper_map(ops.partial(_over_group, self.all_reduce, self.divisor), tensors)


class _ClipByGlobalNorm(nn.Cell):
    def __init__(self, norm: float):
        super().__init__()
        self.norm = norm

    def construct(self, gradients):
        return ops.clip_by_global_norm(gradients, self.norm)


class _UpdateAndAverage(nn.Cell):
    def __init__(self, optimizer: nn.Optimizer, ema: WeightAverage):
        super().__init__(auto_prefix=False)
        self.optimizer = optimizer
        self.ema = ema

    def construct(self, gradients):
        updated = self.optimizer(gradients)
        return ops.depend(self.ema(), updated)


class _Always(nn.Cell):
    """Always updates."""

    def __init__(self, inner: nn.Cell):
        super().__init__(auto_prefix=False)
        self.inner = inner

    def check(self, gradients):
        return Tensor(True)

    def construct(self, gradients, is_finite):
        return self.inner(gradients)


class _IfFinite(nn.Cell):
    """Updates unless a gradient is not finite."""

    def __init__(self, inner: nn.Cell):
        super().__init__(auto_prefix=False)
        self.inner = inner
        self.hyper_map = ops.HyperMap()

    def check(self, gradients):
        return ops.equal(ops.addn(self.hyper_map(_is_finite, gradients)), float(len(gradients)))

    def construct(self, gradients, is_finite):
        if is_finite:
            self.inner(gradients)
        return is_finite


class _Totals(nn.Cell):
    """Sums over the parts of a batch: of gradients, of losses, and of the weights of the parts.

    The weight of a part is its number of samples where the loss is a mean, and 1 where the loss is a sum.
    """

    def __init__(self, parameters: ParameterTuple, is_mean: bool):
        super().__init__(auto_prefix=False)
        self.is_mean = is_mean
        self.gradients = parameters.clone(prefix="accumulated", init="zeros")
        self.loss = Parameter(Tensor(np.zeros(1, np.float32)), name="accumulated_loss", requires_grad=False)
        self.weight = Parameter(Tensor(np.zeros(1, np.float32)), name="accumulated_weight", requires_grad=False)


class _Accumulate(_Called):
    def __init__(self, gradient: nn.Cell, totals: _Totals):
        super().__init__(auto_prefix=False)
        self.gradient = gradient
        self.totals = totals
        self.hyper_map = ops.HyperMap()

    def construct(self, images, labels):
        loss, gradients = self.gradient(images, labels)
        weight = float(images.shape[0]) if self.totals.is_mean else 1.0
        self.hyper_map(ops.partial(_add, weight), self.totals.gradients, gradients)
        ops.assign_add(self.totals.weight, Tensor([weight], ms.float32))
        return ops.assign_add(self.totals.loss, ops.reshape(loss * weight, (1,)))


class _Finish(_Called):
    """Updates with the accumulated gradients, then sets the sums to zero."""

    def __init__(self, totals: _Totals, update: nn.Cell, over_group: nn.Cell):
        super().__init__(auto_prefix=False)
        self.totals = totals
        self.update = update
        self.over_group = over_group
        self.hyper_map = ops.HyperMap()

    def construct(self):
        weight = self.totals.weight if self.totals.is_mean else ops.ones_like(self.totals.weight)
        loss = self.over_group((ops.reshape(self.totals.loss / weight, ()),))[0]
        gradients = self.hyper_map(ops.partial(_divide, weight), self.totals.gradients)
        is_finite = self.update(gradients)
        self.hyper_map(_clear, self.totals.gradients)
        self.hyper_map(_clear, (self.totals.loss, self.totals.weight))
        return loss, is_finite
