"""The log line that announces the compilation of a graph, during which nothing else is logged."""

from __future__ import annotations

import mindspore as ms

from mindcv.kernels import status
from mindcv.utils.logger import logger

__all__ = ["say_compiling"]


def say_compiling(what: str) -> None:
    """In graph mode say that `what` is compiled now, and how long that usually takes, as far as it was measured.

    The times are those of convnextv2_atto and convnext_tiny on two cores (decision 0065).
    """
    if ms.get_context("mode") != ms.GRAPH_MODE:
        return
    if ms.get_context("device_target") != "CPU":
        usual = "which may take minutes"
    elif status().is_used:
        usual = "which usually takes 5 to 10 s, and longer for large models"
    else:
        usual = "which usually takes 10 to 60 s without the CPU kernels, and longer for large models"
    logger.info("compiling %s, %s", what, usual)
