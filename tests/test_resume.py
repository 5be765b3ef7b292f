"""Training processes that are killed and resumed give the same bits as an uninterrupted process."""

import csv
import fcntl
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from PIL import Image
from run_here import run_here

from mindcv.config import TrainConfig
from mindcv.convert import read_ckpt, write_safetensors
from mindcv.convert.safetensors_file import read_and_verify
from mindcv.engine.progress import RunProgress
from mindcv.engine.snapshot import SUFFIX, UNSAVED, RunDescription, Snapshot, find_newest, write_snapshot
from mindcv.resume import check_save_dir, read_training_config
from mindcv.utils.distributed import Group
from mindcv.utils.errors import CheckpointError, UserError
from mindcv.utils.locks import LOCK_FILE, release_folders

ROOT = Path(__file__).parents[1]
SEED = int(os.environ.get("MINDCV_KILL_SEED", "0"))
CLASSES = ("blue", "green", "red")
TIMINGS = ("images_per_s", "seconds")
NEWEST, OLDER = f"convnextv2_atto-3_4{SUFFIX}", f"convnextv2_atto-3_3{SUFFIX}"
# Everything random, and everything that has a state. 28 images are 7 batches: three steps of two, and one of one.
OPTIONS = (
    "--model convnextv2_atto --image_resize 32 --batch_size 4 --drop_remainder False --epoch_size 3 --warmup_epochs 1 "
    "--decay_epochs 2 --lr 0.002 --opt adamw --gradient_accumulation_steps 2 --ema True --ema_decay 0.9 --ema_warmup 3 "
    "--mixup 0.8 --cutmix 1.0 --auto_augment randaug-m9-mstd0.5-inc1 --re_prob 0.25 --re_value pixel "
    "--drop_path_rate 0.2 --drop_rate 0.1 --val_while_train True --log_interval 1 --save_every_steps 1"
)


def write_images(folder, count, seed, classes=CLASSES):
    """Write `count` noisy images of 40 x 36 pixels for each class, with one colour for each class."""
    rng = np.random.default_rng(seed)
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 120, (36, 40, 3))
            pixels[:, :, 2 - label % 3] += 100
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_images(root / "train", 10, 0)
    for name in ("0.png", "1.png"):
        (root / "train" / "red" / name).unlink()
    write_images(root / "val", 3, 1)
    return root


class Training:
    """A separate process that runs train.py. Its output is read line by line or until its end.

    A `with` block ends the process in any case.
    """

    def __init__(self, cwd, argv):
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, str(ROOT / "train.py"), *map(str, argv)]
        self.process = subprocess.Popen(command, cwd=cwd, env=environment, stderr=subprocess.PIPE, text=True)
        self.lines = []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()

    def until(self, pattern):
        """Read the output up to the line that matches."""
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))
            if re.match(pattern, line):
                return
        raise AssertionError(f"{pattern!r} never came:\n" + "\n".join(self.lines))

    def end(self):
        """Read the rest of the output and return the exit status."""
        self.lines += self.process.stderr.read().splitlines()
        return self.process.wait()

    def kill_in_a_save(self, folder):
        """Kill the process while it writes a snapshot, and return the temporary file that is left."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self.process.poll() is None:
            if list(folder.glob(".*.part-*.safetensors")):
                self.process.send_signal(signal.SIGSTOP)
                sides = list(folder.glob(".*.part-*.safetensors"))
                if sides:
                    self.process.kill()
                    self.process.wait()
                    return sides[0]
                self.process.send_signal(signal.SIGCONT)
            time.sleep(0.0005)
        raise AssertionError("no save was seen:\n" + "\n".join(self.lines))


def rows(folder):
    """Return the rows of metrics.csv without the timings."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in TIMINGS} for row in csv.DictReader(file)]


def without_timings(record):
    """Return the record of a snapshot without times and speeds."""
    record = json.loads(json.dumps(record))
    del record["started"]
    for name in ("train_seconds", "timed_steps", "timed_seconds"):
        del record["state"][name]
    for row in record["callbacks"]["MetricsTable"]["rows"]:
        for name in TIMINGS:
            del row[name]
    for name in ("ckpt_save_dir", "overwrite", "resume", "num_parallel_workers", "compile_cache_dir"):
        del record["config"][name]
    return repr(record)


