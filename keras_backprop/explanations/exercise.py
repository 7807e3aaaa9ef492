"""Exercises for a given architecture, from a seed, with numbers that can be calculated by hand."""

from typing import Any

import keras
import numpy as np

from keras_backprop.explanations.explanation import Explanation
from keras_backprop.explanations.observing.asked import whole
from keras_backprop.explanations.observing.observe import explain
from keras_backprop.losses import HalfSquaredError

__all__ = ["Exercise", "exercise"]


class Exercise:
    """What `exercise` returns.

    Attributes:
        model: the compiled Keras model, in float64.
        x, y: arrays, the examples.
        seed: int.
    """

    def __init__(self, model: Any, x: Any, y: Any, seed: int) -> None:
        self.model, self.x, self.y, self.seed = model, x, y, seed

    @property
    def explanation(self) -> Explanation:
        """The explanation of the first update."""
        return explain(self.model, self.x, self.y)

    def to_markdown(
        self,
        *,
        blank: Any = ("values", "error", "deltas", "gradients", "updates"),
        digits: Any = None,
        flavor: Any = None,
    ) -> str:
        """The sheet; its attribute `solution` is the other page. The arguments are those of `Explanation.to_markdown`."""
        return self.explanation.to_markdown(
            blank=list(blank) if not isinstance(blank, str) else blank, digits=digits, flavor=flavor
        )

    def compare(self, *numbers: Any, **named: Any) -> Any:
        """Compare a learner's numbers: `Explanation.compare`."""
        return self.explanation.compare(*numbers, **named)

    def __repr__(self) -> str:
        return f"<Exercise {self.model.name!r}, seed {self.seed}>"


def exercise(
    *units: int,
    seed: int = 0,
    activation: Any = "sigmoid",
    last: Any = None,
    loss: Any = None,
    examples: int = 1,
    learning_rate: float = 0.5,
    use_bias: bool = True,
) -> Exercise:
    """A dense network with round numbers, another one for each seed: weights and inputs are multiples of 0.1 or 0.05.

        print(keras_backprop.exercise(2, 2, 1, seed=7).to_markdown())

    Args:
        *units: ints, the inputs, the units of each hidden layer, the outputs: 2, 2, 1.
        seed: int.
        activation: of the hidden layers, as Keras takes it.
        last: of the last layer; by default the same, and for a cross-entropy sigmoid or softmax.
        loss: by default half the squared error, summed over the outputs.
        examples: int, how many.
        learning_rate: float, η of `SGD`.
        use_bias: bool.

    Returns:
        An `Exercise`.

    Raises:
        ValueError: `units` are not two or more whole numbers from 1, or `seed` or `examples` is none.
    """
    if len(units) < 2 or not all(whole(n) and n >= 1 for n in units):
        raise ValueError(
            f"An exercise has two or more numbers of units, each 1 or more: exercise(2, 2, 1). Received: {units}"
        )
    if not whole(seed) or seed < 0:
        raise ValueError(
            f"`seed` must be a whole number from 0: the same one gives the same exercise. Received: seed={seed!r}"
        )
    if not whole(examples) or examples < 1:
        raise ValueError(f"`examples` must be a whole number, 1 or more. Received: examples={examples!r}")
    random = np.random.default_rng(seed)
    categorical = isinstance(loss, str) and "crossentropy" in loss
    last = last or ("softmax" if categorical and "binary" not in loss else "sigmoid" if categorical else activation)
    layers = [
        keras.layers.Dense(n, function, use_bias=use_bias, dtype="float64", name=f"layer_{i}")
        for i, (n, function) in enumerate(
            zip(units[1:], [activation] * (len(units) - 2) + [last], strict=True), start=1
        )
    ]
    name = "exercise_" + "_".join(map(str, units))
    model = keras.Sequential([keras.Input((units[0],), dtype="float64"), *layers], name=name)
    model.set_weights([_round_numbers(random, w.shape) for w in model.get_weights()])
    model.compile(keras.optimizers.SGD(learning_rate), loss or HalfSquaredError(dtype="float64"))
    x = random.choice([0.0, 0.1, 0.2, 0.5, 1.0], size=(examples, units[0]))
    x[:, 0] = np.where(x.sum(-1) == 0, 1.0, x[:, 0])
    return Exercise(model, x, _targets(random, examples, units[-1], loss), seed)


def _round_numbers(random, shape):
    """Weights that one can multiply in one's head, none of them 0 and no two of a matrix alike where that can be."""
    values = np.array([v for v in np.round(np.arange(-0.9, 1.0, 0.1), 2) if v])
    size = int(np.prod(shape))
    return random.choice(values, size=size, replace=size > len(values)).reshape(shape)


def _targets(random, examples, outputs, loss):
    if isinstance(loss, str) and loss.startswith("sparse"):
        return random.integers(0, outputs, examples)
    if isinstance(loss, str) and loss.startswith("categorical"):
        return np.eye(outputs)[random.integers(0, outputs, examples)]
    if isinstance(loss, str) and loss.startswith("binary"):
        return random.integers(0, 2, (examples, outputs)).astype("float64")
    return random.choice([0.0, 0.1, 0.25, 0.5, 0.9, 1.0], size=(examples, outputs))
