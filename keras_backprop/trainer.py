"""How models train by an explicit chain rule: the pass, what is made of the gradients, the update. A mixin for Keras models."""

import contextlib
import functools
import inspect
import itertools
import warnings
from typing import Any

import keras

from keras_backprop import _keras, _tensorflow, registry, scopes
from keras_backprop.backward_pass import backward_pass
from keras_backprop.backward_result import Backward
from keras_backprop.failures import told_to_others
from keras_backprop.gradients.update import held, made_gradients
from keras_backprop.observers import (
    ObservedUpdate,
    need_examples,
    observers_of,
    step_begins,
    training_begins,
    updating,
)
from keras_backprop.saved_rules import config_of, rules_of
from keras_backprop.scopes import Scope
from keras_backprop.training.distribution import DistributedTrainer
from keras_backprop.training.fit import CompiledFit
from keras_backprop.training.inputs.padding import Shown
from keras_backprop.training.plans import drawing, plan_of, require_weights
from keras_backprop.training.python_state import state_of_python
from keras_backprop.training.stock import follows_own, has_own, level_of_caller
from keras_backprop.training.update import lean_update, unwrapped

PARTS_OF_STEP = frozenset({"backward_pass", "make_gradients", "update_weights"})
"""What of a step can be overridden."""


class BackpropTrainer(CompiledFit, DistributedTrainer):
    """`train_step` by explicit backpropagation. A mixin: put it before a Keras model class.

    Everything else of `fit` stays Keras's: data, metrics, callbacks, the optimizer.

    Attributes:
        compiled_gradients, compiled_rules: what `compile` was given as `gradients` and `rules`.
        compiled_step: bool, set it to False to keep steps out of the compiled loop of `fit`.
        fit_path: which way the last `fit` went, and why.
    """

    # Of the Keras model that this is mixed into.
    optimizer: Any
    trainable_weights: Any
    compute_metrics: Any
    train_function: Any
    steps_per_execution: Any

    compiled_gradients: Any = None
    compiled_rules: Any = None
    _traced_with: Any = None
    _scope: Any = None
    _scopes: Any = ()
    _observers: Any = ()
    _observed_by: Any = ()
    _gradients_made = False
    _theirs_first = False  # whether methods of a class that `from_keras` was given come before ours
    _attributes_of_theirs: Any = ()  # those of `PARTS_OF_STEP` that name something on the model that it was given

    def compile(self, *args: Any, gradients: Any = None, rules: Any = None, **kwargs: Any) -> Any:
        """As `keras.Model.compile`, and more.

        Args:
            gradients: what the optimizer is to be given: a function `Backward -> list of gradients`, in the order of the
                trainable weights, such as `keras_backprop.gradients.ByPath`. None: the gradients as they are.
            rules: dict, selector -> rule `(call, dy) -> Gradients`, as `keras_backprop.use_rules` takes it: rules that hold
                while this model is trained. They are saved with the model by name: register functions and classes of your own
                by `keras.saving.register_keras_serializable`.
            epochs_per_execution: "auto", an int ≥ 1 or None. How many epochs of `fit` at most share one compiled call, if the
                data lie in memory; a call takes about 0.2 s. "auto" decides by the callbacks: each sees the model as it is at
                the end of its own epoch. With a number, callbacks are called after a call, for each of its epochs in
                order, and see the model as it is after the last. None: Keras's own loop, batch by batch.

        Raises:
            ValueError: another `epochs_per_execution`; a selector of `rules` that can never be reached, or, in training, that
                matches nothing.
            TypeError: `gradients` cannot be called, or `rules` is no dict of rules.
        """
        if gradients is not None and not callable(gradients):
            raise TypeError(
                "`gradients` must be a function of a `keras_backprop.Backward` that returns a list of gradients, such as "
                f"`keras_backprop.gradients.ByPath`. Received: gradients={gradients!r} (of type {type(gradients).__name__})"
            )
        scope = None if rules is None else Scope(rules)
        super().compile(*args, **kwargs)
        self.compiled_gradients, self.compiled_rules = gradients, rules
        self._scope, self._gradients_made = scope, False

    def _before_hdf5(self, filepath):
        """Called before the model is written into an HDF5 file."""
        given = {"gradients": self.compiled_gradients, "rules": self.compiled_rules}
        lost = [f"`{name}=…`" for name, value in given.items() if value is not None]
        if lost:
            warnings.warn(
                f"HDF5 files do not hold what `compile` was given as {' and '.join(lost)}: the model loaded from '{filepath}' "
                "will train without. Save a '.keras' file, or compile the loaded model with the same again.",
                stacklevel=level_of_caller(),
            )

    def get_compile_config(self):
        config = super().get_compile_config()
        if config and self.compiled_gradients is not None:
            config["gradients"] = keras.saving.serialize_keras_object(self.compiled_gradients)
        if config and self.compiled_rules is not None:
            config["rules"] = config_of(self.compiled_rules, self)
        return config

    def _compile_arguments(self, config):
        arguments = super()._compile_arguments({name: value for name, value in config.items() if name != "rules"})
        return arguments | ({"rules": rules_of(config["rules"], self)} if "rules" in config else {})

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        with told_to_others(self.distribute_strategy):
            arguments = self._arguments_of_fit(args, kwargs)
            callbacks = arguments.get("callbacks")
            try:
                self._observers = observers_of(callbacks)
                training_begins(self._observers, self, arguments)
                history = super().fit(*args, **kwargs)
                self._require_observed(callbacks, history)
                # Of what somebody has put into the place of `keras.Model.fit`, perhaps.
                if getattr(history, "epoch", None):
                    self._require_honoured()
                return history
            finally:
                self._observers, self._scopes = (), ()

    def _require_observed(self, callbacks, history):
        """After a training: the observers of the callbacks must have seen its steps."""
        if observers_of(callbacks) != self._observers:
            raise ValueError(
                "A `backward_observer` was given to a callback after the training had begun, and has seen nothing. Give it "
                "when the callback is made."
            )
        if self._observers and history.epoch and self._observed_by != self._observers:
            raise ValueError(
                f"The observers of the callbacks have seen no step of the model '{self.name}': its `train_step` does not call "
                "that of `BackpropModel`. Override `backward_pass`, `make_gradients` or `update_weights` instead, in a class "
                "derived from `BackpropModel`."
            )

    def _require_honoured(self):
        """After a training: what `compile` was given must have had a say in it, whatever `train_step` is the model's own."""
        if self.compiled_gradients is not None and not self._gradients_made:
            raise ValueError(
                f"The model '{self.name}' has been trained without `gradients={self.compiled_gradients!r}`, with which it was "
                f"compiled: '{type(self).__name__}' has a `train_step` or `make_gradients` of its own that does not call that of "
                "`BackpropModel`. In a step, write `result = self.backward_pass(x, y)`, "
                "`self.update_weights(self.make_gradients(result), result.weights)`."
            )
        if self._scope is not None:
            try:
                self._scope.check()
            except ValueError as error:
                if has_own(self, "train_step"):
                    error.add_note(
                        "In a `train_step` of one's own they hold for `self.backward_pass(…)` and `backward(self, …)`."
                    )
                raise

    def _arguments_of_fit(self, args, kwargs):
        """By their names: Keras's, or those of another class with a `fit` of its own that stands between this one and Keras's."""
        following = super(CompiledFit, self).fit.__func__
        signature = inspect.signature(_keras.fit if following is keras.Model.fit else following)
        try:
            arguments = dict(signature.bind(self, *args, **kwargs).arguments)
        except TypeError:  # which Python says when it is called
            return kwargs
        others = [x.name for x in signature.parameters.values() if x.kind is x.VAR_KEYWORD]
        return arguments | {name: x for some in others for name, x in arguments.pop(some, {}).items()}

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        plan = plan_of(self)
        by_hand = contextlib.nullcontext() if plan is None else plan.past.interrupted()
        if plan is not None:
            plan.prepare(self, given=True)
            given = inspect.signature(keras.Model.train_on_batch).bind(self, *args, **kwargs).arguments
            require_weights(self, (given.get("sample_weight"), [*(given.get("class_weight") or {}).values()]))
        try:
            with by_hand:
                logs = super().train_on_batch(*args, **kwargs)
            self._require_honoured()
            return logs
        finally:
            self._scopes = ()

    def make_train_function(self, force=False):
        """As Keras's; and anew if other rules hold, or other observers look on, than when it was made."""
        self._scopes = scopes.current()
        batch_by_batch = self.fit_path is not None and not self.fit_path.compiled
        traced_as = [batch_by_batch for one in self._observers if getattr(one, "differs_batch_by_batch", False)]
        traced_with = (registry.current(), self._scopes, self._observers, traced_as)
        super().make_train_function(force or traced_with != self._traced_with)
        self._traced_with = traced_with
        plan = plan_of(self)
        if plan is not None and not hasattr(self.train_function, "__wrapped__"):
            self.train_function = _within_the_budget(self.train_function, plan, self)
        return self.train_function

    def train_step(self, data):
        """One step: forward pass, error, chain rule, update. Opens no `tf.GradientTape`.

        Three parts of it can be overridden one by one: `backward_pass`, `make_gradients` and `update_weights`. Where the class
        that this is mixed into has a `train_step` of its own, that is the step, and its `super()` is Keras's; in
        `class Mine(Theirs, BackpropModel)` it is this one.
        """
        if follows_own(self, BackpropTrainer, "train_step"):
            return super().train_step(data)
        outputs = self._outputs_of_equal(data)
        if outputs is not None:
            return outputs
        # A step of its user's around this one may draw and count as well, before and after: it counts as changed.
        state = None if has_own(self, "train_step") else functools.partial(state_of_python, self)
        with _tensorflow.traced_once(state):  # the variables of metrics and of the optimizer are no reason
            return self.__train_step(data)

    def __train_step(self, data):  # users have a `_train_step`
        examples = None
        if need_examples(self._observers) and isinstance(data, tuple) and len(data) == 4:  # 3 in `train_on_batch`
            *data, examples = data
            data = tuple(data)
        batch = _keras.unpack_x_y_sample_weight(data)
        (x, y, sample_weight), ends = step_begins(self._observers, self, batch)
        shown = Shown(self, x, y, sample_weight, filled=plan_of(self) is not None)
        with shown.part_losses():
            result = self._part_of_step("backward_pass")(x, y, sample_weight)
        loss = _keras.unscale_loss_for_distribution(shown.loss(result))
        _keras.loss_tracker_of(self).update_state(loss, sample_weight=shown.size)
        makes = result.weights or plan_of(self) is not None
        gradients = self._part_of_step("make_gradients")(result) if makes else []
        if self.compiled_gradients is not None and not result.weights:
            self._gradients_made = True  # there is nothing to make
        update = ObservedUpdate(self, (x, y, sample_weight), examples, result, gradients, self.optimizer)
        with updating(self._observers, update):
            if result.weights:
                self._part_of_step("update_weights")(gradients, result.weights)
            else:
                warnings.warn("The model does not have any trainable weights.", stacklevel=2)
        logs = shown.metrics(result)
        for end in ends:
            end(update)
        return logs

    def _part_of_step(self, name):
        """One of `PARTS_OF_STEP`, or what a class derived from ours has in its place.

        A model that `from_keras` was given knows nothing of ours, nor does its class: what they have under such a name is
        something else. What is put on the model afterwards is meant.
        """
        if name in vars(self):
            of_theirs = name in self._attributes_of_theirs
        else:  # a class derived from the one that `from_keras` has made does know ours
            derived = itertools.takewhile(lambda one: "_theirs_first" not in vars(one), type(self).__mro__)
            of_theirs = self._theirs_first and not any(name in vars(one) for one in derived)
        return getattr(BackpropTrainer, name).__get__(self) if of_theirs else getattr(self, name)

    def backward_pass(self, x: Any, y: Any = None, sample_weight: Any = None) -> Backward:
        """The forward pass, the error and the chain rule on a batch of tensors, in training mode.

        Returns:
            A `keras_backprop.Backward`. Its gradients carry the loss scale of the optimizer, if there is one.
        """
        self._observed_by = self._observers or self._observed_by
        with scopes.entered_for(self):
            result = backward_pass(
                self, x, y, sample_weight, self._observers, weights_of_examples=plan_of(self) is not None, trains=True
            )
        if self._scope is not None:
            self._scope.check()
        return result

    def make_gradients(self, result: Any) -> list[Any]:
        """What the optimizer is given: by default the gradients as they are, or what `compile(gradients=…)` makes of them.

        Args:
            result: a `keras_backprop.Backward`.

        Returns:
            list of tensors, `tf.IndexedSlices` or None, in the order of `result.weights`.
        """
        if self.compiled_gradients is None:
            return result.gradients
        self._gradients_made = True
        return made_gradients(self.compiled_gradients, result)

    def update_weights(self, gradients: Any, weights: Any) -> None:
        """Give the gradients to the optimizer.

        Args:
            gradients: list, as `make_gradients` returns it.
            weights: list of `keras.Variable`.
        """
        averages = getattr(unwrapped(self.optimizer), "use_ema", False)
        gradients, put_back = held(self.compiled_gradients, gradients, weights, averages)
        with lean_update(self.optimizer):
            self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        put_back()


def _within_the_budget(train_function, plan, model):
    """A train function that asks a plan before it runs, and that the plan must have been asked by."""

    @functools.wraps(train_function)
    def train(iterator):
        plan.require_budget(model.steps_per_execution)
        left, passes_over = plan.steps_left, plan.passes_over
        with drawing(model):
            logs = train_function(iterator)
        if not passes_over:
            plan.require_counted(left, model)
        return logs

    return train


functools.update_wrapper(BackpropTrainer.fit, _keras.fit)
BackpropTrainer.fit.__doc__ = _keras.Trainer.fit.__doc__  # TensorFlow's `fit` of Keras has none