def assert_same_run(folder, other):
    """Weights, optimizer, metrics and everything else that two runs leave are the same, bit for bit.

    The number of snapshots may differ, because a process keeps earlier ones until it has saved twice.
    """
    (newest, snapshot), (other_newest, other_snapshot) = find_newest(folder), find_newest(other)
    expected, arrays = snapshot.arrays, other_snapshot.arrays
    assert newest.name == other_newest.name and arrays.keys() == expected.keys()
    different = [key for key in arrays if arrays[key].tobytes() != expected[key].tobytes()]
    assert not different, f"{len(different)} of {len(arrays)} arrays"
    assert without_timings(snapshot.record) == without_timings(other_snapshot.record)
    names, other_names = (
        {path.name for path in place.iterdir() if not path.name.endswith(SUFFIX)} for place in (folder, other)
    )
    assert names == other_names and {"metrics.csv", "learning_curve.png"} < names
    for name in names:
        if name.endswith(".ckpt"):
            assert (folder / name).read_bytes() == (other / name).read_bytes(), name
    assert rows(folder) == rows(other)


def assert_something_is_whole(folder):
    """Check that a killed run can be resumed and that no file of weights is incomplete."""
    assert find_newest(folder) is not None
    for path in folder.glob("*.ckpt"):
        read_ckpt(path)


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """Return the folders of an uninterrupted run and of one that was stopped three times, and the output of both.

    The stopped run caches its compiled step, which its second and its last process take from there.
    """
    root = tmp_path_factory.mktemp("runs")
    (root / "cwd").mkdir()
    whole, stopped = root / "whole", root / "stopped"
    rng = random.Random(SEED)
    ends = []

    def training(folder, workers, *argv):
        options = ["--data_dir", data, "--ckpt_save_dir", folder, "--num_parallel_workers", workers]
        return Training(root / "cwd", [*OPTIONS.split(), *options, *argv])

    with training(whole, 2) as run:
        assert run.end() == 0, "\n".join(run.lines)
    cache = ["--resume", "auto", "--compile_cache_dir", root / "cache"]
    with training(stopped, 1, *cache) as run:
        step, delay = rng.randint(2, 3), rng.uniform(0, 0.3)
        print(f"seed {SEED}: SIGKILL {delay:.3f} s after step {step}")
        run.until(f"epoch 1/3 step {step}/4")
        run.process.send_signal(signal.SIGSTOP)
        second = run_here("train", *OPTIONS.split(), "--data_dir", data, "--ckpt_save_dir", stopped, *cache[:2])
        run.process.send_signal(signal.SIGCONT)
        time.sleep(delay)
    ends.append(run)
    assert_something_is_whole(stopped)
    with training(stopped, 2, *cache) as run:
        step = rng.randint(1, 3)
        print(f"SIGKILL in the first save after epoch 2, step {step}")
        run.until(rf"epoch 2/3 step [{step}-4]/4")
        side = run.kill_in_a_save(stopped)
        assert side.exists() and not (stopped / side.name.lstrip(".")).exists()
    ends.append(run)
    assert_something_is_whole(stopped)
    with training(stopped, 1, "--resume", "auto") as run:
        run.until(r"epoch \d/3 step 4/4")  # validation is next
        run.process.terminate()
        assert run.end() == 128 + signal.SIGTERM, "\n".join(run.lines)
    ends.append(run)
    assert_something_is_whole(stopped)
    with training(stopped, 2, *cache) as run:
        assert run.end() == 0, "\n".join(run.lines)
    ends.append(run)
    assert not os.listdir(root / "cwd")
    return SimpleNamespace(whole=whole, stopped=stopped, cache=root / "cache", ends=ends, second=second)


def test_killed_and_resumed_run_gives_the_bits_of_an_uninterrupted_run(runs):
    assert_same_run(runs.whole, runs.stopped)
    assert sorted(path.name for path in runs.stopped.glob(f"*{SUFFIX}")) == [OLDER, NEWEST]
    assert [row["step"] for row in rows(runs.whole)] == ["4", "8", "12"]


