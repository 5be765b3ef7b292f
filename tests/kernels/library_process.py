"""Run operators of a kernel library in a separate process without MindSpore, with one instruction set.

A library chooses its instruction set once, when a process loads it, so each set needs a process. `LibraryProcess`
starts this file as one and keeps it for any number of calls:

    python library_process.py LIBRARY     (MINDCV_KERNELS_ISA names the instruction set)

It reads pickled requests `(threads, calls)` from the standard input, writes a pickled answer for each, and ends with
the process that started it, when its standard input is closed.
"""

import os
import pickle
import subprocess
import sys
from functools import cache
from pathlib import Path

import c_boundary
import numpy as np


class LibraryProcess:
    """The client's side of the process."""

    def __init__(self, path, isa):
        command = [sys.executable, str(Path(__file__)), str(path)]
        environment = {**os.environ, "MINDCV_KERNELS_ISA": isa}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        self.isa = self._answer()

    def run(self, calls, threads=2):
        """Return outputs and changed inputs of each call, which is a tuple (name, inputs, shapes of outputs)."""
        pickle.dump((threads, calls), self._process.stdin)
        self._process.stdin.flush()
        return self._answer()

    def _answer(self):
        try:
            answer = pickle.load(self._process.stdout)
        except EOFError:
            raise RuntimeError(f"the process of the library ended with status {self._process.wait()}") from None
        if isinstance(answer, Exception):
            raise answer
        return answer


@cache
def process_of(path, isa):
    """Return the process of a library and an instruction set. The first test that needs it starts it."""
    return LibraryProcess(path, isa)


def answered(library, threads, calls):
    library.use_threads(threads)
    found = []
    for name, inputs, shapes in calls:
        inputs = [np.array(array, order="C") for array in inputs]
        outputs = [np.full(shape, np.nan, np.float32) for shape in shapes]
        refusal = library.call(name, [*inputs, *outputs])
        assert refusal is None, refusal
        found.append((outputs, inputs))
    return found


def main():
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that prints can come between the answers
    library = c_boundary.Library(sys.argv[1])
    pickle.dump(library.isa, answers)
    answers.flush()
    while True:
        try:
            threads, calls = pickle.load(requests)
        except EOFError:
            return
        try:
            answer = answered(library, threads, calls)
        except Exception as error:
            answer = error
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    main()
