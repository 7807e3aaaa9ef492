"""The steps of a plan: how many have been taken, how many may be, and an error before the one that would be too many."""

from typing import Any

import keras
import tensorflow as tf


class BudgetExceededError(RuntimeError):
    """One step more would exceed what the plan allows. No weight has changed in that step."""


class Steps:
    """What a plan counts. A logical batch may be used in several parts.

    Args:
        epochs, steps_per_epoch: int, what the plan allows.

    Attributes:
        parts: int, of a batch.
        planned_steps: int, how many steps the plan allows.
    """

    delta: Any
    epsilon: Any
    past: Any
    clipping: Any

    def __init__(self, epochs: int, steps_per_epoch: int) -> None:
        self.epochs, self.steps_per_epoch, self.parts = epochs, steps_per_epoch, 1
        self.planned_steps = epochs * steps_per_epoch
        self._count = keras.Variable(0, dtype="int64", trainable=False, name="private_steps")
        self._resumed_at = keras.Variable(0, dtype="int64", trainable=False, name="resumed_at")

    @property
    def steps(self) -> int:
        """How many steps have been taken. A logical batch in several parts is one."""
        return self.parts_used() // self.parts

    def parts_used(self) -> int:
        """How many parts of batches have been used."""
        return int(keras.ops.convert_to_numpy(self._count))

    @property
    def count(self) -> Any:
        """How many parts of batches have been used, an int64 tensor."""
        return tf.convert_to_tensor(self._count.value)

    @property
    def first_of_epoch(self) -> Any:
        """How many had been used when the epoch began that a backup resumes in its middle, an int64 tensor."""
        return self.count - tf.convert_to_tensor(self._resumed_at.value)

    def resumed(self, batches: int) -> None:
        """Is told that so many batches of an epoch will be passed over, because a backup has seen them."""
        self._resumed_at.assign(batches)

    @property
    def passes_over(self) -> bool:
        """Whether batches are passed over that a backup has seen: no steps are taken."""
        return bool(int(keras.ops.convert_to_numpy(self._resumed_at)))

    @property
    def steps_left(self) -> int:
        """How many parts of batches may still be used."""
        return max(0, self.planned_steps * self.parts - self.parts_used())

    def is_asked_in(self, graph: Any) -> bool:
        """Whether the step of which this is the graph counts as one."""
        return any(variable is self._count.value for variable in graph.variables)

    def require_counted(self, left: int, model: Any) -> None:
        """Raise if a step has been taken of which the plan knows nothing.

        Args:
            left: int, `steps_left` before it.
            model: the model that took it.
        """
        if self.steps_left == left:
            raise ValueError(
                f"A step of the model '{model.name}' has not asked the plan for its gradients, and was not private: its "
                "`train_step` or `make_gradients` is its own. Call that of `BackpropModel`, or override `backward_pass` or "
                "`update_weights`."
            )

    def begin_whole(self, parts: int) -> None:
        """Begin a batch, in so many parts. One of which another optimizer has got some counts as a step, and nothing is kept of
        it: with parts of the next an example could count twice."""
        with self.past.counted_otherwise():
            begun = -(-self.parts_used() // self.parts)
            self.parts = parts
            self._count.assign(begun * parts)
            self.clipping.forget()

    @property
    def is_within_budget(self) -> Any:
        """Whether the plan allows a further step, a bool tensor."""
        return self.count < self.planned_steps * self.parts

    def budget_asserted(self, allowed: Any) -> Any:
        """An operation that fails where the plan allows no further step. (`tf.debugging.Assert` would make two functions of
        it, with which a loop of steps could not run in one thread.)"""
        message = (
            f"The plan allows {self.planned_steps:,} steps, and they have been taken. Make a plan for more epochs, with more "
            "noise, before training."
        )
        return tf.raw_ops.Assert(condition=allowed, data=[tf.constant(message)])

    def require_budget(self, steps: int = 1) -> None:
        """Raise if the plan does not allow so many steps more, or those that an epoch still has."""
        an_epoch = self.steps_per_epoch * self.parts
        rest = an_epoch - self.parts_used() % an_epoch
        if self.steps_left < min(steps, rest):
            raise BudgetExceededError(
                f"The plan allows {self.planned_steps:,} steps ({self.epochs} epochs of {self.steps_per_epoch}), and they have "
                "been taken: "
                f"ε = {self.epsilon():.4g} at δ = {self.delta:g}. One more would exceed it. Make a plan for more epochs, with "
                "more noise, before training."
            )