def test_resume_logs_the_run_and_the_compile_cache(runs):
    new, killed, told, last = (run.lines for run in runs.ends)
    assert new[0] == f"nothing to resume in '{runs.stopped}': this is a new run"
    for lines in (killed, told, last):
        assert re.match(rf"resuming '{runs.stopped}/convnextv2_atto-\d_\d{SUFFIX}': epoch \d, step \d$", lines[0])
        assert not [
            line for line in lines if " not as in the interrupted run" in line or line.startswith("warning: not used")
        ]
    assert "warning: SIGTERM: finishing this step, then saving; once more stops at once" in told
    (entry,) = runs.cache.iterdir()
    made, taken = (
        f"compile cache: {what} '{entry}'"
        for what in ("compiling the training step for", "taking the training step from")
    )
    for lines, expected in ((new, [made]), (killed, [taken]), (told, []), (last, [taken])):
        assert [line for line in lines if line in (made, taken)] == expected
    assert told[-2].startswith(f"saved {runs.stopped}/convnextv2_atto-")
    assert re.match(r"stopped: by SIGTERM (in a validation|after epoch 3, step 1 of 4); --resume auto ", told[-1])


def test_train_refuses_the_folder_of_a_running_run(runs):
    """The second run ends with one line before it reads anything. The first run continues, as the tests above show."""
    process, host = runs.ends[0].process.pid, socket.gethostname()
    assert runs.second.status == 1
    assert runs.second.err == (
        f"error: ckpt_save_dir '{runs.stopped}' is in use by another run (process {process} on host {host}): wait "
        "until that run ends, stop it, or give another --ckpt_save_dir\n"
    )
    assert not (runs.stopped / LOCK_FILE).exists(), "a run that ends in order removes its lock file"


@pytest.fixture
def copy(runs, tmp_path):
    """Return a copy of the finished run that a test may change. It consists of links, which a write replaces."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in runs.stopped.iterdir():
        os.link(path, folder / path.name)
    return folder


def spoil(path):
    """Replace the link by a file with one flipped bit in its middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.unlink()
    path.write_bytes(content)


def resumed(monkeypatch, *argv):
    """Return the configuration and the snapshot for a command line."""
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, argv)])
    try:
        return read_training_config()
    finally:
        release_folders()


def test_resume_names_a_damaged_snapshot_and_uses_the_other_one(copy, monkeypatch, capsys):
    spoil(copy / NEWEST)
    _, saved = resumed(monkeypatch, "--resume", "auto", "--ckpt_save_dir", copy)
    assert saved.progress.step == 3
    first, second = capsys.readouterr().err.splitlines()
    fault = f"'{copy / NEWEST}' is damaged: its digest does not match its contents; copy or download it again"
    assert first == f"warning: not used: {fault}"
    assert second == f"resuming '{copy / OLDER}': epoch 3, step 3"
    with pytest.raises(CheckpointError, match=f"'{copy / NEWEST}' is damaged"):
        resumed(monkeypatch, "--resume", copy / NEWEST)
    spoil(copy / OLDER)
    for where in ("auto", copy):
        with pytest.raises(CheckpointError, match="none of the 2 files .* is whole"):
            resumed(monkeypatch, "--resume", where, "--ckpt_save_dir", copy)


def test_resume_takes_the_options_of_the_saved_run(copy, monkeypatch, capsys):
    """All ways to name the run, also that of MindCV, give its options without a warning."""
    ways = (
        ["--resume", copy],
        ["--resume", copy / NEWEST],
        ["--resume", copy / "convnextv2_atto-3_4.ckpt"],
        ["--resume_opt", "True", "--ckpt_path", copy / "convnextv2_atto-3_4.ckpt"],
    )
    for argv in ways:
        config, saved = resumed(monkeypatch, *argv)
        assert (config.model, config.mixup, tuple(config.scale)) == ("convnextv2_atto", 0.8, (0.08, 1.0)), argv
        assert config.ckpt_save_dir == str(copy) and saved.progress.step == 4
        assert capsys.readouterr().err == f"resuming '{copy / NEWEST}': epoch 3, step 4\n"
        assert not config.resume_opt or config.resume == ""


