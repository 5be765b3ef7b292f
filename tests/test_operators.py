"""Every MindSpore operator in the networks, losses, optimizers and the training step is documented for all devices."""

import ast
import re
from pathlib import Path

import mindspore as ms
import pytest

ROOT = Path(__file__).parents[1] / "mindcv"
MODULES = {"ops": ms.ops, "nn": ms.nn}
PLATFORMS = re.compile(r"Supported Platforms:\s*\n\s*(.+)")


def operators_in(path):
    """Return (module, name) of each `ops.X` and `nn.X` in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in MODULES:
            yield node.value.id, node.attr


FILES = sorted(
    [*ROOT.glob("models/**/*.py"), *ROOT.glob("loss/*.py"), *ROOT.glob("optim/*.py"), *ROOT.glob("engine/*.py")]
)
USED = sorted({operator for path in FILES for operator in operators_in(path)})

# These are not operators, but base classes, containers and tools that build graphs and compute nothing themselves.
STRUCTURE = {"Cell", "CellList", "SequentialCell", "Optimizer", "MultitypeFuncGraph", "HyperMap", "partial"}


def platforms(module, name):
    """Return the devices that MindSpore's documentation names, or None when it has no such line."""
    found = PLATFORMS.search(getattr(MODULES[module], name).__doc__ or "")
    return set(re.findall(r"Ascend|GPU|CPU", found[1])) if found else None


@pytest.mark.parametrize(("module", "name"), [used for used in USED if used[1] not in STRUCTURE])
def test_operator_is_documented_for_every_device(module, name):
    assert platforms(module, name) == {"Ascend", "GPU", "CPU"}
