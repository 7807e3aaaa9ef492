"""Which numbers of an example the windows of a convolution or of pooling see."""

from typing import Any

import numpy as np

__all__ = ["as_matrix", "windows_of", "windows_over"]


def windows_over(shape: tuple, positions: tuple, size: tuple, steps: tuple, dilation: tuple, padding: str) -> Any:
    """The places that the windows see, as TensorFlow lays them out.

    Args:
        shape: tuple of ints, of what the windows are laid over.
        positions: tuple of ints, how many windows there are along each axis.
        size, steps, dilation: tuples of ints: of a window, from window to window, within a window.
        padding: "valid", "same" or "causal".

    Returns:
        Ints `(windows, *size)`, places in what they are laid over, counted along it; −1 for what is padded.
    """
    wide = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
    ends = [(o - 1) * s + k for o, s, k in zip(positions, steps, wide, strict=True)]
    lacking = [max(end - n, 0) for end, n in zip(ends, shape, strict=True)]
    before = [k - 1 for k in wide] if padding == "causal" else [n // 2 if padding == "same" else 0 for n in lacking]
    around = [(first, max(end - first - n, 0)) for first, end, n in zip(before, ends, shape, strict=True)]
    places = np.pad(np.arange(int(np.prod(shape))).reshape(shape), around, constant_values=-1)
    starts = [[p * s for p, s in zip(at, steps, strict=True)] for at in np.ndindex(*positions)]
    within = list(zip(wide, dilation, strict=True))
    return np.array([places[tuple(slice(a, a + k, d) for a, (k, d) in zip(at, within, strict=True))] for at in starts])


def as_matrix(kernel: Any, seen: Any, inputs: int) -> Any:
    """A kernel as the matrix by which one example, as a row, is multiplied.

    Args:
        kernel: array `(*size, in, out)`.
        seen: ints `(windows, *size)`, as from `windows_over`.
        inputs: int, how many numbers go in.

    Returns:
        Array `(inputs, windows·out)` of numbers of the kernel; −1 where there is none.
    """
    into, out = kernel.shape[-2:]
    of_places, seen = kernel.reshape(-1, into, out), seen.reshape(len(seen), -1)
    matrix = np.full((inputs // into, into, len(seen), out), -1)
    window, place = np.nonzero(seen >= 0)
    matrix[seen[window, place], :, window] = of_places[place]
    return matrix.reshape(inputs, -1)


def windows_of(link: Any, size: Any) -> Any:
    """Which numbers of an example every window sees.

    Args:
        link: the `Link` of a convolution or pooling.
        size: tuple of ints, the size of a window.

    Returns:
        Ints `(windows, *size, channels)`, places in the example as one row, −1 for what is padded; None for another layout.
    """
    layer, shape = link.op, np.shape(link.inputs[0])[1:]
    if layer.data_format != "channels_last" or np.ndim(link.outputs[0]) != len(shape) + 1:
        return None
    dilation = tuple(np.broadcast_to(getattr(layer, "dilation_rate", 1), len(size)))
    positions = np.shape(link.outputs[0])[1:-1]
    seen = windows_over(shape[:-1], positions, tuple(size), tuple(layer.strides), dilation, layer.padding)
    return np.where(seen < 0, -1, seen * shape[-1])[..., None] + np.where(seen < 0, 0, 1)[..., None] * np.arange(
        shape[-1]
    )