def test_resume_warns_of_changed_options(copy, monkeypatch, capsys):
    """Options that change no numbers give no warning."""
    argv = ["--lr", "0.5", "--num_parallel_workers", "7", "--keep_checkpoint_max", "3", "--scale", "0.5", "1"]
    config, _ = resumed(monkeypatch, "--resume", copy, *argv)
    assert (config.lr, config.scale, config.num_parallel_workers) == (0.5, (0.5, 1.0), 7)
    warning = capsys.readouterr().err.splitlines()[0]
    assert warning == (
        "warning: 2 options are not as in the interrupted run, so the resumed run may not be bit-identical to the "
        "original one: scale: [0.08, 1.0] -> [0.5, 1.0], lr: 0.002 -> 0.5"
    )


def test_resume_warns_of_a_loss_that_is_not_bit_reproducible(copy, monkeypatch, capsys):
    resumed(monkeypatch, "--resume", copy)
    assert "not steady" not in capsys.readouterr().err
    resumed(monkeypatch, "--resume", copy, "--loss", "asl_single_label")
    assert "the asymmetric losses are not steady to the last bit" in capsys.readouterr().err


def test_resume_refuses_a_path_without_a_saved_run(copy, monkeypatch, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="folder '.*empty' holds no saved run"):
        resumed(monkeypatch, "--resume", tmp_path / "empty")
    with pytest.raises(CheckpointError, match="there is no folder '.*gone', and the run to resume is a folder or a f"):
        resumed(monkeypatch, "--resume", tmp_path / "gone")
    names = f"{re.escape(OLDER)}, {re.escape(NEWEST)}"
    with pytest.raises(
        CheckpointError, match=rf"none beside it: '.*-2_4{SUFFIX}' \(in that folder there are: {names}\)"
    ):
        resumed(monkeypatch, "--resume_opt", "--ckpt_path", copy / "convnextv2_atto-2_4.ckpt")


def test_resume_of_a_finished_run_changes_nothing(copy, runs, data):
    outcome = run_here("train", "--resume", copy)
    assert outcome.status == 0, outcome.err
    assert "nothing is left to do: the run ended with epoch 3 of 3" in outcome.err
    assert "mode: 0 -> 1" in outcome.err  # the only option that differs
    assert_same_run(runs.stopped, copy)


@pytest.mark.parametrize(
    ("argv", "finding"),
    [
        (["--ema", "False"], "ema is True there and False here; leave this option out"),
        (["--patch_size", "2", "--in_channels", "1", "--mean", "120", "--std", "60"],
         "in_channels is 3 there and 1 here, patch_size is 4 there and 2 here; leave these options out"),
    ],
)  # fmt: skip
def test_resume_refuses_options_that_ask_for_other_weights_before_it_warns(copy, monkeypatch, capsys, argv, finding):
    with pytest.raises(CheckpointError) as caught:
        resumed(monkeypatch, "--resume", copy, *argv, "--lr", "0.5")
    assert str(caught.value) == (
        f"the saved run '{copy / NEWEST}' has other weights: {finding}, or begin a new run in another --ckpt_save_dir"
    )
    assert capsys.readouterr().err == ""


def test_resume_refuses_another_model_optimizer_or_data_set(copy, tmp_path):
    write_images(tmp_path / "train", 2, 0, ("blue", "green", "red", "white"))
    write_images(tmp_path / "val", 2, 0, ("blue", "green", "red", "white"))
    before = {path.name: path.stat().st_mtime_ns for path in copy.iterdir()}
    cases = (
        (["--model", "convnextv2_femto"], "model is convnextv2_atto there and convnextv2_femto here"),
        (["--opt", "lamb"], "the saved run is of another model, optimizer"),
        (["--data_dir", tmp_path], "the training images are of 4 classes, and not of the 3"),
    )
    for argv, words in cases:
        outcome = run_here("train", "--resume", copy, *argv)
        (line,) = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
        assert outcome.status == 1 and words in line and "Traceback" not in outcome.err
    assert {path.name: path.stat().st_mtime_ns for path in copy.iterdir()} == before


