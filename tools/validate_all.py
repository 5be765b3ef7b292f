"""Measure many checkpoints, or all published weights of models, on the same images, and write a CSV row for each.

    python tools/validate_all.py --checkpoints runs/*/ckpt --data_dir FOLDER --results_csv results.csv
    python tools/validate_all.py --models "convnextv2_*" --data_dir FOLDER --results_csv results.csv

A file of results that exists is completed: rows that it has are kept. A checkpoint that cannot be measured becomes a
row with its error, and the tool then ends with status 1.
"""

from __future__ import annotations

import own_mindcv  # noqa: F401

from mindcv.config import ValidateAllConfig
from mindcv.recipe import prepare_device, read_config
from mindcv.recipe_validate_all import validate_all
from mindcv.utils.cli import run_script
from mindcv.utils.errors import UserError


def main() -> None:
    config = read_config(ValidateAllConfig)
    prepare_device(config)
    rows = []
    for row in validate_all(config):
        rows.append(row)
        name = row["checkpoint"]
        print(f"{name}: {row['error']}" if row["error"] else f"{name}: Top_1_Accuracy: {row['top_1']}")
    failed = [row for row in rows if row["error"]]
    if failed:
        found = f"{len(failed)} of {len(rows)} checkpoints could not be measured"
        raise UserError(f"{found}: the column error of '{config.results_csv}' says why")


if __name__ == "__main__":
    run_script(main)
