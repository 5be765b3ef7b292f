"""Measure a checkpoint: `python validate.py --ckpt_path FILE.ckpt --data_dir FOLDER [--option value ...]`."""

from __future__ import annotations

import os
import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Ctrl-C ends the process with a line, also in the imports below and while a graph compiles, which take seconds.
    signal.signal(signal.SIGINT, lambda *_: (os.write(2, b"stopped: by Ctrl-C\n"), os._exit(130)))

from mindcv.config import ValidateConfig
from mindcv.recipe import prepare_device, read_config
from mindcv.recipe_validate import measure_features, measure_predictions, prepare_results, write_results
from mindcv.utils.cli import run_script


def main() -> None:
    config = read_config(ValidateConfig)
    prepare_results(config)
    prepare_device(config)
    measure = measure_features if config.probe else measure_predictions
    measured = measure(config)
    if measured is not None:
        print(measured.summary)
        write_results(measured)


if __name__ == "__main__":
    run_script(main)
