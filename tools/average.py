"""Average the weights of several checkpoints of one architecture into one checkpoint.

    python tools/average.py --checkpoints run1/best.ckpt run2/best.ckpt --dst mean.ckpt
    python tools/average.py --checkpoints "runs/*/*_best.ckpt" --method greedy --data_dir FOLDER --dst soup.ckpt

A greedy soup contains only the checkpoints that do not lower the accuracy on validation images.
"""

from __future__ import annotations

import own_mindcv  # noqa: F401

from mindcv.config import AverageConfig
from mindcv.recipe import prepare_device, read_config
from mindcv.recipe_average import average_checkpoints
from mindcv.utils.cli import run_script


def main() -> None:
    config = read_config(AverageConfig)
    prepare_device(config)
    print("\n".join(average_checkpoints(config)))


if __name__ == "__main__":
    run_script(main)
