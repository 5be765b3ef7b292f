"""Every command and Python example of README, the tutorials and the how-to guides is executed.

Each page runs from its first block to its last in a folder of its own, which holds what the reader has: the clone, and
image folders `my_images/train/<class>` and `my_images/val/<class>`. A `text` block after a command or an example is its
output. A command whose output begins with `error:` must fail.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex

import numpy as np
import pytest
from page_blocks import ROOT, missing_lines, read_blocks, run_command, run_python, split_commands
from PIL import Image

from mindcv.config import (
    AnalyzeConfig,
    AverageConfig,
    ExportConfig,
    InferConfig,
    PretrainConfig,
    TrainConfig,
    ValidateAllConfig,
    ValidateConfig,
    parse_args,
)
from mindcv.kernels import status

PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/tutorials/*.md")), *sorted(ROOT.glob("docs/how-to/*.md"))]
CONFIGS = {
    "train.py": TrainConfig,
    "pretrain.py": PretrainConfig,
    "validate.py": ValidateConfig,
    "infer.py": InferConfig,
    "tools/analyze.py": AnalyzeConfig,
    "tools/validate_all.py": ValidateAllConfig,
    "tools/average.py": AverageConfig,
    "tools/export.py": ExportConfig,
}

# Commands that are not executed: a pattern of the command, and the reason. They are parsed.
NOT_EXECUTED = [
    (r"pip install|python3 -m venv|mkdocs serve", "installs packages; `make test` itself runs in such an environment"),
    (r"python setup\.py|pytest", "compiles the kernels, or runs tests inside of a test"),
    (r"tools/benchmark\.py", "measures for a minute; tests/test_benchmark.py runs it"),
    (r"tools/simulate_device\.py", "measures for some seconds; tests/engine/test_runs_ahead.py runs its steps"),
    (r"^make ", "runs for minutes; continuous integration runs make lint and make test, which a test cannot start"),
    (r"examples/serve/server\.py|^curl ", "a server runs until it is stopped; see tests/examples/test_serve.py"),
    (r"^msrun ", "needs several devices; tests/test_distributed.py runs msrun with the processes of this machine"),
    (r"validate_all\.py --models", "downloads published weights; tests/test_recipe_validate.py replaces the download"),
    (r"other\.onnx", "needs a file of other software; tests/test_recipe_classifier.py makes such files"),
    (r"--pretrained True", "downloads published weights; tests/models/test_pretrained.py has a server of its own"),
    (
        r"--compile_cache_dir",
        "one process has one cache; tests/test_compile_cache.py starts its own processes",
    ),
]
# Options added to commands that would run for too long: page, pattern of the command, options, reason. The slow test
# runs the commands as they are.
SHORT = "--mode 1 --epoch_size 1 --warmup_epochs 0 --num_samples 32 --batch_size 16"
SHORTENED = [
    ("*", r"^python train\.py(?!.*--print_config)", f"{SHORT} --image_resize 32", "trains for minutes"),
    ("validate.md", r"^python train\.py", "--epoch_size 2", "an average needs the weights of two epochs"),
    ("validate.md", r"^python (validate|tools/\w+)\.py", "--mode 1 --batch_size 16", "compiles a network each time"),
    ("*", r"^python pretrain\.py", f"{SHORT} --image_resize 64", "trains for minutes"),
]


def is_executed(command):
    """Whether a test runs the command, and does not only parse it."""
    return not any(re.search(pattern, command) for pattern, _ in NOT_EXECUTED)


def shortened(page, command):
    """The command with the options that keep it short, for the tests of every day."""
    if not is_executed(command):
        return command
    extra = [more for name, pattern, more, _ in SHORTENED if name in ("*", page.name) and re.search(pattern, command)]
    return " ".join([re.sub(r"\s+#.*", "", command), *extra]) if extra else command


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """The folder of a reader: the clone, with images of two classes in it."""
    for name in ("train.py", "validate.py", "infer.py", "configs", "docs", "examples", "mindcv", "tools", "Makefile"):
        (tmp_path / name).symlink_to(ROOT / name)
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / "my_images" / split / name).mkdir(parents=True)
            for number in range(16):
                pixels = rng.integers(0, 100, (40, 48, 3)) + 100 * label
                Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"my_images/{split}/{name}/{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def _skip_without_kernels(request):
    """The guide for Python computes in bfloat16, which a CPU without the kernels refuses."""
    page = getattr(request.node, "callspec", None) and request.node.callspec.params.get("page")
    if page and page.name == "python.md" and not status().is_used:
        pytest.skip("there are no kernels, and bfloat16 on a CPU needs them")


def page_id(page):
    return page.relative_to(ROOT).as_posix()


def run_page(page, is_complete):
    """Run the blocks of a page in order, in the current folder, and compare what they print with the page.

    Args:
        page: the Markdown file.
        is_complete: run every command as it stands, also those that `SHORTENED` names. Otherwise the numbers that are
            printed after the first shortened command are not compared.
    """
    names, blocks, printed, is_exact = {"__name__": "__main__"}, read_blocks(page), {}, True
    outputs = {block.source: block.text for block in blocks if block.source}
    for block in blocks:
        if block.language == "python":
            printed[block] = run_python(block, page, names)
        elif block.language == "bash":
            must_fail = outputs.get(block, "").startswith("error:")
            commands = split_commands(block.text)
            if not is_complete and not must_fail:
                short = [shortened(page, command) for command in commands]
                is_exact, commands = is_exact and short == commands, short
            printed[block] = run_bash(commands, f"{page.name}, line {block.line}", must_fail)
        elif block.source in printed:
            missing = missing_lines(block.text, printed[block.source], is_exact)
            assert not missing, f"{page.name}, line {block.line}: {missing} missing in\n{printed[block.source]}"


def run_bash(commands, place, must_fail):
    """Run commands; returns what they printed."""
    printed = ""
    for command in commands:
        if not is_executed(command):
            check_unexecuted(command)
            continue
        outcome = run_command(command)
        printed += outcome.printed
        assert (outcome.status != 0) == must_fail, f"{place}: {command}\nstatus {outcome.status}\n{outcome.printed}"
    return printed


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_page_runs(page, clone):
    run_page(page, is_complete=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_page_runs_to_the_letter(page, clone):
    run_page(page, is_complete=True)


def check_unexecuted(command):
    """What can be said of a command without running it: its files exist, and its options are options."""
    words = shlex.split(command, comments=True)
    while words and "=" in words[0] and not words[0].startswith("-"):  # variables of the environment
        del words[0]
    if words[0] == "make":
        targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets, command
    elif words[0] in ("python", "msrun"):
        scripts = [word for word in words if word.endswith(".py")]
        if not scripts:
            assert words[1] == "-m" and importlib.util.find_spec(words[2].split(".")[0]), command
            return
        assert (ROOT / scripts[0]).is_file(), command
        if scripts[0] in CONFIGS:
            parse_args(words[words.index(scripts[0]) + 1 :], CONFIGS[scripts[0]])
    elif "pip" in words[0]:
        extras = re.findall(r"\[(\w+)\]", command)
        known = re.findall(r'^        "(\w+)": ', (ROOT / "setup.py").read_text(), re.MULTILINE)
        assert set(extras) <= set(known), command
    else:
        assert words[0] in ("python3", ".", "git", "cd", "curl"), f"no rule checks {command}"


def test_quoted_messages_are_those_of_the_code():
    """A message that the page does not provoke: its words, between the dots, stand together in one text of the code."""
    constants = [
        node.value
        for path in [*ROOT.glob("*.py"), *(ROOT / "mindcv").rglob("*.py")]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    quoted = [block for page in PAGES for block in read_blocks(page) if block.language == "text" and not block.source]
    assert len(quoted) >= 8
    for block in quoted:
        for words in re.split(r"\.\.\.", block.text.removeprefix("error: ").removeprefix("warning: ").strip()):
            assert any(words in constant for constant in constants), f"line {block.line}: no message has '{words}'"


def test_every_exception_is_used():
    commands = [
        (page, command)
        for page in PAGES
        for block in read_blocks(page)
        if block.language == "bash"
        for command in split_commands(block.text)
    ]
    for pattern, reason in NOT_EXECUTED:
        assert reason and any(re.search(pattern, command) for _, command in commands), pattern
    for name, pattern, _, reason in SHORTENED:
        users = [page for page, command in commands if name in ("*", page.name) and re.search(pattern, command)]
        assert reason and users, pattern


def test_extractor_keeps_continuations_and_here_documents():
    text = "# a comment\npython a.py \\\n    --b 1\ncat > c.yaml <<'END'\npython: 1\n\nEND\nls\n"
    assert split_commands(text) == ["python a.py --b 1", "cat > c.yaml <<'END'\npython: 1\n\nEND", "ls"]


def test_output_that_was_not_printed_is_found():
    assert missing_lines("a ... c\nd\n", "a b c\ne\n") == ["d"]
    assert missing_lines("top_1 0.9...\n", "epoch 1 top_1 0.95\n") == ["top_1 0.9..."]
    assert missing_lines("top_1 0.9\ntop_5 1\n", "top_1 0.5\n", is_exact=False) == []
    assert missing_lines("loss 0.9\n", "top_1 0.5\n", is_exact=False) == ["loss 0.9"]


def test_failing_command_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text("```bash\nfalse\n```\n")
    with pytest.raises(AssertionError, match="false"):
        run_page(page, is_complete=True)
    page.write_text("```bash\npython train.py --lr 0,1\n```\n```text\nerror: lr: something else\n```\n")
    with pytest.raises(AssertionError, match="something else"):
        run_page(page, is_complete=True)
    page.write_text("```\nls\n```\n")
    with pytest.raises(AssertionError, match="languages"):
        run_page(page, is_complete=True)
