"""A trial of a built library, which library.py runs in a process of its own.

    python src/layers/cpu/trial.py LIBRARY
"""
import ctypes
import os
import sys

import numpy as np


def start(library: ctypes.CDLL) -> int:
    """Start the library's threads: OMP_NUM_THREADS of them, or one per core that this process may use.

    Call this before MindSpore is imported, which pins threads to single cores: new threads inherit that. The status is
    not 0 where the library does not work with this oneDNN.
    """
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(wanted) if wanted.isdigit() and int(wanted) else len(os.sched_getaffinity(0))
    return library.start(threads)


def call(library: ctypes.CDLL, name: str, *arrays: np.ndarray) -> None:
    """Call an operator as MindSpore does: ``arrays`` are its inputs, and then its outputs, which it fills.

    They are float32, or the bits of bfloat16 as uint16.
    """
    count = len(arrays)
    data = (ctypes.c_void_p * count)(*(array.ctypes.data for array in arrays))
    ndims = (ctypes.c_int * count)(*(array.ndim for array in arrays))
    shapes = [(ctypes.c_int64 * array.ndim)(*array.shape) for array in arrays]
    places = (ctypes.c_void_p * count)(*(ctypes.addressof(shape) for shape in shapes))
    types = (ctypes.c_char_p * count)(*(b"bfloat16" if array.dtype == np.uint16 else b"float32" for array in arrays))
    if getattr(library, name)(count, data, ndims, places, types, None, None):
        sys.exit(f"error: {name} failed")


def convolution(x: np.ndarray, w: np.ndarray, stride: int) -> np.ndarray:
    """x (N, H, W, I), w (O, I, K, K) -> y (N, H', W', O), with a padding of K / 2, in float64."""
    kernel = w.shape[2]
    padded = np.pad(x.astype(np.float64), ((0, 0), (kernel // 2,) * 2, (kernel // 2,) * 2, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (1, 2))[:, ::stride, ::stride]
    return np.einsum("nhwikl,oikl->nhwo", windows, w.astype(np.float64))


def main(path: str) -> None:
    library = ctypes.CDLL(path)
    if start(library):
        sys.exit("error: MindSpore's oneDNN does not work, or is not of version 3")
    random = np.random.default_rng(0)
    for kernel, stride in ((3, 1), (3, 2), (1, 1), (1, 2)):
        x, w = (random.standard_normal(shape).astype(np.float32) for shape in ((2, 8, 8, 32), (16, 32, kernel, kernel)))
        expected = convolution(x, w, stride)
        y, dx, dw = np.zeros(expected.shape, np.float32), np.zeros_like(x), np.zeros_like(w)
        dy = random.standard_normal(y.shape).astype(np.float32)
        call(library, "convolution", x, w, y)
        call(library, "convolution_to_input", dy, w, x, dx)
        call(library, "convolution_to_weights", x, dy, w, dw)
        # A convolution is linear in x and in w: for the gradient dy, <dx, x> = <dw, w> = <dy, y>.
        products = [(dx * x).sum(dtype=np.float64), (dw * w).sum(dtype=np.float64)]
        for result, right in ((y, expected), (products, [(dy * expected).sum()] * 2)):
            if not np.allclose(result, right, rtol=1e-3, atol=1e-3):
                sys.exit("error: a convolution, or its gradient, differs from NumPy's")


if __name__ == "__main__":
    main(sys.argv[1])
