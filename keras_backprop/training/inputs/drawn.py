"""Batches that a plan draws.

Its sampler says which examples are in the next batch. In the compiled loop the examples are taken from tensors in memory; Keras's
own loop gets a data set of the same batches. Rows that fill up a batch have the sample weight 0.
"""

import keras
import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.observers import need_examples
from keras_backprop.training.inputs.batches import Batches
from keras_backprop.training.inputs.examples import Examples, NotInMemoryError
from keras_backprop.training.plans import plan_of, require_plans_own, require_weights


class DrawnExamples(Examples):
    """Examples in memory, of which a plan draws the batches.

    Args:
        model: the model that is to be trained.
        plan: has `sampler`, `count`, `steps_left` and `require_budget`.
        x, y, sample_weight, class_weight, limited, positions: as `Examples` takes them.

    Raises:
        ValueError: they are not as many as the plan is for, or sample weights with which they cannot be told apart.
    """

    def __init__(self, model, plan, x, y=None, sample_weight=None, class_weight=None, limited=True, positions=False):
        super().__init__(x, y, sample_weight, None, class_weight, limited=limited)
        self.plan, self.sampler, self.positions = plan, plan.sampler, positions
        plan.require_same_data(model, _flat(self.tensors))
        if self.n != self.sampler.examples:
            raise ValueError(
                f"The plan is for examples={self.sampler.examples}, of which each is to count once. Received {self.n} examples."
            )
        plan.try_examples(model, *_keras.unpack_x_y_sample_weight(self.tensors)[:2])
        require_weights(model, _keras.unpack_x_y_sample_weight(self.tensors)[2])
        self.batch_size = self.sampler.rows
        self.steps = self.sampler.steps_per_epoch * self.sampler.parts
        sizes = [tf.TensorSpec([self.batch_size, *a.shape[1:]], a.dtype) for a in _flat(self.tensors)]
        x, y, weights = _keras.unpack_x_y_sample_weight(self._packed(self.tensors, sizes))
        one = tf.TensorSpec([self.batch_size], tf.float32)
        self.batch = (x, y, keras.tree.map_structure(lambda w: one if w is None else w, weights))
        if positions:
            self.batch = (*self.batch, tf.TensorSpec([self.batch_size], tf.int32))

    def batches(self, shuffle, for_xla):
        return DrawnBatches(self, for_xla)

    @property
    def steps_left(self):
        return self.plan.steps_left

    def require_budget(self):
        self.plan.require_budget()

    def draw(self, tensors, count, for_xla=False):
        """The batch after `count` others: (x, y, sample_weight), and which examples they are if that is wanted."""
        indices, weights = self.sampler.draw(count, for_xla)
        rows = [tf.gather(a, indices) for a in _flat(tensors)]
        x, y, given = _keras.unpack_x_y_sample_weight(self._packed(tensors, rows))
        places = (indices,) if self.positions else ()
        if given is None:
            return x, y, weights, *places
        # An output without weights of its own has those of the rows that fill up the batch, too.
        fitted = keras.tree.map_structure(lambda w: weights if w is None else w * _fitted(weights, w), given)
        return x, y, fitted, *places

    def _packed(self, like, flat):
        rest = iter(flat)
        return keras.tree.map_structure(lambda a: None if a is None else next(rest), like)

    def dataset(self, shuffle=True):
        """The batches of an epoch, of wherever the training stands when it begins, as a `tf.data.Dataset`."""

        def counts_of_epoch(_):
            first = self.plan.first_of_epoch
            return tf.data.Dataset.range(first, first + self.steps)

        counts = tf.data.Dataset.from_tensors(0).flat_map(counts_of_epoch)
        return counts.map(lambda count: self.draw(self.tensors, count)).apply(
            tf.data.experimental.assert_cardinality(self.steps)
        )


class DrawnBatches(Batches):
    """Runs a step on the batches that are drawn.

    Args:
        examples: `DrawnExamples`.
        for_xla: bool.
    """

    def __init__(self, examples, for_xla=False):
        self.size, self.ragged, self.single, self.shuffle, self.for_xla = (
            examples.batch_size,
            False,
            False,
            False,
            for_xla,
        )
        self.n, self.examples, self.order_specification = examples.n, examples, None
        self.specification = keras.tree.map_structure(
            lambda x: None if x is None else tf.TensorSpec(x.shape, x.dtype), examples.tensors
        )
        self.kind = ("drawn", *examples.sampler.kind, for_xla, tuple(keras.tree.flatten(self.specification)))

    def steps(self, tensors):
        return self.examples.steps

    def order(self, tensors, seed):
        return None

    def dataset(self, examples, order, first):
        start = int(examples.plan.count)
        counts = tf.data.Dataset.range(start, start + examples.steps - first)
        return counts.map(lambda count: examples.draw(examples.tensors, count))

    def run(self, step, tensors, order, first, last, state=(), goes_on=None, origin=None):
        def batch(number, *state):
            return number + 1, *step(
                number, self.examples.draw(tensors, self.examples.plan.count, self.for_xla), *state
            )

        def until(number, *state):
            return number < last if goes_on is None else (number < last) & goes_on(*state)

        number, *state = tf.while_loop(until, batch, (tf.convert_to_tensor(first), *state))
        return number, tuple(state)


def arguments_for_keras(model, arguments):
    """The arguments of `fit` for Keras's own loop, with a data set in the place of arrays where batches are not Keras's to make:
    where a plan draws them, or somebody wants to know which examples they are of.

    Raises:
        ValueError: the data are no arrays in memory, or arguments that are the plan's to choose.
    """
    plan, positions = plan_of(model), need_examples(model._observers)
    if plan is None and not positions:
        return arguments
    arguments = dict(arguments)
    x, y, weights = arguments["x"], arguments["y"], arguments["sample_weight"]
    if arguments["validation_split"] and arguments["validation_data"] is None:
        (x, y, weights), arguments["validation_data"] = _keras.train_validation_split(
            (x, y, weights), validation_split=arguments["validation_split"]
        )
    size = arguments["batch_size"]
    try:
        if plan is None:
            examples = Examples(x, y, weights, size, arguments["class_weight"], limited=False, positions=True)
        else:
            require_plans_own(plan, arguments)
            examples = DrawnExamples(
                model, plan, x, y, weights, arguments["class_weight"], limited=False, positions=positions
            )
    except NotInMemoryError as reason:
        what = (
            "The plan draws the batches itself" if plan is not None else "The examples are told apart by their places"
        )
        raise ValueError(f"{what}, and {reason}. Give arrays.") from None
    if isinstance(arguments["validation_data"], tuple) and arguments["validation_batch_size"] is None:
        arguments["validation_batch_size"] = size or 32
    none = dict.fromkeys(("y", "sample_weight", "class_weight", "batch_size"))
    data = examples.dataset(bool(arguments["shuffle"]))
    return arguments | none | {"x": data, "validation_split": 0.0, "shuffle": False}


def _flat(tensors):
    return [a for a in keras.tree.flatten(tensors) if a is not None]


def _fitted(weights, like):
    return tf.cast(tf.reshape(weights, [-1] + [1] * (len(like.shape) - 1)), like.dtype)
