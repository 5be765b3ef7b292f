"""Calls operators of the kernel library through ctypes, and finds the shapes that their signatures ask for.

It reads signatures in a way of its own, with Python's `eval`, and needs no MindSpore.
"""

import ctypes
import re

import numpy as np


class Library:
    """The C functions of one compiled library."""

    def __init__(self, path):
        self._library = ctypes.CDLL(str(path))
        for name in ("mindcv_signature", "mindcv_last_error", "mindcv_kernels_isa"):
            getattr(self._library, name).restype = ctypes.c_char_p
        self._packed = self._library.mindcv_packed_floats
        self._packed.restype, self._packed.argtypes = ctypes.c_int64, [ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
        self.isa = self._library.mindcv_kernels_isa().decode()

    def use_threads(self, count):
        self._library.mindcv_kernels_threads(count)

    def signature(self, name):
        """Return the signature of an operator as text, or None."""
        text = self._library.mindcv_signature(name.encode())
        return None if text is None else text.decode()

    def shapes(self, name, symbols, rests=((),)):
        """Return the names and shapes of the inputs and of the outputs of an operator.

        `rests` holds the shapes that `...` stands for: one shape, or one for each repetition of an argument.
        """
        is_bf16 = name.endswith("Bf16")

        def packed(k, n):
            return self._packed(is_bf16, k, n)

        def packed_patch(k, i, o):
            return -(-packed(k * k * i, o) // k)

        functions = {"packed": packed, "packed_patch": packed_patch}

        def argument(text, rest):
            label, dims = text[:-1].split("[")
            expression = dims.replace("/", "//").replace("...", "*rest")
            return label, eval(f"({expression},)", {**functions, **symbols, "rest": rest})

        inputs, outputs = self.signature(name).split(" -> ")
        found = []
        for group in re.findall(r"n\*\(.*?\]\)|[^ ]+", inputs):
            is_repeated = group.startswith("n*(")
            for i in range(symbols["n"] if is_repeated else 1):
                rest = rests[i % len(rests)]
                found += [argument(text, rest) for text in (group[3:-1] if is_repeated else group).split(" ")]
        return found, [argument(text, rests[0]) for text in outputs.split(" ")]

    def call(self, name, arrays, shapes=None, types=None):
        """Call an operator and return why it refused, or None. `shapes` and `types` may differ from the arrays."""
        shapes = [array.shape for array in arrays] if shapes is None else shapes
        types = [str(array.dtype) for array in arrays] if types is None else types
        count = len(arrays)
        addresses = (ctypes.c_void_p * count)(*[None if array is None else array.ctypes.data for array in arrays])
        dims = (ctypes.c_int * count)(*map(len, shapes))
        sizes = [(ctypes.c_int64 * max(len(shape), 1))(*shape) for shape in shapes]
        pointers = (ctypes.c_void_p * count)(*map(ctypes.addressof, sizes))
        names = (ctypes.c_char_p * count)(*[kind.encode() for kind in types])
        if self._library.mindcv_try(getattr(self._library, name), count, addresses, dims, pointers, names) == 0:
            return None
        return self._library.mindcv_last_error().decode()

    def image_kernel_refuses(self, name, arguments):
        """Return whether an image kernel refuses its arguments. `image_functions` holds functions and their types."""
        status = getattr(self.image_functions, f"mindcv_{name}")(*arguments)
        return status == 2 and self._library.mindcv_last_error().decode().startswith("an image kernel got ")


# Sizes that fit every operator. No two letters of one call are the same number, except those of a mask, and one pixel
# more would be one patch more.
SYMBOLS = {"N": 2, "H": 7, "W": 15, "C": 5, "I": 3, "O": 6, "k": 4, "n": 2, "S": 1, "T": 2, "P": 8}


def arrays_for(shapes, seed=0, labels=()):
    """Return arrays of random numbers. A mask, which `labels` tell, removes nothing."""
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    for array, label in zip(arrays, labels):
        if label == "mask":
            array[...] = 0
    return arrays
