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


class EmulatedAarch64:
    """The same for a library for aarch64. Each call of `run` starts an emulator with call_operators.cc.

    The program `call_operators` is beside the library.
    """

    def __init__(self, path, isa):
        self._command = ["qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu", str(path.with_name("call_operators"))]
        self._command.append(str(path))
        self._environment = {**os.environ, "MINDCV_KERNELS_ISA": isa}
        self.run([])

    def run(self, calls, threads=2):
        request = [numbers(threads, len(calls))]
        for name, inputs, shapes in calls:
            all_shapes = [np.shape(array) for array in inputs] + list(map(tuple, map(np.atleast_1d, shapes)))
            request += [numbers(len(name)), name.encode(), numbers(len(inputs), len(shapes))]
            request += [numbers(len(shape), *shape) for shape in all_shapes]
            request += [np.asarray(array, np.float32).tobytes() for array in inputs]
        done = subprocess.run(self._command, input=b"".join(request), capture_output=True, env=self._environment)
        assert done.returncode == 0, done.stderr.decode()
        isa, values = done.stdout.split(b"\n", 1)
        self.isa = isa.decode()
        values, found = np.frombuffer(values, np.float32), []
        for _, inputs, shapes in calls:
            arrays = []
            for shape in [*shapes, *map(np.shape, inputs)]:
                size = int(np.prod(shape))
                arrays.append(values[:size].reshape(shape).copy())
                values = values[size:]
            found.append((arrays[: len(shapes)], arrays[len(shapes) :]))
        assert values.size == 0
        return found


def numbers(*values):
    return np.array(values, np.int64).tobytes()


@cache
def process_of(path, isa):
    """Return the process of a library and an instruction set. The first test that needs it starts it."""
    return EmulatedAarch64(path, isa) if isa == "neon_bf16" else LibraryProcess(path, isa)


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
