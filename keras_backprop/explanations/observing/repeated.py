"""Layers that see every time step of an example by itself (`TimeDistributed`), shown as they are meant.

They run with the steps as so many more rows, the steps first. Here the examples come first again, as in every other tensor,
and the operations that only turn the axes around are left out.
"""

from typing import Any

import numpy as np

from keras_backprop.rule import Operation

__all__ = ["examples_first", "jacobian_of_steps", "turns_of"]


def turns_of(calls: list, examples: int) -> dict:
    """The operations that only bring the steps to the front, and back.

    Args:
        calls: list of `Call`, in the order they ran.
        examples: int, how many there are.

    Returns:
        dict, id of the `Call` -> itself. Empty where such layers stand in each other: then rows are shown as they ran.
    """
    repeated = [call for call in calls if call.repeats is not None]
    if any(not x.shape.rank or x.shape[0] != call.repeats * examples
           for call in repeated for x in (*call.inputs, *call.outputs)):  # fmt: skip
        return {}
    made_by: Any = {id(y): call for call in calls for y in call.outputs}
    inside, turns = {id(y) for call in repeated for y in call.outputs}, {}
    for call in calls:
        if call.repeats is not None:
            brought = [made_by.get(id(x)) for x in call.inputs if id(x) not in inside]
        elif _is(call, "Transpose"):
            shaped = made_by.get(id(call.input))
            brought = [shaped] if _is(shaped, "Reshape") and id(shaped.input) in inside else []
            turns |= {id(call): call for _ in brought}
        else:
            continue
        for shaped in brought:
            if _is(shaped, "Reshape"):
                turned = made_by.get(id(shaped.input))
                turns |= {id(one): one for one in (shaped, turned) if one is shaped or _is(one, "Transpose")}
    return turns


def _is(call, kind):
    return call is not None and isinstance(call.op, Operation) and call.op.name == kind


def examples_first(array: Any, steps: int | None) -> Any:
    """`(steps·n, …)` -> `(n, steps, …)`; an array of a call that was not repeated, and None, as it is."""
    if steps is None or array is None:
        return array
    return np.moveaxis(array.reshape(steps, -1, *array.shape[1:]), 0, 1)


def jacobian_of_steps(jacobian: Any, steps: int | None) -> Any:
    """The derivatives of all steps of an example, from a function that gives those of each. See `jacobian_of`."""
    if steps is None or jacobian is None:
        return jacobian
    return lambda: [[_together(one, steps) for one in of_output] for of_output in jacobian()]


def _together(one, steps):
    """`(steps·n, out, in)` -> `(n, steps·out, steps·in)`: no step depends on another."""
    if one is None:
        return None
    n, (out, into) = len(one) // steps, one.shape[1:]
    whole = np.zeros((n, steps, out, steps, into))
    whole[:, range(steps), :, range(steps), :] = one.reshape(steps, n, out, into)
    return whole.reshape(n, steps * out, steps * into)
