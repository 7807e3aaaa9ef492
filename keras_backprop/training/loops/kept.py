"""The compiled loops of a model, kept for the next `fit`."""

from keras_backprop.training.loops.epochs import CompiledEpochs
from keras_backprop.training.loops.some_steps import CompiledSteps
from keras_backprop.training.sharing.equal_models import Traces

KEPT = 8
"""So many loops, for data of different kinds, are kept."""


class Loops:
    """Makes and keeps the compiled loops of a model. An object, lest TensorFlow save them with the model.

    A loop holds the steps that Keras has traced, and is kept for them.

    Attributes:
        traces: the `Traces` of the model's steps.
    """

    def __init__(self, model):
        self.model, self.kept, self.traces = model, {}, Traces(model)

    def epochs(self, train, validation, jit_compile):
        """The `CompiledEpochs` for training data and validation data of such kinds.

        Args:
            train, validation: pairs of `Batches` and a traced step; validation may be None.
        """

        def make(train, validation):
            return CompiledEpochs(self.model, train, validation, jit_compile)

        return self._kept(make, "epochs", jit_compile, train, validation)

    def steps(self, source, step, jit_compile):
        """The `CompiledSteps` for batches from such a source."""
        return self._kept(
            lambda part: CompiledSteps(self.model, part[0], part[1], jit_compile), "steps", jit_compile, (source, step)
        )

    def _kept(self, make, what, jit_compile, *parts):
        key = (what, jit_compile, *(part and (part[0].kind, part[1]) for part in parts))
        loop = self.kept.pop(key, None) or self._made(make, what, jit_compile, parts)
        if len(self.kept) == KEPT:
            self.kept.pop(next(iter(self.kept)))  # the one that was used the longest ago
        self.kept[key] = loop
        return loop

    def _made(self, make, what, jit_compile, parts):
        present = [part for part in parts if part is not None]
        if jit_compile:
            return make(*parts)
        return self.traces.loop(
            (what, *(batches.kind for batches, _ in present)),
            [step for _, step in present],
            lambda: make(*parts),
            lambda loop, exchanged: loop.moved(self.model, present, exchanged),
        )
