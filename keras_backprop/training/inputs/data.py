"""The data of a `fit`: in memory where they can be, else batch by batch as Keras delivers them."""

from keras_backprop import _keras
from keras_backprop.observers import need_examples
from keras_backprop.training.inputs.drawn import DrawnExamples
from keras_backprop.training.inputs.examples import Examples, NotInMemoryError
from keras_backprop.training.inputs.stream import Stream
from keras_backprop.training.interrupts import none_mistaken
from keras_backprop.training.path import NotCompiledError
from keras_backprop.training.plans import plan_of


class Data:
    """Training data and validation data.

    Args:
        model: a Keras model.
        arguments: dict, all arguments of `keras.Model.fit`.

    Attributes:
        train: `Examples` or `Stream`.
        validation: `Examples`; None where there is none, or where `validation_stream` gives it batch by batch.
        validates: bool, whether there are validation data.
        why: str, where the training data are.

    Raises:
        NotCompiledError: something is wrong with data in memory; Keras's own loop says what.
        Exception: whatever Keras says of other data.
    """

    @none_mistaken()
    def __init__(self, model, arguments):
        self._model, self._arguments = model, arguments
        train = x, y, sample_weight = arguments["x"], arguments["y"], arguments["sample_weight"]
        validation = arguments["validation_data"]
        try:
            if arguments["validation_split"] and validation is None:
                train, validation = _keras.train_validation_split(
                    (x, y, sample_weight), validation_split=arguments["validation_split"]
                )
            self.validates = validation is not None
            self.why = "the data lie in memory"
            self.train = self._train_examples(*train)
            self.validation, self._stream = None, None
            if self.validates:
                self._given = _keras.unpack_x_y_sample_weight(validation)
                self.validation = self._validation_examples(*self._given)
                if self.validation is not None and not self.validation.n:
                    raise NotCompiledError("there are no examples to validate on")
                _keras.validates(model, 0, arguments["validation_freq"])
        except NotCompiledError:
            raise
        except Exception as error:  # whatever is wrong with the data: Keras's own loop says so
            raise NotCompiledError(f"Keras refuses the data: {error}") from error
        if self.train is None:
            names = "batch_size", "steps_per_epoch", "shuffle", "class_weight"
            self.train = Stream(lambda: self._epochs(*train, *(arguments[name] for name in names)))

    def validation_stream(self):
        """The validation data, batch by batch. Keras's iterator of them is made when they are wanted first, as in its loop."""
        if self._stream is None:
            x, y, sample_weight = self._given
            steps = self._arguments["validation_steps"]
            self._stream = Stream(lambda: self._epochs(x, y, sample_weight, self._validation_batch_size, steps))
        return self._stream

    def evaluate_arguments(self):
        """What Keras's `fit` gives to `evaluate`, a dict; of the iterator it keeps in the model."""
        self.validation_stream()
        self.validation_goes_on()
        x, y, sample_weight = self._given
        return {
            "x": x, "y": y, "sample_weight": sample_weight, "batch_size": self._validation_batch_size,
            "steps": self._arguments["validation_steps"], "return_dict": True, "_use_cached_eval_dataset": True,
        }  # fmt: skip

    def validation_goes_on(self):
        """Let Keras's `evaluate` take the iterator of validation data, if it has been made: a generator is there once."""
        if self.validates and self._stream is not None:
            _keras.keep_for_validation(self._model, self._stream.epochs)

    @property
    def _validation_batch_size(self):
        return self._arguments["validation_batch_size"] or self._arguments["batch_size"]

    def _train_examples(self, x, y, sample_weight):
        given = self._arguments
        if given["steps_per_epoch"] is not None:
            self.why = "an epoch is a number of steps"
        elif given["shuffle"] == "batch":
            self.why = 'shuffle="batch"'
        else:
            positions, plan = need_examples(self._model._observers), plan_of(self._model)
            try:
                if plan is not None:
                    return DrawnExamples(
                        self._model, plan, x, y, sample_weight, given["class_weight"], positions=positions
                    )
                return Examples(x, y, sample_weight, given["batch_size"], given["class_weight"], positions=positions)
            except NotInMemoryError as reason:
                self.why = str(reason)
        if plan_of(self._model) is not None or need_examples(self._model._observers):
            raise NotCompiledError(self.why)
        self.why += ", and the batches are taken inside the call"
        return None

    def _validation_examples(self, x, y, sample_weight):
        if self._arguments["validation_steps"] is not None:
            return None
        try:
            return Examples(x, y, sample_weight, self._validation_batch_size, beside=self.train)
        except NotInMemoryError:
            return None

    def _epochs(self, x, y, sample_weight, batch_size, steps, shuffle=False, class_weight=None):
        return _keras.TFEpochIterator(
            x=x, y=y, sample_weight=sample_weight, batch_size=batch_size, steps_per_epoch=steps, shuffle=shuffle,
            class_weight=class_weight, distribute_strategy=self._model.distribute_strategy,
            steps_per_execution=self._model.steps_per_execution,
        )  # fmt: skip
