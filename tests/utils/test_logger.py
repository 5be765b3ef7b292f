"""The logger writes plain lines to whatever standard error is at the time."""

import io
import logging
import sys

from tqdm import tqdm

from mindcv.utils.logger import counted, logger


def test_plain_lines_on_standard_error(capsys, monkeypatch):
    logger.info("epoch %d", 3)
    logger.warning("careful")
    logger.debug("not shown")
    assert capsys.readouterr() == ("", "epoch 3\ncareful\n")
    replaced = io.StringIO()
    monkeypatch.setattr(sys, "stderr", replaced)
    logger.info("moved")
    assert replaced.getvalue() == "moved\n"


def test_a_line_stands_above_the_bar(monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    with tqdm(total=2, file=terminal, mininterval=0) as bar:
        bar.update()
        logger.info("a line")
        bar.update()
    drawn = terminal.getvalue()
    before, after = drawn.split("a line\n")
    assert before.endswith("\r") and "1/2" in before and "2/2" in after


def test_the_root_logger_gets_nothing(capsys):
    # A library that passes its lines on has them printed twice wherever the user has configured logging.
    root, twice = logging.getLogger(), logging.StreamHandler(sys.stderr)
    root.addHandler(twice)
    try:
        logger.info("once")
    finally:
        root.removeHandler(twice)
    assert capsys.readouterr().err == "once\n"


def test_a_noun_is_counted():
    assert [counted(number, "epoch") for number in (0, 1, 2)] == ["0 epochs", "1 epoch", "2 epochs"]
