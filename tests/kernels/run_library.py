"""Calls functions of the kernel library directly, in a process of its own: no MindSpore, any set and any threads.

python run_library.py LIBRARY THREADS IN.npz OUT.npz; MINDCV_KERNELS_ISA names the instruction set. IN holds `calls`,
a list of names; the inputs of call i as `i_in_0`, `i_in_1`, ... and its outputs' shapes as `i_out_0`, ... OUT holds the
outputs as `i_0`, `i_1`, ... and the inputs as the call left them, `i_left_0`, ...
"""

import ctypes
import sys

import numpy as np


def call(library, name, inputs, shapes):
    outputs = [np.full(shape, np.nan, np.float32) for shape in shapes]
    arrays = [np.ascontiguousarray(a) for a in [*inputs, *outputs]]
    outputs = arrays[len(inputs) :]
    count = len(arrays)
    data = (ctypes.c_void_p * count)(*[a.ctypes.data for a in arrays])
    dims = (ctypes.c_int * count)(*[a.ndim for a in arrays])
    sizes = [(ctypes.c_int64 * a.ndim)(*a.shape) for a in arrays]
    pointers = (ctypes.POINTER(ctypes.c_int64) * count)(
        *[ctypes.cast(s, ctypes.POINTER(ctypes.c_int64)) for s in sizes]
    )
    types = (ctypes.c_char_p * count)(*[str(a.dtype).encode() for a in arrays])
    library.mindcv_last_error.restype = ctypes.c_char_p
    status = library.mindcv_try(getattr(library, name), count, data, dims, pointers, types)
    assert status == 0, library.mindcv_last_error().decode()
    return outputs


def main():
    path, threads, source, target = sys.argv[1:]
    library = ctypes.CDLL(path)
    library.mindcv_kernels_isa.restype = ctypes.c_char_p
    library.mindcv_kernels_threads(int(threads))
    data = np.load(source)
    found = {"isa": np.array(library.mindcv_kernels_isa().decode())}
    for i, name in enumerate(data["calls"]):
        inputs = [data[f"{i}_in_{j}"] for j in range(sum(key.startswith(f"{i}_in_") for key in data.files))]
        shapes = [tuple(data[f"{i}_out_{j}"]) for j in range(sum(key.startswith(f"{i}_out_") for key in data.files))]
        for j, output in enumerate(call(library, str(name), inputs, shapes)):
            found[f"{i}_{j}"] = output
        found.update({f"{i}_left_{j}": array for j, array in enumerate(inputs)})
    np.savez(target, **found)


if __name__ == "__main__":
    main()
