"""The compiled loops of a model, kept for the next `fit`."""

from keras_backprop.training import steps
from keras_backprop.training.batches import Batches
from keras_backprop.training.epochs import CompiledEpochs, CompiledValidation

KEPT = 8
"""So many loops, for data of different kinds, are kept."""


class Loops:
    """Makes and keeps the compiled loops of a model. An object, lest TensorFlow save them with the model.

    A loop holds the steps that Keras has traced, and is kept for them.
    """

    def __init__(self, model):
        self.model, self.kept = model, {}

    def epochs(self, train, validation, shuffle, jit_compile):
        """The `CompiledEpochs` for such `Examples`; validation may be None.

        Raises:
            tf.errors.OpError: XLA cannot compile it.
        """

        def make(train_step, test_step):
            loop = CompiledEpochs(self.model, train_step, test_step, jit_compile)
            if jit_compile:  # which XLA does in the first call
                loop(train, validation, (0, 0), (0, 0), (0, 0), [], {})
            return loop

        parts = [(train.batches(shuffle, jit_compile), steps.train_step(self.model, train)), None]
        if validation is not None:
            parts[1] = Batches(validation, for_xla=jit_compile), steps.test_step(self.model, validation)
        return self._kept(make, parts)

    def validation(self, examples, jit_compile):
        """The `CompiledValidation` for such `Examples`."""
        batches = Batches(examples, for_xla=jit_compile)
        return self._kept(
            lambda part: CompiledValidation(self.model, part, jit_compile),
            [(batches, steps.test_step(self.model, examples))],
        )

    def _kept(self, make, parts):
        key = tuple(part and (part[0].kind, part[1]) for part in parts)
        loop = self.kept.pop(key, None) or make(*parts)
        if len(self.kept) == KEPT:
            self.kept.pop(next(iter(self.kept)))  # the one that was used the longest ago
        self.kept[key] = loop
        return loop
