"""The noise: normal numbers, of TensorFlow's operations or by an operation of our own, which draws the same."""

import math
import shutil

import numpy as np
import pytest
import tensorflow as tf

from keras_backprop import _tensorflow, native_library, privacy
from keras_backprop.privacy import noise
from keras_backprop.privacy.randomness import FromSeed
from tests.privacy.problem import X, Y, a_model, a_plan

needs_compiler = pytest.mark.skipif(
    shutil.which("cc") is None, reason="a C compiler is needed: apt install gcc libc6-dev"
)


@pytest.fixture
def randomness():
    with pytest.warns(UserWarning, match="seed=5"):
        return FromSeed(5)


def in_a_loop(function, natively, *arguments):
    """What a function of tensors returns where its operations are copied into a loop, with the operation of our own or without."""
    traced = tf.function(function).get_concrete_function(*arguments)
    operations = _tensorflow.with_effects(traced.graph, traced.outputs, substituted=natively)

    @tf.function(autograph=False)
    def loop(*arguments):
        inputs = list(zip(traced.inputs, [*arguments, *traced.captured_inputs], strict=True))
        return _tensorflow.copy_operations(operations, inputs, True, traced.outputs, substituted=natively)

    loop = loop.get_concrete_function(*arguments)
    assert (noise.OPERATION in {one.type for one in loop.graph.get_operations()}) == natively
    return [y.numpy() for y in loop(*arguments)]


def with_noise(randomness, shape, natively, x=0.0, stddev=1.0):
    """A tensor of this shape, filled with x, plus noise."""

    def added(x):
        return randomness.added_to(x + tf.zeros(shape), 3, 16, tf.constant(stddev))

    return in_a_loop(added, natively, tf.constant(x))[0]


@needs_compiler
@pytest.mark.parametrize("shape", [[], [1], [7], [8], [3, 3], [511], [513], [4, 0], [3, 50, 111]])
def test_the_operation_draws_what_tensorflow_draws(randomness, shape):
    usual, natively = (with_noise(randomness, shape, natively, 2.0) for natively in (False, True))
    np.testing.assert_allclose(natively, usual, rtol=0, atol=2e-6)
    assert natively.shape == tuple(shape)


@needs_compiler
def test_without_a_deviation_nothing_is_added(randomness):
    assert (with_noise(randomness, [100], True, 7.0, stddev=0.0) == 7).all()


@needs_compiler
@pytest.mark.parametrize("counter", [[2**64 - 2, 5], noise.FAR_OUT[1]])
def test_counters_go_on_beyond_64_bits_and_numbers_far_out(counter):
    far_out = counter == noise.FAR_OUT[1]
    assert native_library.is_loaded(noise.SOURCE, noise.OPERATION)
    key, counter = tf.constant([77], tf.uint64), tf.constant(np.array(counter, "uint64"))
    words = tf.raw_ops.StatelessRandomUniformFullIntV2(shape=[2, 16], key=key, counter=counter, alg=1, dtype=tf.int32)

    def added(x, key, counter):
        return _tensorflow.substitutable(x, [x, key, counter, tf.constant(1.0)], noise.alone())

    (natively,) = in_a_loop(added, True, tf.zeros([32]), key, counter)
    assert not far_out or words[0, 3] == -7
    w, v = words.numpy().astype("float64")
    radius = np.sqrt(-2 * np.log(np.abs(w + (v % 2**12 + 0.5) / 2**12) / 2**31))
    v /= 2**31
    expected = np.concatenate([radius * np.cos(np.pi * v), radius * np.sin(np.pi * v)])
    np.testing.assert_allclose(natively, expected, rtol=0, atol=2e-6)


def test_the_largest_numbers_are_finer_than_32_bits():
    z = noise._of_words(tf.constant([[0, 0, -1, -1, 1], [0, 4095, 0, 4095, 0]])).numpy()[:5]
    u = np.array([0.5, 4095.5, 4095.5, 0.5, 4096.5]) / 2**43  # of the fractions, and 1 less them
    np.testing.assert_allclose(z, np.sqrt(-2 * np.log(u)), rtol=1e-6)
    assert z.max() == pytest.approx(7.81, abs=0.005)