# New runs in the folder of an earlier run


def hold_run(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names or ("m-3_4.ckpt", f"m-3_4{SUFFIX}", "m_best.ckpt"):
        (folder / name).write_bytes(b"")
    return folder


NEW = ["--model", "convnext_atto", "--ckpt_save_dir"]


def test_train_refuses_the_folder_of_an_earlier_run_without_overwrite(tmp_path, monkeypatch):
    folder = hold_run(tmp_path / "run")
    words = rf"holds an earlier run \(m-3_4.ckpt and 2 more\).* \(--resume {folder}\), or .* --overwrite True"
    with pytest.raises(UserError, match=words):
        resumed(monkeypatch, *NEW, folder)
    config, _ = resumed(monkeypatch, *NEW, folder, "--overwrite", "True")
    assert config.overwrite
    config, _ = resumed(monkeypatch, *NEW, tmp_path / "other", "--overwrite", "True")
    assert not config.overwrite
    assert len(list(folder.iterdir())) == 3, "this only looks"


def save_run(folder, **options):
    """Write a folder with a snapshot after one step, with the given options."""
    config = TrainConfig(model="convnext_atto", ckpt_save_dir=str(folder), **options)
    progress = RunProgress(1, 2, 4, epoch=1, step=1, global_step=1, is_epoch_done=False)
    folder.mkdir()
    snapshot = Snapshot({"w": np.zeros(1, np.float32)}, RunDescription(1.0, config.as_dict()), progress)
    write_snapshot(folder / f"convnext_atto-1_1{SUFFIX}", snapshot)
    return folder


def test_resume_warns_that_overwrite_removes_nothing(tmp_path, monkeypatch, capsys):
    folder = save_run(tmp_path / "run")
    config, saved = resumed(monkeypatch, "--ckpt_save_dir", folder, "--resume", "auto", "--overwrite", "True")
    assert saved is not None and not config.overwrite
    assert f"overwrite removes nothing: the run that '{folder}' holds is resumed" in capsys.readouterr().err


def test_resume_warns_when_a_recipe_names_another_folder(tmp_path, monkeypatch, capsys):
    folder, recipe, other = save_run(tmp_path / "run"), tmp_path / "recipe.yaml", tmp_path / "other"
    recipe.write_text(f"ckpt_save_dir: {other}\n")
    config, _ = resumed(monkeypatch, "--config", recipe, "--resume", folder)
    assert config.ckpt_save_dir == str(other)
    assert (
        f"warning: ckpt_save_dir: the resumed run writes to '{other}' of {recipe}:1, and not to '{folder}', which it "
        "is resumed from; leave --config out to stay there"
    ) in capsys.readouterr().err.splitlines()
    resumed(monkeypatch, "--config", recipe, "--resume", folder, "--ckpt_save_dir", other)
    recipe.write_text(f"ckpt_save_dir: {folder}\n")
    resumed(monkeypatch, "--config", recipe, "--resume", folder)
    assert "ckpt_save_dir: " not in capsys.readouterr().err


def test_resume_warns_in_a_short_line_of_options_that_a_recipe_replaces(tmp_path, monkeypatch, capsys):
    folder, recipe = save_run(tmp_path / "run", lr=0.5, opt="lamb"), tmp_path / "recipe.yaml"
    recipe.write_text("lr: 0.001\nopt: adamw\nweight_decay: 0.1\nmixup: 0.5\ncutmix: 0.5\nseed: 3\n")
    config, _ = resumed(monkeypatch, "--config", recipe, "--resume", folder)
    assert (config.lr, config.opt) == (0.001, "adamw"), "what is given comes before what is saved"
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "interrupted" in line]
    assert line.startswith(
        "warning: 6 options are not as in the interrupted run, so the resumed run may not be bit-identical"
    )
    assert line.endswith(" and 2 more; leave --config out to keep the options of the interrupted run")
    assert line.count("->") == 4
    resumed(monkeypatch, "--seed", "3", "--resume", folder)
    assert capsys.readouterr().err.splitlines()[0].startswith("warning: 1 option is not as in the interrupted run, ")


