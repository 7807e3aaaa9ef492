"""A trial, before anything is trained: does what an example contributes depend on who else is in the batch?

A layer, a loss, an activation or a graph of operations of one's own may do anything along the first axis, and so may a layer of
Keras that is told to. So some steps are tried on a few examples, and nothing is changed by it.
"""

import itertools
import warnings
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.backward_pass import backward
from keras_backprop.example_scale import weights_for
from keras_backprop.privacy.requirements import require_private
from keras_backprop.privacy.trial_examples import choose
from keras_backprop.privacy.trial_state import State
from keras_backprop.privacy.trial_sums import changed, sums_of


def require_built(model: Any, x: Any) -> None:
    """Build a model that would else be built in its first step, by a call that leaves no trace beside its weights."""
    if model.built and model.variables:
        return
    before = {id(v): (v, keras.ops.copy(v.value)) for v in model.variables}  # states of random numbers
    with model.distribute_strategy.scope(), _keras.values_as_built(before):
        model(x)
    own = {id(v) for v in model.variables}  # other threads may build other models meanwhile
    for variable, value in before.values():
        if id(variable) in own:
            variable.assign(value)


def what_is_compiled(model: Any) -> tuple[int, ...]:
    """What a trial is of: it stays the same until the model is compiled anew."""
    return id(model), id(model.optimizer), id(_keras.compiled_loss(model))


def try_examples(model: Any, x: Any, y: Any, n: int, size: int) -> bool:
    """Run backward passes of a few examples, some of which are the same in two of them, and compare what those contribute.

    Args:
        model: a compiled `BackpropModel`.
        x, y: nested tensors, n examples.
        n: int, 3 or more.
        size: int, of the batches that each replica will train.

    Returns:
        Whether there was something to compare: not so if all gradients are 0 or not finite.

    Raises:
        ValueError: it depends on the others, or on what weighs nothing; a step keeps something of the examples, beside what the
            optimizer does; or there are no gradients of single examples, and why.
    """
    trial = _Trial(model, x, y, n, size)
    require_built(model, trial.examples(trial.watched)[0])
    return bool(model.trainable_weights) and trial.run()


class _Pair(NamedTuple):
    """What the same examples contribute in two passes, as `sums_of` returns it, and what is another in these."""

    usual: Any
    changed: Any
    what: str


