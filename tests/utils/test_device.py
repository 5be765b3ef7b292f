"""Tests of selecting the device and the mode, and of disabling MindSpore's log."""

import logging
import os
import tempfile

import mindspore as ms
import pytest
from mindspore import nn, ops

from mindcv.utils import device
from mindcv.utils.device import mindspore_log_disabled, native_warnings_hidden, returns_early, set_device, set_mode
from mindcv.utils.errors import DeviceError


@pytest.fixture
def settings(monkeypatch):
    """Return a dictionary that records the settings that would be made. Nothing is really set."""
    recorded = {}
    monkeypatch.setattr(device.ms, "set_context", recorded.update)
    monkeypatch.setattr(device.ms, "set_device", lambda target: recorded.update(device=target))
    return recorded


def test_set_device_sets_nothing_when_the_device_is_already_set(settings):
    current = ms.get_context("device_target")
    assert set_device("auto") == current and set_device(current) == current and settings == {}
    other = "GPU" if current != "GPU" else "CPU"
    assert set_device(other) == other and settings == {"device": other}


def test_set_device_names_an_unsupported_device(monkeypatch):
    def refuse(target):
        raise RuntimeError(f"Unsupported device target {target}. This process only supports one of the ['CPU'].")

    monkeypatch.setattr(device.ms, "set_device", refuse)
    monkeypatch.setattr(device.ms, "get_context", lambda name: "CPU")
    message = "does not support device_target 'Ascend': Unsupported device target Ascend$"
    with pytest.raises(DeviceError, match=message):
        set_device("Ascend")


@pytest.mark.parametrize(
    ("mode", "jit_level", "target", "expected"),
    [
        (0, None, "Ascend", "O2"),
        (0, None, "CPU", None),
        (0, None, "GPU", None),
        (0, "O0", "Ascend", "O0"),
        (0, "O1", "CPU", "O1"),
        (1, None, "Ascend", None),
    ],
)
def test_set_mode_sets_o2_only_for_graphs_on_ascend_by_default(
    settings, monkeypatch, mode, jit_level, target, expected
):
    monkeypatch.setattr(device.ms, "get_context", lambda name: target)
    set_mode(mode, jit_level)
    assert settings == {"mode": mode, **({"jit_config": {"jit_level": expected}} if expected else {})}


class DoesNotCompile(nn.Cell):
    def construct(self, x):
        return ops.reshape(x, (7, 5))


@pytest.mark.parametrize(
    ("target", "mode", "expected"), [("CPU", 0, False), ("CPU", 1, True), ("GPU", 0, True), ("Ascend", 0, True)]
)
def test_returns_early_is_false_for_graphs_on_a_cpu_only(monkeypatch, target, mode, expected):
    monkeypatch.setattr(device.ms, "get_context", {"device_target": target, "mode": mode}.get)
    assert returns_early() is expected


def test_set_mode_keeps_analysis_files_out_of_the_working_folder(tmp_path, monkeypatch):
    for name in ("work", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("MS_OM_PATH", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    set_mode(ms.GRAPH_MODE)
    with pytest.raises(Exception, match="Reshape"):
        DoesNotCompile()(ms.Tensor([1.0, 2.0]))
    assert os.listdir(tmp_path / "work") == []
    assert list((tmp_path / "temporary").rglob("analyze_fail.ir"))
    monkeypatch.setenv("MS_OM_PATH", "theirs")
    set_mode(ms.GRAPH_MODE)
    assert os.environ["MS_OM_PATH"] == "theirs"


def test_mindspore_log_disabled_restores_each_logger():
    log = logging.getLogger("mindspore.for_a_test")
    log.disabled = True
    other = logging.getLogger("mindspore.another_for_a_test")
    with pytest.raises(ZeroDivisionError), mindspore_log_disabled():
        assert log.disabled and other.disabled and not logging.getLogger("mindcv").disabled
        raise ZeroDivisionError
    assert log.disabled and not other.disabled


def test_native_warnings_hidden_keeps_all_other_lines_of_standard_error(capfd):
    with native_warnings_hidden():
        os.write(2, b"[WARNING] SESSION(12,7f,python):2026-11-28 [a.cc:1] Run] one\n")
        os.write(2, b"[ERROR] SESSION(12,7f,python): two\nwarning: three\n")
    os.write(2, b"[WARNING] SESSION(12,7f,python): four\n")
    kept = "[ERROR] SESSION(12,7f,python): two\nwarning: three\n[WARNING] SESSION(12,7f,python): four\n"
    assert capfd.readouterr().err == kept


def test_native_warnings_hidden_restores_standard_error_after_an_exception(capfd):
    with pytest.raises(KeyError), native_warnings_hidden():
        os.write(2, b"told\n")
        raise KeyError
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "told\nafter\n"