def test_numbers_of_double_precision_are_as_far_out_as_their_words_say():
    words = np.array([[-(2**63), -(2**63) + 2047, 2**63 - 1, 0, 2**40], [-(2**63), -(2**62), 0, 2**62, 12345]])
    z = noise._of_long_words(tf.constant(words)).numpy()
    k = [[(int(word) + 2**63) // 2**11 for word in row] for row in words]  # the integers that Python has are exact
    radius = [math.sqrt(-2 * math.log((2 * one + 1) / 2**54)) for one in k[0]]
    angle = [2 * math.pi * (2 * one + 1) / 2**54 for one in k[1]]
    expected = [r * f(a) for f in (math.cos, math.sin) for r, a in zip(radius, angle, strict=True)]
    np.testing.assert_allclose(z, expected, rtol=0, atol=1e-14)
    assert z.max() == pytest.approx(8.6523, abs=1e-3)


def test_noise_of_double_precision_goes_further_than_that_of_tensorflow(randomness):
    """Whose radii end at 5.68 = √(−2·ln 10⁻⁷), which one in 10⁷ exceeds: here one of step 19."""
    n = 500_000
    z = randomness.normal([n], 19, 16, 2.0, tf.float64).numpy() / 2
    assert z.shape == (n,) and z.dtype == "float64"
    for limit in (0.01, 0.5, 1, 2, 3, 4, 4.5):
        for side in (z, -z):
            expected = n * 0.5 * math.erfc(limit / math.sqrt(2))
            assert abs((side > limit).sum() - expected) < 4.5 * math.sqrt(expected)
    first, second = z[: n // 2], z[n // 2 :]  # cosines and sines of the same angles and radii
    for one, other in ((first, second), (first**2, second**2), (z[1:], z[:-1])):
        assert abs(np.corrcoef(one, other)[0, 1]) < 4.5 / math.sqrt(n // 2)
    assert np.hypot(first, second).max() > 5.69


@needs_compiler
def test_what_draws_otherwise_is_not_used():
    loaded = []
    native_library._load.__wrapped__(noise.SOURCE, noise.OPERATION, loaded.append)
    assert noise.draws_alike(lambda *inputs: loaded[0](*inputs))
    assert not noise.draws_alike(lambda *inputs: loaded[0](*inputs) * 1.001)
    assert not noise.draws_alike(lambda x, key, counter, stddev: loaded[0](x, key, counter + 1, stddev))
    cut = lambda x, key, counter, stddev: x + tf.clip_by_value(loaded[0](x, key, counter, stddev) - x, -5.5, 5.5)  # noqa: E731
    assert not noise.draws_alike(cut)  # of 1.5·z, which hides all but what is far out
    right = [tf.zeros([9]), tf.zeros([1], tf.uint64), tf.zeros([2], tf.uint64), tf.ones([])]
    for i, size in ((1, 0), (2, 1), (3, 0)):
        wrong = [*right]
        wrong[i] = tf.zeros([size], right[i].dtype)
        with pytest.raises(tf.errors.InvalidArgumentError, match="the counter 2"):
            loaded[0](*wrong)
    assert native_library._load.__wrapped__(noise.SOURCE, noise.OPERATION, lambda _: False) is False
    assert native_library._load.__wrapped__(noise.SOURCE, noise.OPERATION, lambda _: {}["no"]) is False


def test_what_cannot_be_asked_now_is_asked_later(monkeypatch):
    asked = []
    monkeypatch.setattr(native_library, "is_loaded", lambda *arguments: asked.append(arguments) or True)
    with tf.Graph().as_default():
        assert not noise.is_at_hand(tf.zeros([3])) and not asked
    assert tf.function(lambda x: tf.constant(noise.is_at_hand(x)))(tf.zeros([3])) and asked


@pytest.mark.parametrize("natively", [False, pytest.param(True, marks=needs_compiler)])
def test_it_is_normal_far_into_the_tails(randomness, natively):
    n = 500_000
    z = with_noise(randomness, [n], natively).astype("float64")
    assert 4.5 < np.abs(z).max() < 7.82
    for limit in (0.001, 0.01, 0.1, 0.5, 1, 2, 3, 4, 4.5):
        for side in (z, -z):
            expected = n * 0.5 * math.erfc(limit / math.sqrt(2))
            assert abs((side > limit).sum() - expected) < 4.5 * math.sqrt(expected)
    for power, moment in enumerate([0, 1, 0, 3, 0, 15], 1):
        deviation = math.sqrt((np.mean(z ** (2 * power)) - moment**2) / n)
        assert abs(np.mean(z**power) - moment) < 4.5 * deviation
    first, second = z[: n // 2], z[n // 2 :]  # cosines and sines of the same angles and radii
    for one, other in ((first, second), (first**2, second**2), (z[1:], z[:-1]), (z[4:], z[:-4])):
        assert abs(np.corrcoef(one, other)[0, 1]) < 4.5 / math.sqrt(n // 2)


@needs_compiler
def test_a_loop_with_the_operation_is_one_without(monkeypatch):
    weights = []
    for natively in (True, False):
        if not natively:
            monkeypatch.setattr(native_library, "is_loaded", lambda *_: False)
        model = a_model(a_plan())
        model.fit(X, Y, epochs=3, verbose=0)
        (loop,) = model._loops.kept.values()
        definition = loop._function.graph.as_graph_def()
        nodes = [*definition.node, *(node for inner in definition.library.function for node in inner.node_def)]
        assert sum(node.op == noise.OPERATION for node in nodes) == (4 if natively else 0)
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("generator", [None, privacy.SystemRandom()])
def test_noise_is_as_fine_as_the_sum(generator):
    """Of a sum in double precision and noise in single precision the last digits would be those of the sum."""
    plan = a_plan(seed=None, generator=generator)
    x = tf.fill([1000], tf.constant(2.0, tf.float64) / 3)
    noise = plan._randomness.added_to(x, plan.count, 16, tf.constant(1.5)) - x
    assert (
        noise.dtype == tf.float64 and (noise != tf.cast(tf.cast(noise, tf.float32), tf.float64)).numpy().mean() > 0.99
    )
    assert float(tf.math.reduce_std(noise)) == pytest.approx(1.5, rel=0.1)
