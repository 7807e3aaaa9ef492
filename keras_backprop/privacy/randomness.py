"""Where the random numbers of private training come from: of the noise, and of which examples are in a batch.

By default from a seed that the operating system has drawn, which is in no file that is meant for others, and the number of the
step: TensorFlow's counter-based generator (Philox) then gives every step its own numbers, the same on every way on which a step
can run.
"""

import secrets
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_backprop.privacy import noise

DRAW, COUNT, ORDER, FIRST_WEIGHT = 0, 1, 2, 16
"""Streams of random numbers: which examples, the noise of a count, the order of an epoch, and one for each weight."""


SECRET, GIVEN = "secret seed", "given seed"
"""Where seeds are from."""


class FromSeed:
    """Random numbers that are a function of a seed and the number of the step.

    Args:
        seed: None, and the operating system draws 128 bits; or an int, with a warning: who knows it can subtract the noise.
    """

    of_seed = True
    """Whether the numbers that are added are those of `noise.normal`."""

    def __init__(self, seed: Any = None) -> None:
        self.source_of_key = SECRET if seed is None else GIVEN
        if seed is None:
            key = [secrets.randbits(64) - 2**63 for _ in range(2)]
        else:
            if isinstance(seed, bool) or not isinstance(seed, int):
                raise TypeError(f"`seed` must be an int or None. Received: seed={seed!r}")
            warnings.warn(
                f"seed={seed}: whoever knows the seed can take the noise away again, and nothing is private. Leave it out "
                "where the model is released.",
                stacklevel=3,
            )
            key = np.random.default_rng(seed).integers(-(2**63), 2**63 - 1, 2).tolist()
        self.key = keras.Variable(np.array(key, "int64"), dtype="int64", trainable=False, name="private_key")

    @property
    def source(self) -> str:
        """Where the numbers are from."""
        return self.source_of_key

    @property
    def variables(self) -> list[Any]:
        return [self.key]

    def bits(self, n: int, step: Any) -> Any:
        """n uniform integers of 32 bits, a tensor of int32."""
        return tf.random.stateless_uniform([n], self._seed(step, DRAW), None, None, tf.int32)

    def normal(self, shape: Any, step: Any, stream: int, stddev: Any = 1.0, dtype: Any = tf.float32) -> Any:
        """Normal numbers, float32; or float64, as fine as what they are added to."""
        seed = self._seed(step, stream)
        if dtype == tf.float64:
            return tf.cast(stddev, dtype) * noise.normal_in_double_precision(shape, seed)
        return noise.normal(shape, seed, stddev)

    def added_to(self, x: Any, step: Any, stream: int, stddev: Any) -> Any:
        """x plus normal numbers of this standard deviation, a float32 scalar tensor."""
        # One after the other: the noise of all weights at once would be as large as these.
        with tf.control_dependencies([x]):
            sum_ = x + tf.cast(self.normal(x.shape, step, stream, stddev, x.dtype), x.dtype)
            natively = self.of_seed and noise.is_at_hand(x)
            return noise.added(x, self._seed(step, stream), stddev, sum_) if natively else sum_

    def order(self, n: int, epoch: Any) -> Any:
        """A permutation of n examples."""
        return tf.argsort(tf.random.stateless_uniform([n], self._seed(epoch, ORDER)), stable=True)

    def _seed(self, step, stream):
        key = tf.convert_to_tensor(self.key.value)
        return tf.stack([key[0] + tf.cast(step, tf.int64) * 2**20 + stream, key[1]])


class FromGenerator(FromSeed):
    """Random numbers of a generator that somebody has given. (The order of shuffled batches is no secret, and stays ours.)

    Args:
        generator: has the methods `standard_normal(size)` and `integers(low, high, size)` of a `numpy.random.Generator`.
    """

    of_seed = False

    def __init__(self, generator: Any) -> None:
        missing = [n for n in ("standard_normal", "integers") if not callable(getattr(generator, n, None))]
        if missing:
            raise TypeError(
                "`generator` must have the methods `standard_normal(size)` and `integers(low, high, size)`, as a "
                f"`numpy.random.Generator` and `keras_backprop.privacy.SystemRandom` have. Received: {generator!r}, without "
                f"{', '.join(missing)}"
            )
        super().__init__()
        self.generator = generator

    @property
    def source(self) -> str:
        return type(self.generator).__name__

    def bits(self, n: int, step: Any) -> Any:
        def draw():
            return np.asarray(self.generator.integers(-(2**31), 2**31, n)).astype("int32")

        return tf.ensure_shape(tf.numpy_function(draw, [], tf.int32), [n])

    def normal(self, shape: Any, step: Any, stream: int, stddev: Any = 1.0, dtype: Any = tf.float32) -> Any:
        dtype = tf.float64 if dtype == tf.float64 else tf.float32

        def draw():
            return np.asarray(self.generator.standard_normal(tuple(shape))).astype(dtype.as_numpy_dtype)

        return tf.cast(stddev, dtype) * tf.ensure_shape(tf.numpy_function(draw, [], dtype), shape)


class SystemRandom:
    """The operating system's cryptographic random numbers, for `Plan(generator=…)`. It has no state and no seed."""

    def integers(self, low: int, high: int, size: Any) -> Any:
        """Uniform integers from low to high − 1; high − low must divide 2³²."""
        span = high - low
        if span <= 0 or 2**32 % span:
            raise ValueError(f"`high` − `low` must divide 2³². Received: low={low}, high={high}")
        words = np.frombuffer(secrets.token_bytes(4 * int(np.prod(size, dtype=np.int64))), "uint32")
        return low + words.reshape(size).astype("int64") % span

    def standard_normal(self, size: Any) -> Any:
        """Standard normal numbers in double precision, by the method of Box and Muller."""
        count = int(np.prod(size, dtype=np.int64))
        words = np.frombuffer(secrets.token_bytes(16 * count), "uint64").reshape(2, count)
        first, second = ((words >> np.uint64(11)).astype("float64") + 0.5) / 2**53
        return (np.sqrt(-2 * np.log(first)) * np.cos(2 * np.pi * second)).reshape(size)
