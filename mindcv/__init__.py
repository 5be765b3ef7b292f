"""ConvNeXt and ConvNeXt V2 for MindSpore, in the style of MindCV."""

import gc as _gc
from pathlib import Path as _Path

import numpy as _numpy

# Every release of MindCV has this file, and this package does not have it (decision 0005).
if _Path(__file__).with_name("version.py").exists():
    raise ImportError(
        f"'{_Path(__file__).parent}' holds files of two libraries, this one and MindCV, whose package has the same "
        "name; delete that folder and install one of the two"
    )
if int(_numpy.__version__.split(".")[0]) >= 2:
    raise ImportError(
        f"mindcv needs numpy below 2, and {_numpy.__version__} is installed: MindSpore's wheels fail at the first "
        'tensor operation with numpy 2; run: pip install "numpy<2"'
    )

# The objects that an import creates are not garbage. Each collection during the import would walk
# through all of MindSpore, which takes 0.1 s (decision 0002).
_collecting = _gc.isenabled()
_gc.disable()
try:
    from mindcv.compat import install as _install_names_of_mindcv
    from mindcv.data import create_dataset, create_loader, create_transforms
    from mindcv.engine import create_trainer
    from mindcv.loss import create_loss
    from mindcv.models import *  # noqa: F403  (its __all__ holds one function per variant)
    from mindcv.models import __all__ as _models
    from mindcv.optim import create_optimizer
    from mindcv.scheduler import create_scheduler
finally:
    if _collecting:
        _gc.enable()

__version__ = "0.1.0"
_install_names_of_mindcv()

__all__ = [
    "create_dataset",
    "create_loader",
    "create_loss",
    "create_optimizer",
    "create_scheduler",
    "create_trainer",
    "create_transforms",
    *_models,
]
