"""Call the kernels from several threads at once and compare each result with that of one thread, bit for bit.

python run_threads.py LIBRARY THREADS ROUNDS; MINDCV_KERNELS_ISA names the instruction set. ctypes releases Python's
lock, so the calls overlap. Prints the number of calls.
"""

import sys
import threading

import c_boundary
import numpy as np

SIZES = [
    {"N": 2, "H": 9, "W": 7, "C": 24, "I": 3, "O": 24, "k": 2, "n": 2, "S": 2, "T": 3, "P": 4},
    {"N": 1, "H": 14, "W": 14, "C": 96, "I": 16, "O": 40, "k": 4, "n": 1, "S": 4, "T": 2, "P": 8},
]
NAMES = (
    "BlockV1",
    "BlockV2Saving",
    "BlockV1Bf16",
    "PatchParamsGrad",
    "Stem",
    "Norm",
    "PackWeight",
    "VisibleBlockV2Saving",
    "VisibleBlockV2Grad",
    "VisiblePatch",
)


def main():
    path, threads, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    library = c_boundary.Library(path)
    library.use_threads(2)
    cases = []
    for seed, (name, sizes) in enumerate((name, sizes) for name in NAMES for sizes in SIZES):
        inputs, outputs = library.shapes(name, sizes, [(5, 3)])
        labels, shapes = zip(*inputs)
        given = c_boundary.arrays_for(shapes, seed, labels)
        if "mask" in labels:
            given[labels.index("mask")][:, :, 1] = 1
        # Zeros, since a packed weight has places between its values that are never written.
        expected = [np.zeros(shape, np.float32) for _, shape in outputs]
        assert library.call(name, [*given, *expected]) is None
        cases.append((name, given, expected))
    wrong, done = [], []

    def work(thread):
        rng = np.random.default_rng(thread)
        for _ in range(rounds):
            name, inputs, expected = cases[rng.integers(len(cases))]
            found = [np.zeros(array.shape, np.float32) for array in expected]
            reason = library.call(name, [*inputs, *found])
            same = all(a.tobytes() == b.tobytes() for a, b in zip(found, expected))
            (done if reason is None and same else wrong).append((name, reason))
            # An error of one thread is not seen by another one.
            reason = library.call(name, [*inputs[:-1], inputs[0][:0], *found])
            assert reason.startswith(f"the kernel {name} got "), reason

    workers = [threading.Thread(target=work, args=(thread,)) for thread in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong, wrong[:5]
    sys.stdout.write(str(len(done)))


if __name__ == "__main__":
    main()