def test_resume_names_the_way_out_when_a_recipe_asks_for_other_weights(tmp_path, monkeypatch):
    folder, recipe = save_run(tmp_path / "run"), tmp_path / "recipe.yaml"
    recipe.write_text("ema: True\n")
    finding = "has other weights: ema is False there and True here; leave --config out, or begin a new run in another"
    with pytest.raises(CheckpointError, match=finding):
        resumed(monkeypatch, "--config", recipe, "--resume", folder)


@pytest.mark.parametrize("batch_size, division, told", [(2, 1, True), (4, 1, False), (2, 2, False)])
@pytest.mark.parametrize("mixup", [0.0, 0.8])
def test_resume_warns_of_a_run_that_an_earlier_version_divided_between_processes(
    batch_size, division, told, mixup, tmp_path, monkeypatch, capsys
):
    """A step of the run has 4 images. Files of earlier versions have no field for the division."""
    folder = save_run(tmp_path / "run", batch_size=batch_size, mixup=mixup)
    (path,) = folder.iterdir()
    if division == 1:
        arrays, texts, _ = read_and_verify(path)
        record = json.loads(texts["mindcv_run"])
        assert record.pop("division") == 2
        write_safetensors(path, arrays, {"mindcv_run": json.dumps(record)})
    _, saved = resumed(monkeypatch, "--resume", folder)
    assert saved.description.division == division
    lines = [line for line in capsys.readouterr().err.splitlines() if "earlier version" in line]
    assert len(lines) == told
    if told:
        mixed = " and mixed other images with each other" if mixup else ""
        assert lines[0].endswith(
            f"in another way{mixed}: the resumed run will not be bit-identical to the original one"
        )


def test_resume_auto_refuses_a_folder_with_checkpoints_and_no_snapshot(tmp_path, monkeypatch):
    """The snapshots of the folder were deleted, or the checkpoints are from MindCV."""
    folder = hold_run(tmp_path / "run", "m-3_4.ckpt", "m_best.ckpt")
    with pytest.raises(UserError, match="holds an earlier run") as raised:
        resumed(monkeypatch, *NEW, folder, "--resume", "auto")
    assert "--resume" not in str(raised.value), "there is nothing to go on with"


def test_resume_auto_starts_again_when_the_run_was_killed_before_its_first_save(tmp_path, monkeypatch):
    folder = hold_run(tmp_path / "run", "m-3_4.ckpt", "m_best.ckpt", UNSAVED)
    config, saved = resumed(monkeypatch, *NEW, folder, "--resume", "auto")
    assert saved is None and config.overwrite
    with pytest.raises(UserError, match="holds an earlier run"):
        resumed(monkeypatch, *NEW, folder)


