"""The pages below docs/: generated ones are up to date, and each page can be found."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.mark.usefixtures("tools")
def test_option_reference_is_up_to_date():
    from option_reference import PAGE, option_page

    assert PAGE.read_text(encoding="utf-8") == option_page(), "run python tools/option_reference.py"


def test_navigation_of_the_site_holds_every_page():
    listed = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    records = {page for page in pages if re.match(r"decisions(/\d|\.md)", page)}  # found through their index
    assert sorted(listed) == sorted(pages - records)
