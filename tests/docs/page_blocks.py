"""Reads the fenced blocks of a Markdown page and runs its commands and Python as a reader would, in this process."""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

ROOT = Path(__file__).parents[2]
LANGUAGES = ("bash", "python", "cpp", "yaml", "text")


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, the text inside, the number of its first line, and what it is the output of.

    A `text` block is the output of the block before it when no words stand between the two.
    """

    language: str
    text: str
    line: int
    source: Optional[Block] = None


def read_blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page in order; each fence must name one of `LANGUAGES`."""
    blocks, fence, lines, before = [], None, [], None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if fence is None and line.lstrip().startswith("```"):
            fence, lines = (line.strip("` "), len(line) - len(line.lstrip()), number), []
            assert fence[0] in LANGUAGES, f"{page}:{number}: a fence needs one of the languages {LANGUAGES}"
        elif fence is not None and line.strip() == "```":
            source = before if fence[0] == "text" else None
            blocks.append(Block(fence[0], "\n".join(lines) + "\n", fence[2] + 1, source))
            fence, before = None, blocks[-1]
        elif fence is not None:
            lines.append(line[fence[1] :])
        elif line.strip():
            before = None
    assert fence is None, f"{page}: the last fence is not closed"
    return blocks


def split_commands(text: str) -> list[str]:
    """The commands of a bash block: a command keeps its continuation lines and its here-document."""
    commands, lines = [], iter(text.splitlines())
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        command = line
        while command.endswith("\\"):
            command = command[:-1] + next(lines).lstrip()
        marker = re.search(r"<<\s*'?(\w+)'?", command)
        if marker:
            for line in lines:
                command += "\n" + line
                if line == marker[1]:
                    break
        commands.append(command)
    return commands


@dataclass
class Outcome:
    """Exit status of a command, and what it printed."""

    status: int
    printed: str


def run_command(command: str) -> Outcome:
    """Run one command of a bash block in the current folder. `python FILE.py` runs in this process, which is faster."""
    words = shlex.split(command, comments=True) if "<<" not in command else [""]
    if words[0] == "python" and words[1].endswith(".py") and not {"|", ">", "&&", ";"} & set(words):
        return _run_script(words[1], words[2:])
    folder = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE": "1"}
    script = f"set -euo pipefail\n{command}"
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=600)
    return Outcome(done.returncode, done.stdout + done.stderr)


def _run_script(script: str, arguments: list[str]) -> Outcome:
    """A Python script as if it were started by itself."""
    path, printed = (ROOT / script).resolve(), io.StringIO()
    before = sys.argv, list(sys.path), np.random.get_state(), signal.getsignal(signal.SIGINT)
    sys.argv = [script, *arguments]
    sys.path.insert(0, str(path.parent))
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            runpy.run_path(str(path), run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            printed.write(end.code + "\n")
    finally:
        sys.argv, sys.path[:] = before[0], before[1]
        np.random.set_state(before[2])
        signal.signal(signal.SIGINT, before[3])
    return Outcome(status, printed.getvalue())


def run_python(block: Block, page: Path, names: dict) -> str:
    """Execute a Python block in the names of the page; returns what it printed.

    The code is in a file, so that MindSpore, which compiles functions from their source, finds it.
    """
    path = Path(f"{page.stem}_line_{block.line}.py").resolve()
    path.write_text(block.text, encoding="utf-8")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block.text, str(path), "exec"), names)
    return printed.getvalue()


def missing_lines(expected: str, printed: str, is_exact: bool = True) -> list[str]:
    """The lines of an output block that were not printed; `...` in a line stands for any text.

    Where it need not be exact, each line is compared up to its first number or dots.
    """
    found = [line.strip() for line in printed.splitlines()]
    missing = []
    for line in filter(None, map(str.strip, expected.splitlines())):
        if is_exact:
            pattern = ".*".join(map(re.escape, line.split("...")))
        else:
            pattern = re.escape(re.match(r"[^\d.]*", line)[0]) + ".*"
        if not any(re.fullmatch(pattern, other) for other in found):
            missing.append(line)
    return missing
