"""The pages below docs/: generated ones are up to date, and each page can be found."""

import ast
import re
from pathlib import Path

import pytest

from mindcv.config import SCRIPT_CONFIGS
from mindcv.config.parsing import options_of
from mindcv.engine.run_folder import _RESULTS, REPORT
from mindcv.engine.snapshot import SUFFIX

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.mark.usefixtures("tools")
def test_option_reference_is_up_to_date():
    from option_reference import PAGE, option_page

    assert PAGE.read_text(encoding="utf-8") == option_page(), "run python tools/option_reference.py"


@pytest.mark.usefixtures("tools")
def test_generated_tables_are_up_to_date():
    from update_tables import updated_pages

    for path, page in updated_pages().items():
        assert path.read_text(encoding="utf-8") == page, "run python tools/update_tables.py"


def test_navigation_of_the_site_holds_every_page():
    listed = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    records = {page for page in pages if re.match(r"decisions/\d", page)}  # found through their index
    assert sorted(listed) == sorted(pages - records)


@pytest.mark.parametrize("start", ["README.md", "docs/index.md"])
def test_start_pages_link_every_guide(start):
    page = ROOT / start
    links = re.findall(r"\]\(([^)#\s]+\.md)\)", page.read_text(encoding="utf-8"))
    linked = {(page.parent / link).resolve() for link in links}
    assert not {path.name for path in [*DOCS.glob("how-to/*.md"), *DOCS.glob("tutorials/*.md")] if path not in linked}


def first_cells(text):
    """Return the first cells of the rows of all tables in a text, without the heads."""
    tables = re.findall(r"^\|[ |:-]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [row.split("|")[1].strip() for table in tables for row in table.splitlines()]


def test_installation_guide_lists_each_extra_once():
    setup = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    (extras,) = (node.value for node in ast.walk(setup) if getattr(node, "arg", "") == "extras_require")
    section = (DOCS / "how-to/install.md").read_text(encoding="utf-8").split("## Choose extras")[1].split("\n## ")[0]
    assert sorted(first_cells(section)) == sorted(f"`{key.value}`" for key in extras.keys)


@pytest.mark.parametrize("guide", ["image_folders.md", "resume.md"])
def test_guides_list_the_files_that_a_run_writes(guide):
    listed = " ".join(first_cells((DOCS / "how-to" / guide).read_text(encoding="utf-8")))
    written = {*_RESULTS, SUFFIX} - {REPORT, "reconstruction-*.png"}  # of tools/report.py and of pretrain.py
    assert not [name for name in written if f"{name}`" not in listed]


def anchors_of(page):
    """The anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page",
    [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "configs").rglob("*.md")],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_relative_links_lead_to_files_and_headings(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    broken = []
    for link in re.findall(r"\]\((?![a-z]+:)([^)\s]+)\)", text):
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(set(DOCS.rglob("*.md")) - set(DOCS.glob("decisions/*")))],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_prose_is_at_most_100_columns_wide(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"<!-- figures: begin -->.*?<!-- figures: end -->", "", text, flags=re.DOTALL)
    long = [line for line in text.splitlines() if len(line) > 100 and " " in line.strip() and not line.startswith("|")]
    assert not long


def test_paths_that_pages_name_exist():
    """In the pages that name parts of the code; a record of a decision may tell of files that are gone."""
    pages = [path for path in [*ROOT.glob("*.md"), *DOCS.rglob("*.md")] if "decisions" not in path.parts]
    pages = [path for path in pages if path.name != "CHANGELOG.md"]
    named = {
        (page.name, path)
        for page in pages
        for path in re.findall(r"`((?:mindcv|tests|tools|configs|docs)/[\w./-]*)`", page.read_text(encoding="utf-8"))
    }
    assert len(named) > 30
    assert not [(page, path) for page, path in named if not (ROOT / path).exists()]


# Options of programs of others, and of tools with a command line of their own.
OTHER_OPTIONS = {
    "data",  # curl --data-binary
    *("help", "layout", "src", "dst", "dir", "num", "size", "split", "inplace", "dist", "nproc_per_node"),
    *(
        "worker_num",
        "local_worker_num",
        "node_rank",
        "master_addr",
        "master_port",
        "join",
        "bind_core",
        "log_dir",
        "logdir",
    ),
}


@pytest.mark.usefixtures("tools")
def test_options_that_pages_name_exist():
    from benchmarks.options import BenchmarkConfig
    from preview_data import PreviewConfig

    configs = (*SCRIPT_CONFIGS, BenchmarkConfig, PreviewConfig)
    known = {name for config in configs for name in options_of(config)} | OTHER_OPTIONS
    unknown = set()
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.glob("*/*.md")]:
        text = page.read_text(encoding="utf-8")
        if page.parent.name == "decisions":
            continue
        if page.name == "from_timm.md":
            text = re.sub(r"^\| [^|]*\|", "", text, flags=re.MULTILINE)  # the column of timm's options
        unknown |= {(page.name, name) for name in re.findall(r"(?<![\w-])--([a-z]\w+)", text) if name not in known}
    assert unknown == {("troubleshooting.md", name) for name in ("learning_rate", "epochs")}  # mistakes that it shows
