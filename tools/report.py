"""Write one HTML page about a run: curves, options, versions and, with the data, predictions.

    python tools/report.py RUN_DIR
    python tools/report.py RUN_DIR --data_dir FOLDER [--output report.html] [--option of validate.py ...]

RUN_DIR is the `ckpt_save_dir` of train.py or pretrain.py. The page needs no other file and no network.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import own_mindcv  # noqa: F401

from mindcv.config import ValidateConfig, parse_args, without_network_options
from mindcv.engine.run_folder import REPORT, newest_checkpoint
from mindcv.models.pretrained import split_tag
from mindcv.recipe import prepare_device, show_if_asked, tell_warnings
from mindcv.recipe_validate import measure_predictions
from mindcv.report import ExampleCollector, RunFiles, Validated, read_run, report_page, shown_size
from mindcv.utils.cli import run_script
from mindcv.utils.errors import ConfigError
from mindcv.utils.files import atomic_write_text, ensure_writable
from mindcv.utils.logger import counted

# Options of the run that decide how its validation images are read. All others come from the checkpoint.
_OF_THE_RUN = (
    "dataset",
    "val_split",
    "batch_size",
    "skip_corrupt",
    "max_image_pixels",
    "mode",
    "val_amp_level",
    "amp_dtype",
)
_NUM_EXAMPLES = 24


def main() -> None:
    args, words = read_args()
    folder = Path(args.run_dir)
    run = read_run(folder)
    output = args.output or str(folder / REPORT)
    ensure_writable(output)
    validated = validate(run, folder, ["--data_dir", args.data_dir, *words]) if args.data_dir else None
    atomic_write_text(output, report_page(run, validated))
    size = shown_size(os.path.getsize(output))
    predictions = "with predictions" if validated else "without predictions"
    print(f"{output}: {counted(len(run.rows), 'epoch')}, {predictions}, {size}")


def read_args() -> tuple[argparse.Namespace, list[str]]:
    """Read the command line. The second result is the words that are options of validate.py.

    Raises:
        ConfigError: options of validate.py are given without a data folder.
    """
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="With --data_dir, every option of validate.py is accepted too, for example --val_split or --ckpt_path.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "run_dir", metavar="RUN_DIR", help="folder of the run: ckpt_save_dir of train.py or pretrain.py"
    )
    parser.add_argument("--output", default="", help=f"file to write the page to (default: {REPORT} in RUN_DIR)")
    parser.add_argument(
        "--data_dir", default="", help="folder that holds the data set; the page then shows predictions of the run"
    )
    args, words = parser.parse_known_args()
    if words and not args.data_dir:
        raise ConfigError([f"'{words[0]}' is an option of validate.py, which works with --data_dir FOLDER only"])
    return args, words


def validate(run: RunFiles, folder: Path, words: list[str]) -> Validated:
    """Classify the validation images with the best checkpoint of the run, or with the newest one if none is the best.

    Args:
        run: what the folder holds.
        folder: folder of the run.
        words: options of validate.py, which override those of the run.
    """
    best = folder / f"{split_tag(str(run.options.get('model', '')))[0]}_best.ckpt"
    if not any(word.partition("=")[0] == "--ckpt_path" for word in words):
        words = ["--ckpt_path", str(best if best.exists() else newest_checkpoint(folder)), *words]
    config = parse_args(words, ValidateConfig)
    own = {name: run.options[name] for name in _OF_THE_RUN if name in run.options and name not in config.given}
    config = replace(config, **own, given={**dict.fromkeys(own, "checkpoint"), **config.given})
    config, left_out = without_network_options(config)
    config = replace(config, warnings=(*config.warnings, *left_out))
    refuse_other_results(config)
    tell_warnings(config)
    show_if_asked(config)
    prepare_device(config)
    collector = ExampleCollector(_NUM_EXAMPLES)
    measured = measure_predictions(config, collector)
    config = measured.config
    name_of = partial(shortened_name, measured.image_name, config.data_dir)
    wrong, right = collector.examples(config.mean, config.std, name_of)
    names, confusion = list(measured.class_names.values()), measured.counts.confusion
    checkpoint = os.path.basename(config.ckpt_path)
    return Validated(checkpoint, measured.metrics, names, confusion, wrong, right)


def refuse_other_results(config: ValidateConfig) -> None:
    """Raise a ConfigError if options ask for results that this tool does not compute or write."""
    problems = [
        f"{name}: this tool writes a page only, and validate.py writes this file"
        for name in ("results_json", "per_class_csv", "confusion_matrix", "reliability_plot", "confused_pairs")
        if getattr(config, name)
    ]
    if config.probe:
        problems.append("probe: a report shows predictions of a classifier, so leave probe out")
    if config.distribute:
        problems.append("distribute: this tool runs in one process, so leave distribute out")
    if problems:
        raise ConfigError(problems)


def shortened_name(image_name: Callable[[int], str], data_dir: str, position: int) -> str:
    """Return the name of an image without the folder of the data set."""
    return image_name(position).removeprefix(os.path.join(data_dir, ""))


if __name__ == "__main__":
    run_script(main)
