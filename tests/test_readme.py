"""The statements of README.md and of the model cards are true."""

import re
from pathlib import Path

import pytest

from mindcv.config import InferConfig, TrainConfig, ValidateConfig, parse_args

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", "configs/convnext/README.md", "configs/convnextv2/README.md"]
CONFIGS = {"train.py": TrainConfig, "validate.py": ValidateConfig, "infer.py": InferConfig}


def commands():
    """Yield (script, arguments) of each command in the pages and in the headers of recipes."""
    pages = [ROOT / page for page in PAGES]
    for path in [*pages, *(ROOT / "configs").rglob("*.yaml")]:
        text = path.read_text().replace("\\\n#", " ").replace("\\\n", " ")
        for script, arguments in re.findall(r"\b(train\.py|validate\.py|infer\.py) +(-[^\n`]+)", text):
            arguments = arguments.split()
            if "..." not in arguments and "--help" not in arguments:
                yield pytest.param(script, arguments, id=f"{path.name}: {script} {' '.join(arguments)}")


@pytest.mark.parametrize(("script", "arguments"), list(commands()))
def test_documented_commands_are_accepted_by_parse_args(script, arguments, monkeypatch):
    monkeypatch.chdir(ROOT)
    parse_args(arguments, CONFIGS[script])


def launches():
    """Yield the words of each msrun command in the pages and in the headers of recipes."""
    for path in [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("configs/**/*.*"),
        *ROOT.glob("mindcv/**/*.py"),
    ]:
        text = path.read_text(encoding="utf-8").replace("\\\n#", " ").replace("\\\n", " ")
        for command in re.findall(r"\bmsrun +(-[^\n`]+)", text):
            yield pytest.param(command.replace("=N ", "=2 ").split(), id=f"{path.name}: {command[:60]}")


@pytest.mark.parametrize("words", list(launches()))
def test_documented_msrun_commands_start_the_processes_that_they_wait_for(words, monkeypatch):
    """msrun's own parser reads the options. By default, msrun starts 8 local workers and does not wait for them."""
    from mindspore.parallel.cluster.run import get_args

    monkeypatch.setattr("sys.argv", ["msrun", *words])
    options = get_args()
    assert options.task_script in ("train.py", "pretrain.py", "validate.py")
    assert {word.split("=")[0] for word in words} >= {"--worker_num", "--local_worker_num"}
    assert options.join and options.local_worker_num <= options.worker_num
    if options.local_worker_num < options.worker_num:
        assert options.node_rank >= 0 and options.master_addr != "127.0.0.1"


def test_documented_msrun_commands_are_found():
    assert len(list(launches())) >= 30


def test_documented_commands_are_found():
    assert len(list(commands())) >= 10


# These figures are in timm's benchmark tables (results/benchmark-infer-*.csv), which count with fvcore.
PUBLISHED_GMACS = {
    "atto": 0.55,
    "femto": 0.79,
    "pico": 1.37,
    "nano": 2.46,
    "tiny": 4.47,
    "small": 8.71,
    "base": 15.38,
    "large": 34.40,
    "xlarge": 60.98,
    "huge": 115.00,
}


def variants():
    """Return name -> (parameters, GMACs) from the table of README.md."""
    rows = re.findall(r"(convnext\w*_\w+) \| ([\d,]+) \| ([\d.]+) \|", (ROOT / "README.md").read_text())
    return {model: (int(count.replace(",", "")), float(gmacs)) for model, count, gmacs in rows}


def test_table_of_variants_has_the_recorded_numbers_of_parameters(reference):
    counts = {model: count for model, _, count in reference.cases}
    assert {model: count for model, (count, _) in variants().items()} == counts


def test_table_of_variants_has_the_published_gmacs():
    found = {model: gmacs for model, (_, gmacs) in variants().items() if model.split("_")[1] in PUBLISHED_GMACS}
    assert len(found) >= 18
    assert found == {model: PUBLISHED_GMACS[model.split("_")[1]] for model in found}


@pytest.mark.parametrize("page", PAGES)
def test_documented_links_lead_to_existing_files(page):
    path = ROOT / page
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text())
    for link in links:
        assert (path.parent / link).exists(), link
