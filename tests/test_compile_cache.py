"""train.py with a compile cache that runs of other options have filled: what MindSpore's own would get wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "configs" / "convnextv2" / "convnextv2_atto_digits.yaml"
OPTIONS = "--epoch_size 1 --warmup_epochs 0 --decay_epochs 1 --num_samples 96 --batch_size 32 --num_parallel_workers 1"
CHANGES = {
    "nothing": "",
    "rate": "--lr 0.01",
    "decay": "--weight_decay 0.5",
    "stochastic depth": "--drop_path_rate 0.4",
    "seed of stochastic depth": "--seed 7",
    "loss": "--label_smoothing 0.3",
    "clipping": "--clip_grad True --clip_value 0.01",
    "size": "--image_resize 64",
    "images": "--num_samples 64",  # other steps an epoch, so other rates
    "freezing": "--freeze feature.0.* feature.1.*",
}


def train(folder, name, options, cache=None, **variables):
    """The weights that a run comes to, byte for byte, and what it said."""
    argv = [*OPTIONS.split(), *options.split(), "--ckpt_save_dir", str(folder / name)]
    argv += ["--compile_cache_dir", str(cache)] if cache else []
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "--config", str(RECIPE), *argv],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (weights,) = (folder / name).glob("*-1_*.ckpt")
    return weights.read_bytes(), done.stderr


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """The cache of a run as the recipe has it."""
    folder = tmp_path_factory.mktemp("filled")
    train(folder, "run", "", folder / "cache")
    return folder / "cache"


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_a_cached_run_is_the_run(cache, tmp_path, change):
    without, _ = train(tmp_path, "without", CHANGES[change])
    for name, is_taken in (("first", change == "nothing"), ("second", True)):
        weights, said = train(tmp_path, name, CHANGES[change], cache)
        assert ("Use the compilation cache" in said) == is_taken  # says MindSpore
        assert weights == without


@pytest.mark.slow
def test_kernels_on_and_off_keep_steps_apart(cache, tmp_path):
    without, _ = train(tmp_path, "without", "", MINDCV_KERNELS="off")
    weights, said = train(tmp_path, "with", "", cache, MINDCV_KERNELS="off")
    assert "Use the compilation cache" not in said
    assert weights == without