@pytest.mark.parametrize(
    "argv",
    [
        ["--ckpt_save_dir", "{0}"],
        ["--ckpt_save_dir", "{0}", "--overwrite", "True"],
        ["--ckpt_save_dir", "{0}", "--resume", "auto"],
        ["--resume", "{0}"],
        ["--resume", "{0}/m-3_4.ckpt"],
    ],
    ids=["new", "overwrite", "auto", "folder", "file"],
)
def test_train_refuses_a_folder_in_use_before_reading_it(tmp_path, monkeypatch, capsys, argv):
    folder = hold_run(tmp_path / "run")
    with open(folder / LOCK_FILE, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as another process: the system counts opened files
        with pytest.raises(UserError, match=rf"'{folder}' is in use by another run \(another process\): wait"):
            resumed(monkeypatch, "--model", "convnext_atto", *(word.format(folder) for word in argv))
    assert capsys.readouterr().err == ""
    assert {path.name for path in folder.iterdir()} == {LOCK_FILE, "m-3_4.ckpt", f"m-3_4{SUFFIX}", "m_best.ckpt"}


def test_print_options_do_not_lock_the_folder(tmp_path, monkeypatch):
    folder = hold_run(tmp_path / "run")
    with pytest.raises(SystemExit):
        resumed(monkeypatch, *NEW, folder, "--print_config", "True")
    resumed(monkeypatch, *NEW, folder, "--print_param_groups", "True")
    resumed(monkeypatch, *NEW, tmp_path / "new", "--print_param_groups", "True")
    assert LOCK_FILE not in os.listdir(folder) and not (tmp_path / "new").exists()


def test_resume_locks_no_folder_when_the_run_does_not_exist(tmp_path, monkeypatch):
    held = []
    monkeypatch.setattr("mindcv.resume.hold_folder", lambda *arguments: held.append(arguments) or "")
    for path in ("none", "none/none.ckpt", "none.ckpt"):
        with pytest.raises(CheckpointError, match="no saved run|there is no folder"):
            resumed(monkeypatch, "--resume", tmp_path / path)
    assert held == [] and os.listdir(tmp_path) == []


def test_overwrite_is_refused_when_it_would_remove_ckpt_path(tmp_path, monkeypatch):
    folder = hold_run(tmp_path / "run")
    argv = [*NEW, folder, "--overwrite", "True", "--ckpt_path", folder / "m_best.ckpt"]
    with pytest.raises(UserError, match="overwrite would remove ckpt_path '.*m_best.ckpt': give another ckpt_save_dir"):
        resumed(monkeypatch, *argv)


def test_check_save_dir_fails_in_all_processes_when_the_main_process_finds_a_run(tmp_path, monkeypatch, processes):
    """The folder may differ between hosts. No process may end before it has joined the group."""
    monkeypatch.setenv("MS_ROLE", "MS_WORKER")
    folder = hold_run(tmp_path / "run")
    config, saved = resumed(monkeypatch, *NEW, folder)
    said = []

    def check(rank):
        try:
            return check_save_dir(config, saved, Group(rank, 2))
        except UserError as error:
            said.append(str(error))

    processes.run(check, 2)
    assert "holds an earlier run" in said[0] and said[-1] == "1 of the 2 processes failed; their logs give the reason"


def test_check_save_dir_locks_the_folder_in_the_main_process_only(tmp_path, monkeypatch, processes):
    monkeypatch.setenv("MS_ROLE", "MS_WORKER")
    config, saved = resumed(monkeypatch, *NEW, tmp_path / "run")
    assert not (tmp_path / "run").exists(), "before the group is joined no process holds it"
    processes.run(lambda rank: check_save_dir(config, saved, Group(rank, 2)), 2)
    assert os.listdir(tmp_path / "run") == [LOCK_FILE]
    release_folders()


def test_check_save_dir_overwrites_in_the_main_process(tmp_path, monkeypatch, processes):
    monkeypatch.setenv("MS_ROLE", "MS_WORKER")
    config, saved = resumed(monkeypatch, *NEW, hold_run(tmp_path / "run"), "--overwrite", "True")
    found = processes.run(lambda rank: check_save_dir(config, saved, Group(rank, 2)), 2)
    assert found[0].overwrite


def test_resume_refuses_the_folder_of_another_run(copy, tmp_path, monkeypatch):
    folder = hold_run(tmp_path / "run")
    with pytest.raises(UserError, match="holds an earlier run"):
        resumed(monkeypatch, "--resume", copy, "--ckpt_save_dir", folder)
    config, _ = resumed(monkeypatch, "--resume", copy, "--overwrite", "True")
    assert config.ckpt_save_dir == str(copy) and not config.overwrite, "a run that goes on removes nothing of its own"


# Averaged weights in the checkpoints of the run


@pytest.fixture(scope="module")
def averages(runs, tmp_path_factory):
    """Write the averages of the last checkpoint as weights of another checkpoint, with MindSpore alone."""
    path = tmp_path_factory.mktemp("averages") / "averages.ckpt"
    arrays = ms.load_checkpoint(str(runs.whole / "convnextv2_atto-3_4.ckpt"))
    entries = [{"name": name[4:], "data": data} for name, data in arrays.items() if name.startswith("ema.")]
    ms.save_checkpoint(entries, str(path))
    return path


def test_validate_uses_the_weights_that_training_validated(runs, averages, data):
    """Training validated the averages. `--ema False` selects the weights of the last step."""
    checkpoint = runs.whole / "convnextv2_atto-3_4.ckpt"
    common = ["--data_dir", data, "--image_resize", 32, "--batch_size", 4]
    found = run_here("validate", "--ckpt_path", checkpoint, *common)
    expected = run_here("validate", "--ckpt_path", averages, *common, "--model", "convnextv2_atto")
    online = run_here("validate", "--ckpt_path", checkpoint, *common, "--ema", "False")
    losses = [re.search(r"loss: (\S+),", outcome.out)[1] for outcome in (found, expected, online)]
    assert losses[0] == losses[1] != losses[2]
    assert float(losses[0]) == pytest.approx(float(rows(runs.whole)[-1]["val_loss"]), abs=1e-4)
    assert f"{checkpoint}: left out: the weights of the last step" in found.err
    assert f"{checkpoint}: left out: ema.*" in online.err
    outcome = run_here("validate", "--ckpt_path", averages, *common, "--model", "convnextv2_atto", "--ema", "True")
    assert outcome.status == 1 and "holds no moving average of its weights" in outcome.err


def test_infer_uses_the_weights_that_training_validated(runs, averages, data, tmp_path):
    checkpoint, found = runs.whole / "convnextv2_atto-3_4.ckpt", []
    (tmp_path / "names.txt").write_text("\n".join(CLASSES) + "\n")
    bare = ["--model", "convnextv2_atto", "--num_classes", 3, "--class_names_file", tmp_path / "names.txt"]
    ways = ((checkpoint, []), (averages, [*bare, "--image_resize", 32]), (checkpoint, ["--ema", "False"]))
    for path, argv in ways:
        results = ["--image_path", data / "val", "--results_file", tmp_path / "p.json"]
        assert run_here("infer", "--ckpt_path", path, *argv, *results).status == 0
        predictions = json.loads((tmp_path / "p.json").read_text())
        found.append([p["predictions"] for p in predictions])
    assert found[0] == found[1] != found[2]


# Many kills of runs with other options, which take minutes


BASE = "--model convnextv2_atto --image_resize 32 --batch_size 4 --epoch_size 4 --warmup_epochs 0 --log_interval 1"
OTHERS = {
    "plain": "--opt momentum --lr 0.01 --save_every_steps 1 --color_jitter 0.4",
    "augmix": "--loss JSD --aug_splits 2 --auto_augment augmix-m3-w3 --opt adamw --save_every_steps 2",
    "half": "--amp_level O1 --loss_scale_type dynamic --opt lamb --clip_grad True --aug_repeats 2 --save_every_steps 1",
    "best": "--ckpt_save_policy top_k --keep_checkpoint_max 1 --val_while_train True --opt adan --ema True "
    "--early_stopping_patience 2 --mixup 0.8 --mixup_mode elem --save_every_steps 1",
    "epochs": "--opt lion --lr 0.0001 --scheduler one_cycle --ema True --freeze feature.0.* --val_while_train True",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_run_killed_many_times_gives_the_bits_of_an_uninterrupted_run(name, data, tmp_path):
    argv = [*BASE.split(), *OTHERS[name].split(), "--data_dir", data]
    with Training(tmp_path, [*argv, "--ckpt_save_dir", tmp_path / "whole"]) as run:
        assert run.end() == 0, "\n".join(run.lines)
    rng, folder = random.Random(f"{SEED} {name}"), tmp_path / "stopped"
    for kill in range(6):
        options = ["--ckpt_save_dir", folder, "--resume", "auto", "--num_parallel_workers", kill % 2 + 1]
        with Training(tmp_path, [*argv, *options]) as run:
            if kill == 5:
                assert run.end() == 0, "\n".join(run.lines)
                break
            run.until("epoch |nothing is left to do")
            delay = rng.uniform(0, 1.5)
            print(f"seed {SEED}: SIGKILL {delay:.3f} s after '{run.lines[-1]}'")
            time.sleep(delay)
    assert_same_run(tmp_path / "whole", folder)
