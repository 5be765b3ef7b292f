"""Transforms and data sets that data-loader processes of the tests can import. This module imports no MindSpore."""

from __future__ import annotations

import os
import signal
import sys

import numpy as np
from PIL import Image

from mindcv.kernels.library import is_available
from mindcv.utils.errors import UnknownKeywordError

FACTS = ("is_sigterm_default", "is_sigint_ignored", "has_mindspore", "has_kernels", "max_pixels", "pid")


def facts_of_process(image):
    """Return facts about the process that reads an image, float32 [1, 1, 6], in the order of `FACTS`."""
    is_default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    is_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    facts = (is_default, is_ignored, "mindspore" in sys.modules, is_available(), Image.MAX_IMAGE_PIXELS, os.getpid())
    return np.array(facts, np.float32).reshape(1, 1, -1)


def uses_whole_package(image):
    """Return whether the package, whose parts were imported without MindSpore, can be imported as a whole."""
    from mindcv import create_loader
    from mindcv.data import ImageDataset, transforms
    from mindcv.data.batches import BatchMaker
    from mindcv.kernels import is_available

    parts = (create_loader, is_available, BatchMaker, ImageDataset)
    is_whole = all(map(callable, parts)) and hasattr(sys.modules["mindcv"], "create_model")
    is_one = transforms is sys.modules["mindcv.data.transforms"] and BatchMaker.__module__ == "mindcv.data.batches"
    return np.full((1, 1, 1), is_whole and is_one and "mindspore" in sys.modules, np.float32)


class EndsProcess:
    """Ends the process that reads an image, unless it is process `spared`."""

    def __init__(self, spared, how):
        self.spared, self.how = spared, how

    def __call__(self, image):
        if os.getpid() != self.spared:
            self.how(os.getpid())
        return np.zeros((1, 2, 2), np.float32)


def kill(pid):
    """End the process as the system does when memory runs out."""
    os.kill(pid, signal.SIGKILL)


def exit_with_status(pid):
    """End the process with a status, as a library may do that aborts."""
    os._exit(3)


class Raises:
    """Raises an error of a kind."""

    def __init__(self, kind):
        self.kind = kind

    def __call__(self, image):
        if self.kind == "keyword":  # this class cannot be unpickled, because it has other arguments
            raise UnknownKeywordError("flip", "probe", ["prob"])
        raise KeyError("of the user's code")


class Unpicklable:
    """Can be pickled, but not in the other direction."""

    def __call__(self, image):
        return np.zeros((1, 2, 2), np.float32)

    def __reduce__(self):
        return _refuse, ()


def _refuse():
    raise RuntimeError("not in this process")
