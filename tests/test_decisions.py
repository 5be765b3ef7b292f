"""Tests of the form of decision records, of their index and of the places that cite them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DECISIONS = ROOT / "docs" / "decisions"
RECORDS = sorted(DECISIONS.glob("[0-9]*.md"))
SECTIONS = ["Context", "Decision", "Evidence", "Status"]
STATUS = re.compile(r"(Accepted|Superseded by \[decision \d{4}\]\(\d{4}-[\w-]+\.md\))\.")
WIDTH = 100


def files_that_may_cite() -> list[Path]:
    endings = {".cc", ".h", ".md", ".py", ".yaml"}
    folders = [ROOT / name for name in ("configs", "docs", "mindcv", "tests", "tools")]
    below = [path for folder in folders for path in folder.rglob("*") if path.suffix in endings]
    return [path for path in [*ROOT.glob("*.md"), *ROOT.glob("*.py"), *below] if path != Path(__file__)]


def cited_decisions(text: str) -> set[str]:
    """Return the numbers of decisions in a text, such as 0012 in "decision 0012", also across lines of a comment."""
    gap = r"(?:[\s,#/*]|\band\b|\bto\b)+"
    lists = re.findall(rf"\bdecisions?(?:\]\([^)]*\))?[\s#/*]+(\d{{4}}\b(?:{gap}\d{{4}}\b)*)", text, flags=re.I)
    paths = re.findall(r"\bdecisions/(\d{4})\b", text)
    return {number for numbers in lists for number in re.findall(r"\d{4}", numbers)} | set(paths)


def prose_of(text: str) -> list[str]:
    """Return the lines of a page without its tables and its code."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    return [line for line in text.splitlines() if not line.startswith(("|", "    "))]


def test_decisions_are_numbered_without_gaps():
    assert RECORDS
    assert [int(path.name[:4]) for path in RECORDS] == list(range(1, len(RECORDS) + 1))
    assert not [path.name for path in RECORDS if not re.fullmatch(r"\d{4}(-[a-z0-9]+)+\.md", path.name)]


def test_index_of_decisions_has_number_title_and_part_of_each_record():
    index = (DECISIONS / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(\d{4})\]\(([^)]+)\) \| (.+) \| \w[^|]* \|$", index, flags=re.M)
    titles = [path.read_text(encoding="utf-8").splitlines()[0] for path in RECORDS]
    assert [(file, f"# {number}: {title}") for number, file, title in rows] == [
        (path.name, title) for path, title in zip(RECORDS, titles)
    ]


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_decision_has_number_and_four_sections_with_text(path):
    text = path.read_text(encoding="utf-8")
    head, *sections = re.split(r"^## (.+)$", text, flags=re.M)
    assert head.startswith(f"# {path.name[:4]}: ")
    assert sections[::2] == SECTIONS
    assert all(section.strip() for section in sections[1::2])
    assert STATUS.match(sections[-1].strip())


@pytest.mark.parametrize("path", sorted(DECISIONS.glob("*.md")), ids=lambda path: path.stem)
def test_prose_of_decisions_is_at_most_100_columns_wide(path):
    prose = prose_of(path.read_text(encoding="utf-8"))
    assert not [line for line in prose if len(line) > WIDTH and "](" not in line]


@pytest.mark.parametrize("path", sorted(DECISIONS.glob("*.md")), ids=lambda path: path.stem)
def test_files_that_decisions_name_exist(path):
    named = re.findall(r"`((?:mindcv|tests|tools|docs|configs)/[\w/.-]+)`", path.read_text(encoding="utf-8"))
    assert not [name for name in named if not (ROOT / name).exists()]


def test_cited_decisions_are_found_in_comments_and_links():
    comment = "see decision 0001; decisions 0002, 0003\n    # and 0004; the decision\n// 0005"
    assert cited_decisions(comment) == {"0001", "0002", "0003", "0004", "0005"}
    assert cited_decisions("[decisions](../decisions/README.md) 0006 to 0008") == {"0006", "0008"}
    assert cited_decisions("docs/decisions/0009-short-title.md") == {"0009"}
    assert cited_decisions("decision 12, and a decision of 2024") == set()


def test_cited_decisions_exist():
    numbers = {path.name[:4] for path in RECORDS}
    cited = {
        (path.relative_to(ROOT).as_posix(), number)
        for path in files_that_may_cite()
        for number in cited_decisions(path.read_text(encoding="utf-8"))
    }
    assert ("mindcv/engine/compile_cache.py", "0065") in cited
    assert not sorted(citation for citation in cited if citation[1] not in numbers)
