"""train.py uses a compile cache that runs with other options have filled, and still gives the right weights."""

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
    """Return the bytes of the weights after a run, and its log."""
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
    """Return the compile cache of a run with the options of the recipe."""
    folder = tmp_path_factory.mktemp("filled")
    train(folder, "run", "", folder / "cache")
    return folder / "cache"


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_compile_cache_leaves_the_weights_of_a_run_unchanged(cache, tmp_path, change):
    without, _ = train(tmp_path, "without", CHANGES[change])
    for name, is_taken in (("first", change == "nothing"), ("second", True)):
        weights, said = train(tmp_path, name, CHANGES[change], cache)
        assert ("Use the compilation cache" in said) == is_taken  # says MindSpore
        assert weights == without


@pytest.mark.slow
def test_compile_cache_separates_steps_with_and_without_kernels(cache, tmp_path):
    without, _ = train(tmp_path, "without", "", MINDCV_KERNELS="off")
    weights, said = train(tmp_path, "with", "", cache, MINDCV_KERNELS="off")
    assert "Use the compilation cache" not in said
    assert weights == without
