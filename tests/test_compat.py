"""Tests of MindCV's import lines and of its helpers that this library has."""

import importlib
import logging
import random
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mindcv.compat import ALIASES, INSTEAD
from mindcv.models.convnext import ConvNeXt

ROOT = Path(__file__).parents[1]

# These lines come from MindCV's documents, scripts and tests.
LINES = """
from mindcv.data import create_dataset, create_loader, create_transforms, get_dataset_download_root
from mindcv.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from mindcv.loss import create_loss
from mindcv.loss.loss_factory import create_loss
from mindcv.loss.cross_entropy_smooth import CrossEntropySmooth
from mindcv.loss.binary_cross_entropy_smooth import BinaryCrossEntropySmooth
from mindcv.models import create_model, list_models, list_modules, model_entrypoint
from mindcv.models.features import FeatureExtractWrapper
from mindcv.models.helpers import get_checkpoint_download_root, load_model_checkpoint
from mindcv.models.registry import register_model, _model_pretrained_cfgs
from mindcv.optim import create_optimizer, create_finetune_optimizer
from mindcv.optim.optim_factory import create_finetune_optimizer
from mindcv.scheduler import create_scheduler, dynamic_lr
from mindcv.utils import CheckpointManager, ValCallback, create_trainer, get_metrics, set_logger, set_seed
from mindcv.utils import require_customized_train_step, auto_mixed_precision, DownLoad
from mindcv.utils.amp import auto_mixed_precision
from mindcv.utils.callbacks import ValCallback
from mindcv.utils.checkpoint_manager import CheckpointManager
from mindcv.utils.download import DownLoad, get_default_download_root
from mindcv.utils.logger import set_logger
from mindcv.utils.path import detect_file_type
from mindcv.utils.random import set_seed
from mindcv.utils.trainer_factory import create_trainer, get_metrics, require_customized_train_step
from mindcv.version import __version__
import mindcv.utils.amp
""".strip().splitlines()


def test_compat_accepts_the_import_lines_of_mindcv():
    """The lines run in a new process, where no other test has imported anything."""
    run = subprocess.run([sys.executable, "-c", "\n".join(LINES)], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("module", ALIASES)
def test_compat_aliases_exist(module):
    for name in ALIASES[module]:
        assert getattr(importlib.import_module(module), name) is not None


@pytest.mark.parametrize("module", INSTEAD)
def test_compat_names_a_replacement_for_a_missing_name(module):
    for name, use in INSTEAD[module].items():
        with pytest.raises(ImportError, match=f"{name} exists in MindCV but not in this library: use"):
            exec(f"from {module} import {name}")
        assert use
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        exec(f"from {module} import nothing")


def test_compat_names_are_listed_on_the_page_for_mindcv_users():
    page = (ROOT / "docs" / "how-to" / "from_mindcv.md").read_text(encoding="utf-8")
    for names in (*ALIASES.values(), *INSTEAD.values()):
        missing = [name for name in names if f"`{name}`" not in page]
        assert not missing


def test_set_seed_seeds_python_numpy_and_mindspore():
    from mindcv.utils import set_seed

    draws = []
    for _ in range(2):
        set_seed(3, rank=1)
        draws.append((random.random(), np.random.rand(), ms.get_seed()))
    assert draws[0] == draws[1] and draws[0][2] == 4


def test_set_logger_writes_to_a_file_of_its_rank(tmp_path):
    from mindcv.utils import set_logger

    found = set_logger("test_compat", output_dir=str(tmp_path / "log"), rank=1, color=True)
    found.info("a line")
    assert found is set_logger("test_compat") is logging.getLogger("test_compat")
    assert "test_compat INFO - a line" in (tmp_path / "log" / "rank1.log").read_text()
    for handler in list(found.handlers):
        handler.close()
        found.removeHandler(handler)


def test_compat_checkpoint_manager_keeps_the_checkpoints_of_its_policy(tmp_path):
    from mindcv.utils import CheckpointManager

    network = nn.Dense(2, 2)
    for policy, kept in (("top_k", ["b.ckpt", "a.ckpt"]), ("latest_k", ["b.ckpt", "c.ckpt"])):
        manager = CheckpointManager(ckpt_save_policy=policy)
        for name, metric in (("a.ckpt", 0.5), ("b.ckpt", Tensor(0.75)), ("c.ckpt", 0.25)):
            files = manager.save_ckpoint(network, num_ckpt=2, metric=metric, save_path=str(tmp_path / name))
        paths = [entry[0] if policy == "top_k" else entry for entry in files]
        assert [Path(path).name for path in paths] == kept
        assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == sorted(kept)
    assert CheckpointManager().save_ckpoint(network, save_path=str(tmp_path / "d.ckpt")) is None
    assert (tmp_path / "d.ckpt").is_file()


def test_create_finetune_optimizer_lowers_the_rate_of_early_layers():
    from mindcv.optim import create_finetune_optimizer

    network = ConvNeXt(3, 2, (1, 1, 1, 1), (4, 4, 4, 4))
    optimizer = create_finetune_optimizer(network, "adamw", lr=0.1, weight_decay=0.05, scale=0.5)
    scales = {p.name: scale for p, scale in zip(optimizer.parameters, optimizer.lr_scales)}
    assert scales["feature.0.0.weight"] < scales["feature.7.0.dwconv.weight"] < scales["classifier.weight"] == 1.0


def test_detect_file_type_splits_off_archive_and_compression():
    from mindcv.utils.path import detect_file_type

    assert detect_file_type("a.tar.gz") == (".tar.gz", ".tar", ".gz")
    assert detect_file_type("a.tgz") == (".tgz", ".tar", ".gz")
    assert detect_file_type("a.zip") == (".zip", ".zip", None)
    assert detect_file_type("a.bz2") == (".bz2", None, ".bz2")


def test_model_pretrained_cfgs_name_the_classifier_as_mindcv_does():
    from mindcv.models.registry import _model_pretrained_cfgs

    head = _model_pretrained_cfgs["convnext_tiny"]["classifier"]
    network = ConvNeXt(3, 2, (1, 1, 1, 1), (4, 4, 4, 4))
    assert {f"{head}.weight", f"{head}.bias"} <= {parameter.name for parameter in network.get_parameters()}
