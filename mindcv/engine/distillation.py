"""Distillation: the network learns from a teacher network as well as from labels."""

from __future__ import annotations

from typing import Any, Union

import mindspore as ms
from mindspore import Tensor, nn, ops

from mindcv.loss import CrossEntropySmooth
from mindcv.utils.checks import check_name, check_number, check_positive
from mindcv.utils.errors import UserError

__all__ = ["DISTILLATION_KINDS", "DistillationLoss", "DistillationNetwork"]

DISTILLATION_KINDS = ("soft", "hard")

# Outputs of a network: logits, or a tuple of the main head's logits and those of auxiliary heads.
_Logits = Union[Tensor, tuple[Tensor, ...]]


class DistillationNetwork(nn.Cell):
    """Images to (the student's output, the teacher's logits) in training; in evaluation to the student's output alone.

    The teacher stays in evaluation mode, has no gradients, and is not trained: `trainable_params` are the student's,
    under their own names. Those of the teacher get the prefix `teacher.`, since one graph cannot have a name twice, and
    `requires_grad` False: the teacher belongs to this network from then on. Validate and save the student, not this.

    Args:
        student: images to logits, or to a tuple of the main head's and auxiliary heads'. It and the teacher may each be
            the result of `apply_amp`; this network cannot go through it at O2 and O3.
        teacher: images to logits, of as many classes.

    Raises:
        UserError: student and teacher are one network, or share a parameter.
    """

    def __init__(self, student: nn.Cell, teacher: nn.Cell):
        super().__init__(auto_prefix=False)
        own = {id(parameter) for parameter in student.get_parameters()}
        if any(id(parameter) in own for parameter in teacher.get_parameters()):
            raise UserError("the teacher must be a network of its own, without a parameter of the student's")
        for parameter in teacher.get_parameters():
            parameter.requires_grad = False
            if not parameter.name.startswith("teacher."):
                parameter.name = f"teacher.{parameter.name}"
        self.student = student
        self.teacher = _Frozen(teacher)

    def construct(self, images: Tensor) -> Union[_Logits, tuple[_Logits, Tensor]]:
        """images [B, C, H, W]; see the class."""
        if not self.training:
            return self.student(images)
        return self.student(images), self.teacher(images)


class _Frozen(nn.Cell):
    """Keeps a network in evaluation mode, whatever its parent does, and passes no gradient."""

    def __init__(self, network: nn.Cell):
        super().__init__(auto_prefix=False)
        self.network = network
        self.set_train(False)

    def add_flags_recursive(self, **flags: Any) -> nn.Cell:
        """Ignore the mode; `Cell.set_train` of any parent calls this method."""
        if "training" in flags:
            flags["training"] = False
        return super().add_flags_recursive(**flags)

    def construct(self, images: Tensor) -> Tensor:
        return ops.stop_gradient(self.network(images))


class DistillationLoss(nn.Cell):
    """`(1 - alpha) * base + alpha * distillation` on the outputs of a `DistillationNetwork` in training.

    soft: `tau^2 * KL(softmax(teacher / tau) || softmax(student / tau))`, summed over classes and averaged over the
    batch. DeiT's code divides by the number of classes K as well: its alpha for soft distillation weighs this term K
    times less. tau^2 keeps the size of the gradients the same for any tau.
    hard: cross-entropy with the teacher's likeliest class, averaged over the batch.

    Args:
        base: (student's output, labels) to a scalar, a mean over the batch.
        kind: 'soft' or 'hard'.
        alpha: share of the distillation, in [0, 1].
        tau: temperature of 'soft', above 0; 'hard' has none.

    Inputs of the call:
        outputs: (student's output, teacher's logits [B, K]). Of a student's tuple the main head's, the first, learn
            from the teacher.
        labels: as `base` takes them.

    Source: "Distilling the Knowledge in a Neural Network", arXiv 1503.02531; DeiT, arXiv 2012.12877, section 4.

    Raises:
        UserError: an unknown kind, an option out of its range, or a base that does not take the mean.
    """

    def __init__(self, base: nn.Cell, kind: str = "soft", alpha: float = 0.5, tau: float = 1.0):
        super().__init__()
        check_name("distillation", kind, DISTILLATION_KINDS)
        check_number("alpha of the distillation", alpha, low=0, high=1)
        check_positive(tau=tau)
        if kind == "hard" and tau != 1.0:
            raise UserError(f"tau is of soft distillation; hard has none, got {tau}")
        reduction = getattr(base, "reduction", "mean")
        if reduction != "mean":
            raise UserError(
                f"distillation adds a mean over the batch: the loss needs reduction 'mean', not '{reduction}'"
            )
        self.base = base
        self.distill = _SoftTargets(tau) if kind == "soft" else _HardTargets()
        self.alpha = float(alpha)
        self.num_splits = getattr(base, "num_splits", 1)

    def construct(self, outputs: tuple[_Logits, Tensor], labels: Tensor) -> Tensor:
        """Return the loss, a float32 scalar."""
        student, teacher_logits = outputs
        logits = student[0] if isinstance(student, (tuple, list)) else student
        return (1.0 - self.alpha) * self.base(student, labels) + self.alpha * self.distill(logits, teacher_logits)


class _SoftTargets(nn.Cell):
    def __init__(self, tau: float):
        super().__init__()
        self.tau = float(tau)

    def construct(self, logits: Tensor, teacher_logits: Tensor) -> Tensor:
        logs = ops.log_softmax(logits.astype(ms.float32) / self.tau, 1)  # [B, K]
        wanted = ops.log_softmax(teacher_logits.astype(ms.float32) / self.tau, 1)
        return (ops.exp(wanted) * (wanted - logs)).sum(1).mean() * (self.tau * self.tau)


class _HardTargets(nn.Cell):
    def __init__(self):
        super().__init__()
        self.cross_entropy = CrossEntropySmooth()

    def construct(self, logits: Tensor, teacher_logits: Tensor) -> Tensor:
        return self.cross_entropy(logits, ops.argmax(teacher_logits.astype(ms.float32), 1))