class _Trial:
    """Passes of examples that are watched, beside some others, and beside others again.

    Args:
        model, x, y, n, size: as `try_examples` takes them.
    """

    def __init__(self, model, x, y, n, size):
        self.model, self.data, self.size = model, (x, y), size
        self.watched, self.some, self.others = choose(y, n)
        self.norms: dict = {}  # of the gradients of rows

    def examples(self, rows):
        """x and y of these rows."""
        return keras.tree.map_structure(lambda a: a if a is None else tf.gather(a, rows), self.data)

    def run(self):
        """As `try_examples`."""
        with State(self.model) as state:
            self.state = state
            rows = self.watched + self.some  # once before all: what is made in a first pass is there then
            self.step(rows)
            usual, pairs = self.passes()
        self.compare(pairs)
        return self.says_something(usual)

    def step(self, rows, weights=None):
        """The backward pass of a private step with these rows, which always has weights."""
        weights = tf.constant([1] * len(rows) if weights is None else weights, tf.float32)
        return self.model._part_of_step("backward_pass")(*self.examples(rows), weights)

    def passes(self):
        """What the watched ones contribute, and all pairs that are to be alike."""
        watched, some, others, k = self.watched, self.some, self.others, len(self.watched)
        # Each of the three sets is missing in one of three passes: a layer may keep any of it, such as the largest.
        (one,) = self.contributions(watched + some)
        other, of_others = self.contributions(watched + others, firsts=(0, k))
        (of_others_again,) = self.contributions(some + others, firsts=(k,))
        self.state.require_nothing_kept()
        drawn = self.state.random_numbers_were_drawn()
        (alone,) = self.contributions(watched + some, [1] * k + [0] * k)
        (later,) = self.contributions(watched + some, metrics_are_far_off=True)
        of_large = [self.contributions(watched + rest)[0] for rest in self.rests()]
        still, moved = self.in_two_places(one, drawn)
        company = "who else is in the batch"
        return one, [
            _Pair(one, other, company),
            _Pair(of_others, of_others_again, company),
            *(_Pair(first, second, company) for first, second in itertools.pairwise(of_large)),
            _Pair(one, later, "what a metric has kept of the steps before"),
            _Pair(still, moved, "its place in the batch, and so on how many others there are"),
            _Pair(
                one,
                alone,
                "how many examples of the batch count: a loss must return a value for each example, to be weighted",
            ),
        ]

    def in_two_places(self, one, drawn):
        """What the watched ones contribute at the beginning and at the end of a batch.

        Each place has random numbers of its own: where some are drawn, places are compared without, if that can be.
        """
        k = len(self.watched)
        (still,) = self.contributions(self.watched + self.some, training=False) if drawn else (one,)
        (moved,) = self.contributions(self.some + self.watched, firsts=(k,), training=not drawn)
        in_inference_too = drawn and self.state.random_numbers_were_drawn()
        return still, still if in_inference_too else moved

    def contributions(self, rows, weights=None, metrics_are_far_off=False, firsts=(0,), training=True):
        """Of as many examples of these rows as are watched, from each of the `firsts` on, what they contribute together: a list
        of dicts."""
        self.state.put_back(metrics_are_far_off)
        if training:
            result = self.step(rows, weights)
        else:
            x, y = self.examples(rows)
            weights = weights_for(self.model(x), tf.ones(len(rows)))  # as `step` gives them
            result = backward(self.model, x, y, weights, training=False)
        require_private(result)
        self.state.note()
        divisor, shares, _ = result.example_scale.weighted()
        own = (divisor * shares).numpy()
        if not self.norms.keys() >= {*rows}:
            squares = result.squared_norms()
            of_rows = np.zeros(len(rows)) if squares is None else np.sqrt(tf.cast(squares, tf.float64).numpy()) * own
            for row, norm in zip(rows, of_rows, strict=True):
                self.norms.setdefault(row, norm)
        taken = [slice(first, first + len(self.watched)) for first in firsts]
        return [sums_of(result, own, these, np.array([self.norms[row] for row in rows[these]])) for these in taken]

    def rests(self):
        """Other examples, by which a batch of the watched ones has the size of those of training, several times; of a small one,
        nothing.

        They are copies of an example with the smallest or largest gradient or error, beside which those that are watched are the
        hardest of the batch, or the easiest.
        """
        missing = self.size - len(self.watched)
        others = [row for row in self.norms if row not in self.watched and np.isfinite(self.norms[row])]
        if missing <= len(self.watched) or not others:
            return []
        orders = self.norms, {row: self.error(row) for row in others}
        in_order = [sorted(others, key=order.__getitem__) for order in orders]
        extremes = {row for rows in in_order for row in (rows[0], rows[-1])}  # two, where all are alike
        return [[row] * missing for row in sorted(extremes)]

    def error(self, row):
        """Of a batch of this example alone, or 0 where there is none that can be compared."""
        error = float(self.step([row] * len(self.watched)).loss)
        return error if np.isfinite(error) else 0.0

    def compare(self, pairs):
        """Raise a `ValueError` where what the same examples contribute is another."""
        half = any(layer.compute_dtype in ("float16", "bfloat16") for layer in _keras.layers_in(self.model))
        for pair in pairs:
            weight = changed(pair.usual, pair.changed, 1e-2 if half else 1e-3)
            if weight is not None:
                raise ValueError(
                    f"What an example contributes to the gradient of '{weight.path}' depends on {pair.what}. Something above "
                    "that weight, a layer, an operation or the loss, mixes the examples along the first axis; then clipping "
                    "bounds nothing. Let every example keep a row of its own."
                )

    def says_something(self, sums):
        """Whether there is a gradient; or else a warning."""
        if any(np.isfinite(gradient).all() and gradient.any() for _, gradient in sums.values()):
            return True
        warnings.warn(
            f"Whether an example of the model '{self.model.name}' changes what another contributes could not be tried: the "
            "gradients of those that were taken are 0 or not finite. Who wrote its layers and losses answers for them.",
            stacklevel=2,
        )
        return False
