"""Imports packages that only some uses of this library need. The extras of setup.py install them."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from mindcv.utils.errors import UserError

__all__ = ["import_extra"]


def import_extra(module: str, extra: str, need: str, otherwise: str = "") -> ModuleType:
    """Import and return a module of an optional package.

    Args:
        module: full name of the module.
        extra: name of the extra that installs the package.
        need: clause that says what needs the package.
        otherwise: clause with a way out other than the extra.

    Raises:
        UserError: the package is not installed. The message names the extra.
    """
    try:
        # A submodule can be in sys.modules although its package cannot be imported any more.
        import_module(module.partition(".")[0])
        return import_module(module)
    except ImportError:
        raise UserError(f'{need}: run pip install -e ".[{extra}]" in the clone{otherwise}') from None
