"""Tests of the import of optional packages."""

import sys

import pytest

from mindcv.utils.errors import UserError
from mindcv.utils.extras import import_extra


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with a submodule, which the test may import."""
    (tmp_path / "optional_package").mkdir()
    (tmp_path / "optional_package" / "__init__.py").write_text("")
    (tmp_path / "optional_package" / "part.py").write_text("answer = 42\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "optional_package"
    for name in ("optional_package", "optional_package.part"):
        sys.modules.pop(name, None)


def test_import_extra_returns_the_module_and_not_its_package(package):
    assert import_extra(f"{package}.part", "some", "answers need it").answer == 42


def test_import_extra_names_the_extra_when_the_package_is_missing():
    with pytest.raises(UserError) as error:
        import_extra("no_such_package.part", "some", "answers need no_such_package", ", or do without")
    assert str(error.value) == 'answers need no_such_package: run pip install -e ".[some]" in the clone, or do without'


def test_import_extra_sees_a_hidden_package_whose_module_was_imported_before(package, monkeypatch):
    import_extra(f"{package}.part", "some", "answers need it")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=r'answers need it: run pip install -e "\.\[some\]" in the clone$'):
        import_extra(f"{package}.part", "some", "answers need it")
