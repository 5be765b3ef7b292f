"""Tests of what a report reads from the folder of a run."""

import json
import math

import pytest
from run_starts import write_start

from mindcv.engine.progress import RunProgress
from mindcv.engine.snapshot import SUFFIX, RunDescription, Snapshot, write_snapshot
from mindcv.report import read_run
from mindcv.utils.errors import DataError
from mindcv.utils.locks import hold_folder, release_folders

HEAD = "epoch,step,lr,train_loss,val_loss,top_1,top_5,images_per_s,seconds\n"


def write_metrics(folder, *rows):
    (folder / "metrics.csv").write_text(HEAD + "".join(f"{row}\n" for row in rows))


def test_read_run_refuses_a_folder_without_a_run(tmp_path):
    (tmp_path / "photo.png").write_bytes(b"")
    with pytest.raises(DataError, match="holds no run .* give the ckpt_save_dir of a run"):
        read_run(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        read_run(tmp_path / "none")
    with pytest.raises(DataError, match="is a file"):
        read_run(tmp_path / "photo.png")


def test_read_run_keeps_the_text_of_metrics_and_finds_curves(tmp_path):
    write_metrics(tmp_path, "1,10,0.1,2.50,,,,,3.5", "2,20,0.05,1.25,0.5,0.75,1.0,99.5,3.5", "3,30,0.01,nan,inf,x,,,")
    run = read_run(tmp_path)
    assert run.rows[0]["train_loss"] == "2.50" and run.rows[0]["top_1"] == ""
    assert run.curve("top_1")[0] == (2, 0.75) and math.isnan(run.curve("top_1")[1][1])
    assert run.curve("train_loss")[:2] == [(1, 2.5), (2, 1.25)] and math.isnan(run.curve("train_loss")[2][1])
    assert run.curve("images_per_s") == [(2, 99.5)] and run.curve("none") == []
    assert not run.notes and not run.is_pretraining and run.options == {}


def test_read_run_takes_options_from_the_last_start(tmp_path):
    for lr, epoch in ((0.1, 0), (0.2, 3)):
        facts = {"options": {"lr": lr, "model": "convnext_atto"}, "option_sources": {"lr": "command line"}}
        write_start(tmp_path, facts, RunProgress(9, 10, 4, epoch=epoch, step=10, global_step=10 * epoch))
    write_start(tmp_path, {"options": {"lr": 0.3}}, RunProgress(9, 10, 4))
    write_start(tmp_path, {"options": {"lr": 0.4}}, RunProgress(9, 10, 4, global_step=1))
    run = read_run(tmp_path)
    assert run.options == {"lr": 0.4} and run.sources == {}
    assert [start["options"]["lr"] for start in run.starts] == [0.1, 0.2, 0.3, 0.4]
    assert [start["options"]["lr"] for start in run.own_starts] == [0.3, 0.4], "the first two are an earlier run"


def test_read_run_traces_options_of_a_resumed_run_to_where_they_were_set(tmp_path):
    options = {"lr": 0.1, "model": "a", "seed": 1, "epoch_size": 9}
    first, second = {"lr": "recipe.yaml:3", "model": "command line"}, dict.fromkeys(options, "checkpoint")
    with_recipe = {**first, "config": "command line"}  # which a resumed run does not take over
    write_start(tmp_path, {"options": options, "option_sources": with_recipe}, RunProgress(5, 10, 4))
    resumed = {"options": options, "option_sources": {**second, "epoch_size": "command line"}}
    write_start(tmp_path, resumed, RunProgress(9, 10, 4, epoch=1, step=1, global_step=1))
    assert read_run(tmp_path).sources == {**first, "epoch_size": "command line"}, "the seed had its default"
    (tmp_path / "run.json").unlink()
    write_start(tmp_path, resumed, RunProgress(9, 10, 4, epoch=1, step=1, global_step=1))
    assert read_run(tmp_path).sources == resumed["option_sources"], "the run began in another folder"


def test_read_run_takes_options_from_the_snapshot_of_a_run_without_record(tmp_path):
    description = RunDescription(1.0, {"model": "fcmae_convnextv2_atto", "lr": 0.5})
    write_snapshot(tmp_path / f"fcmae_convnextv2_atto-1_2{SUFFIX}", Snapshot({}, description, RunProgress(1, 2, 4)))
    run = read_run(tmp_path)
    assert run.options["lr"] == 0.5 and run.is_pretraining
    assert [file.name for file in run.checkpoints] == [f"fcmae_convnextv2_atto-1_2{SUFFIX}"]
    assert run.checkpoints[0].size == (tmp_path / run.checkpoints[0].name).stat().st_size


def test_read_run_notes_damaged_files_and_reads_the_others(tmp_path):
    (tmp_path / "run.json").write_text("{")
    write_metrics(tmp_path, "1,10,0.1,2.5,,,,,3.5")
    (tmp_path / f"m-1_2{SUFFIX}").write_bytes(b"damaged")
    run = read_run(tmp_path)
    assert len(run.rows) == 1 and len(run.notes) == 2
    assert run.notes[0].startswith("'run.json'") and str(tmp_path) not in "".join(run.notes)
    (tmp_path / "metrics.csv").write_text("a,b\n1,2\n")
    assert any("metrics.csv' is not the table of a run" in note for note in read_run(tmp_path).notes)
    (tmp_path / "metrics.csv").write_bytes(b"epoch,train_loss\n\xff,1\n")
    assert any("metrics.csv' cannot be read as CSV" in note for note in read_run(tmp_path).notes)


def test_read_run_accepts_a_table_that_is_cut_off(tmp_path):
    (tmp_path / "metrics.csv").write_text(HEAD + "1,10,0.1,2.5\n2,20,0.1,2.0,0.1,0.5,1.0,9,9,more,cells\n")
    run = read_run(tmp_path)
    assert run.rows[0]["seconds"] == "" and run.curve("train_loss") == [(1, 2.5), (2, 2.0)]
    (tmp_path / "metrics.csv").write_text(HEAD)
    (tmp_path / "m_best.ckpt").write_bytes(b"")
    assert read_run(tmp_path).rows == []


def test_read_run_says_whether_the_run_is_in_progress(tmp_path):
    write_metrics(tmp_path, "1,10,0.1,2.5,,,,,3.5")
    assert not read_run(tmp_path).is_in_progress
    assert hold_folder(tmp_path, "") == ""
    try:
        assert read_run(tmp_path).is_in_progress
    finally:
        release_folders()
    assert not read_run(tmp_path).is_in_progress


def test_read_run_finds_what_validate_wrote_by_its_content(tmp_path):
    write_metrics(tmp_path, "1,10,0.1,2.5,,,,,3.5")
    (tmp_path / "scores.json").write_text(json.dumps({"top_1": 0.5, "num_images": 4}))
    (tmp_path / "other.json").write_text("[1]")
    (tmp_path / "damaged.json").write_text("{")
    (tmp_path / "classes.csv").write_text("class,name,images,correct,recall,predicted,precision\n0,cat,4,2,0.5,2,1\n")
    (tmp_path / "other.csv").write_bytes(b"\xff\xfe")
    for name in ("learning_curve.png", "confusion.png", "reconstruction-10.png", "reconstruction-9.png"):
        (tmp_path / name).write_bytes(b"")
    run = read_run(tmp_path)
    assert run.results == {"scores.json": {"top_1": 0.5, "num_images": 4}}
    assert list(run.classes) == ["classes.csv"] and run.classes["classes.csv"][0]["name"] == "cat"
    assert [path.name for path in run.pictures] == ["confusion.png"]
    assert list(run.reconstructions) == [9, 10] and run.is_pretraining
