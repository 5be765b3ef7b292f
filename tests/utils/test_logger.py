"""Tests of the logger, which writes plain lines to the current standard error."""

import io
import logging
import sys

from tqdm import tqdm

from mindcv.utils.logger import counted, logger


def test_logger_writes_lines_to_the_current_standard_error_and_marks_warnings(capsys, monkeypatch):
    logger.info("epoch %d", 3)
    logger.warning("careful")
    logger.debug("not shown")
    assert capsys.readouterr() == ("", "epoch 3\nwarning: careful\n")
    replaced = io.StringIO()
    monkeypatch.setattr(sys, "stderr", replaced)
    logger.info("moved")
    assert replaced.getvalue() == "moved\n"


def test_logger_writes_above_the_progress_bar(monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    with tqdm(total=2, file=terminal, mininterval=0) as bar:
        bar.update()
        logger.info("a line")
        bar.update()
    drawn = terminal.getvalue()
    before, after = drawn.split("a line\n")
    assert before.endswith("\r") and "1/2" in before and "2/2" in after


def test_logger_does_not_propagate_to_the_root_logger(capsys):
    # If a library passes its lines on to the root logger, they are printed twice wherever the user
    # has configured logging.
    root, twice = logging.getLogger(), logging.StreamHandler(sys.stderr)
    root.addHandler(twice)
    try:
        logger.info("once")
    finally:
        root.removeHandler(twice)
    assert capsys.readouterr().err == "once\n"


def test_counted_adds_the_plural_s():
    assert [counted(number, "epoch") for number in (0, 1, 2)] == ["0 epochs", "1 epoch", "2 epochs"]
    assert [counted(number, "class") for number in (1, 2)] == ["1 class", "2 classes"]
