"""The rules of `rules/ops/fourier.py`."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from tests.checking import Case, check_rule, normal
from tests.rules.ops.eager import gradients

PAIR = ((2, 3, 6), (2, 3, 6))


def case(name, function, *inputs):
    return Case(name, lambda: function, inputs)


CASES = [
    case("fft", lambda a, b: ops.fft((a, b)), *PAIR),
    case("fft2", lambda a, b: ops.fft2((a, b)), *PAIR),
    case("ifft2", lambda a, b: ops.ifft2((a, b)), *PAIR),
    *(case(f"rfft-{n}", lambda x, n=n: ops.rfft(x, fft_length=n), (2, 6)) for n in (None, 6, 8, 9)),
    case("rfft-odd", lambda x: ops.rfft(x), (2, 5)),
    *(case(f"irfft-{n}", lambda a, b, n=n: ops.irfft((a, b), fft_length=n), (2, 5), (2, 5)) for n in (None, 8, 9, 12)),
    case("stft", lambda x: ops.stft(x, 4, 2, 8), (2, 20)),
    case("stft-hamming", lambda x: ops.stft(x, 5, 3, 8, window="hamming", center=False), (2, 20)),
    case("stft-window", lambda x: ops.stft(x, 4, 2, 4, window=np.array([1.0, 2.0, 3.0, 1.0])), (12,)),
    case("stft-no-window", lambda x: ops.stft(x, 4, 4, 8, window=None), (2, 16)),
    *(
        case(f"istft-{i}", lambda a, b, o=o: ops.istft((a, b), 4, 2, 8, **o), (2, 6, 5), (2, 6, 5))
        for i, o in enumerate(
            [{}, {"center": False}, {"length": 10}, {"length": 10, "center": False}, {"window": None}, {"window": "hamming"}]
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)


def test_istft_undoes_stft():
    check_rule(case("round-trip", lambda x: ops.istft(ops.stft(x, 8, 2, 8), 8, 2, 8), (2, 20)))


# The tape fails where a transform leaves numbers of its input out. It is the transform of what it takes in.


@pytest.mark.parametrize("n", [4, 5])
def test_rfft_of_fewer_numbers(n):
    x = tf.constant(normal(2, 6))
    (ours,) = gradients(lambda x: ops.stack(ops.rfft(x, fft_length=n)), x)
    (expected,) = gradients(lambda x: ops.stack(ops.rfft(x[:, :n])), x)
    np.testing.assert_allclose(ours, expected, atol=1e-14)


@pytest.mark.parametrize("n", [4, 5])
def test_irfft_of_fewer_numbers(n):
    pair, used = [tf.constant(normal(2, 5, seed=seed)) for seed in (0, 1)], n // 2 + 1
    ours = gradients(lambda a, b: ops.irfft((a, b), fft_length=n), *pair)
    expected = gradients(lambda a, b: ops.irfft((a[:, :used], b[:, :used]), fft_length=n), *pair)
    np.testing.assert_allclose(ours, expected, atol=1e-14)
