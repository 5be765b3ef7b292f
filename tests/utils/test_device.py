"""The device, the mode, and what MindSpore says meanwhile."""

import logging
import os
import tempfile

import mindspore as ms
import pytest
from mindspore import nn, ops

from mindcv.utils import device
from mindcv.utils.device import mindspore_log_held, set_device, set_mode
from mindcv.utils.errors import DeviceError


@pytest.fixture
def settings(monkeypatch):
    """What is set, by name; nothing is."""
    found = {}
    monkeypatch.setattr(device.ms, "set_context", found.update)
    monkeypatch.setattr(device.ms, "set_device", lambda target: found.update(device=target))
    return found


def test_the_device_that_is_set_is_left(settings):
    current = ms.get_context("device_target")
    assert set_device("auto") == current and set_device(current) == current and settings == {}
    other = "GPU" if current != "GPU" else "CPU"
    assert set_device(other) == other and settings == {"device": other}


def test_a_device_that_is_not_there(monkeypatch):
    def refuse(target):
        raise RuntimeError(f"Unsupported device target {target}. This process only supports one of the ['CPU'].")

    monkeypatch.setattr(device.ms, "set_device", refuse)
    monkeypatch.setattr(device.ms, "get_context", lambda name: "CPU")
    message = "device_target 'Ascend' is not available to this MindSpore: Unsupported device target Ascend$"
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
def test_the_level_of_compilation(settings, monkeypatch, mode, jit_level, target, expected):
    monkeypatch.setattr(device.ms, "get_context", lambda name: target)
    set_mode(mode, jit_level)
    assert settings == {"mode": mode, **({"jit_config": {"jit_level": expected}} if expected else {})}


class DoesNotCompile(nn.Cell):
    def construct(self, x):
        return ops.reshape(x, (7, 5))


def test_a_graph_that_does_not_compile_leaves_nothing_in_the_working_folder(tmp_path, monkeypatch):
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


def test_the_log_is_held_and_let_go():
    log = logging.getLogger("mindspore.for_a_test")
    log.disabled = True
    other = logging.getLogger("mindspore.another_for_a_test")
    with pytest.raises(ZeroDivisionError), mindspore_log_held():
        assert log.disabled and other.disabled and not logging.getLogger("mindcv").disabled
        raise ZeroDivisionError
    assert log.disabled and not other.disabled
