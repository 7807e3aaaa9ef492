"""n updates of a small model on one batch, as a table and a film strip; the model is left as it was."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_backprop.explanations.comparing.spelling import Spelling
from keras_backprop.explanations.drawing.plot import film_strip
from keras_backprop.explanations.explanation import Explanation
from keras_backprop.explanations.observing.asked import place, places
from keras_backprop.explanations.observing.batch import as_batch
from keras_backprop.explanations.observing.observe import explain
from keras_backprop.explanations.observing.one_step import apply, gradients_for, pass_of
from keras_backprop.explanations.observing.unchanged import copied, unchanged
from keras_backprop.explanations.writing.markdown import table
from keras_backprop.explanations.writing.notation import brief, columns, latex_number, number, plain, precision

__all__ = ["Steps", "steps"]

MOST_NUMBERS = 50_000_000
"""So many numbers of all steps together are kept."""


def steps(model: Any, x: Any, y: Any, n: int, sample_weight: Any = None) -> "Steps":
    """n updates of the model on one batch, each a full step of its optimizer. The model and the optimizer are left as they were.

    Args:
        model: a compiled and built Keras model, stock or `BackpropModel`.
        x, y, sample_weight: one batch, as for `explain`.
        n: int, how many updates.

    Returns:
        A `Steps`: E, weights and gradients of every step, and after the last.

    Raises:
        TypeError, ValueError: as `explain`; `n` is no whole number from 1, or so many steps of so large a model are no table.
    """
    if not isinstance(n, (int, np.integer)) or isinstance(n, bool) or n < 1:
        raise ValueError(f"`n` must be a whole number of updates, 1 or more. Received: n={n!r}")
    first = explain(model, x, y, sample_weight)
    size = sum(np.size(w.value) for w in first.weights)
    if size * n > MOST_NUMBERS:
        raise ValueError(
            f"{n} steps of {size} weights are too many numbers to keep ({size * n:,}; at most {MOST_NUMBERS:,})."
        )
    batch = as_batch(model, x, y, sample_weight)
    weights = model.trainable_weights
    with unchanged(model):
        optimizer = copied(model.optimizer, weights)
        if not optimizer.built:
            optimizer.build(weights)  # its variables cannot be made while a function is traced
        errors, values, gradients, states = _run(model, optimizer, batch, weights, n)
    return Steps(model, (x, y, sample_weight), first, errors, values, gradients, states)


def _run(model, optimizer, batch, weights, n):
    @tf.function(reduce_retracing=True)
    def step(x, y, sample_weight):
        result = pass_of(model, x, y, sample_weight)
        before = [tf.identity(variable.value) for variable in weights]
        gradients = [
            tf.zeros_like(v.value) if g is None else _unscaled(tf.convert_to_tensor(g), result.scale)
            for g, v in zip(result.gradients, weights, strict=True)
        ]
        apply(model, optimizer, gradients_for(model, result), weights)
        return result.loss, before, gradients

    errors, values, every, states = [], [], [], [_state(model)]
    for _ in range(n):
        loss, before, gradients = step(*batch)
        errors.append(float(loss))
        values.append([value.numpy() for value in before])
        every.append([gradient.numpy() for gradient in gradients])
        states.append(_state(model, states[-1]))
    last = [keras.ops.convert_to_numpy(variable).copy() for variable in weights]
    errors.append(float(pass_of(model, *batch).loss))
    return errors, [*values, last], every, states


def _state(model, before=None):
    """Variable -> value of what is not trained: random seeds, moving statistics. What is as before is kept once."""
    now = {id(v): (v, keras.ops.convert_to_numpy(v).copy()) for v in model.non_trainable_variables}
    for key in now.keys() & (before or {}).keys():
        now[key] = before[key] if np.array_equal(before[key][1], now[key][1]) else now[key]
    return now


def _unscaled(gradient, scale):
    return gradient if scale is None else gradient / tf.cast(scale, gradient.dtype)


class Steps:
    """What `steps` returns.

    Attributes:
        errors: array `(n + 1,)`: E before each update, and after the last.
        weights: dict, path -> array `(n + 1, *shape)`: before each update, and after the last.
        gradients: dict, path -> array `(n, *shape)`, of each update.
        first: the `Explanation` of the first update.
    """

    def __init__(
        self, model: Any, batch: Any, first: Any, errors: Any, values: Any, gradients: Any, states: Any
    ) -> None:
        self._model, self._batch, self.first, self._states = model, batch, first, states
        self.errors = np.array(errors)
        paths = [weight.path for weight in first.weights]
        self.weights = {path: np.stack([step[i] for step in values]) for i, path in enumerate(paths)}
        self.gradients = {path: np.stack([step[i] for step in gradients]) for i, path in enumerate(paths)}

    def __len__(self) -> int:
        return len(self.errors) - 1

    def weight(self, name: str) -> Any:
        """The values of one weight, by its name in any spelling: array `(n + 1,)`, or `(n + 1, *shape)`.

        Raises:
            KeyError: there is none.
        """
        found = self._found(name)
        values = self.weights[found.path]
        return values if found.index is None else values[(slice(None), *found.index)]

    def gradient(self, name: str) -> Any:
        """The gradients of one weight, likewise: array `(n,)`, or `(n, *shape)`."""
        found = self._found(name)
        values = self.gradients[found.path]
        return values if found.index is None else values[(slice(None), *found.index)]

    def _found(self, name):
        return Spelling(self.first, self.first.graph).weight(name)

    def explanation(self, step: int) -> Explanation:
        """The explanation of one update, counted from 1: the second iteration of a note is `explanation(2)`.

        Random numbers and moving statistics are those of that step; the optimizer's state, where it has one, is that of
        the model.

        Raises:
            IndexError: there is no such step.
        """
        place("step", step, len(self) + 1, first=1)
        with unchanged(self._model):
            for variable in self._model.trainable_weights:
                variable.assign(self.weights[variable.path][step - 1])
            for variable, value in self._states[step - 1].values():
                variable.assign(value)
            x, y, sample_weight = self._batch
            return explain(self._model, x, y, sample_weight)

    def shown(self, most: int = 12) -> list[int]:
        """Some steps that say most: the first three, and then evenly on a logarithmic scale up to the last."""
        n = len(self)
        if n + 1 <= most:
            return list(range(1, n + 2))
        later = np.geomspace(3, n + 1, most - 2).round().astype(int)
        return sorted({1, 2, *later.tolist()})

    def _names(self):
        spelling, names = Spelling(self.first, self.first.graph), []
        for weight in self.first.weights:
            for index in np.ndindex(np.shape(weight.value)):
                names.append((spelling.name(weight.path, index), weight.path, index))
        return names if len(names) <= 24 else []

    def rows(self, epochs: Any = None) -> list[dict]:
        """A dict for each step: `epoch`, `E`, every weight by its name, and its gradient as `∂E/∂…`.

        Args:
            epochs: list of steps, counted from 1; by default `shown()`. Step n + 1 is after the last update and has no gradients.
        """
        rows = []
        for step in self.shown() if epochs is None else places("epochs", epochs, len(self) + 1, first=1):
            row = {"epoch": step, "E": float(self.errors[step - 1])}
            for name, path, index in self._names():
                row[plain(name)] = float(self.weights[path][step - 1][index])
            for name, path, index in self._names() if step <= len(self) else ():
                row[f"∂E/∂{plain(name)}"] = float(self.gradients[path][step - 1][index])
            rows.append(row)
        return rows

    def to_text(self, *, epochs: Any = None, digits: Any = None) -> str:
        """The table for a terminal: a line for each step, E and the weights before its update, and then the gradients.

        Args:
            epochs: as in `rows`.
            digits: int, decimals; by default six.
        """
        rows = self.rows(epochs)
        with precision(6 if digits is None else digits):
            weights = [name for name in rows[0] if not name.startswith("∂")]
            gradients = ["epoch", *(name for name in rows[0] if name.startswith("∂"))]
            head = f"{len(self)} updates of '{self.first.model}' ({self.first.optimizer}); a line is before its update"
            parts = [head, "", *_table(rows, weights)]
            if len(gradients) > 1:
                parts += ["", *_table([row for row in rows if len(row) > len(weights)], gradients)]
            if not self._names():
                parts += [
                    "",
                    *(f"  {path}: {brief(values[-1])} after the last" for path, values in self.weights.items()),
                ]
        return "\n".join(parts)

    def to_markdown(self, *, epochs: Any = None, digits: Any = None) -> str:
        """The same as a table of Markdown, E and weights, with a line for each step."""
        rows = self.rows(epochs)
        with precision(6 if digits is None else digits):
            latex = ["epoch", "$E$", *(f"${name}$" for name, _, _ in self._names())]
            names = [name for name in rows[0] if not name.startswith("∂")]
            cells = [(str(row["epoch"]), *(f"${latex_number(row[name])}$" for name in names[1:])) for row in rows]
            return table(latex, cells) + "\n"

    def plot(self, path: Any, *, epochs: Any = None, digits: Any = None) -> Any:
        """Draw a film strip: the network at some steps, one below the other. Returns the path.

        Args:
            path: str or path, the file to write: `.png`, `.svg` or `.pdf`.
            epochs: list of steps from 1; by default the first, the second and the last.
            digits: int, decimals.

        Raises:
            ImportError: Matplotlib is not installed.
            ValueError: a suffix that is none of the three.
        """
        chosen = (
            sorted({1, min(2, len(self)), len(self) + 1})
            if epochs is None
            else places("epochs", epochs, len(self) + 1, 1)
        )
        return film_strip([(step, self.explanation(step)) for step in chosen], path, digits)

    def _repr_markdown_(self) -> str:
        return self.to_markdown()

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        return f"<Steps: {len(self)} updates, E from {self.errors[0]:.6g} to {self.errors[-1]:.6g}>"


def _table(rows, names):
    cells = [tuple(names)]
    for row in rows:
        cells.append(tuple(str(row[n]) if n == "epoch" else number(row[n]) if n in row else "" for n in names))
    return columns(cells)
