"""What stands in for an attribute for a while, in one thread.

Layers run through Keras's own `Layer.__call__`; only `layer.call` is exchanged while it runs. Replicas of a distribution strategy
are threads that share the layers: each sees its own replacement, and its own list of what the layers add to the error.
"""

import contextlib
import inspect
import threading
from typing import Any

from keras.src.losses import loss as loss_module


class _Stack(threading.local):
    """The replacements of a thread, the last one on top."""

    def __init__(self):
        self.stack: list = []


class _Switch:
    """Stands in for a callable attribute: in a thread that replaced it the replacement, elsewhere the original."""

    def __init__(self, original, own):
        self.original = self.__wrapped__ = original
        self.own = own  # whether the attribute is in the owner's `__dict__` or comes from its class
        self.users = 0
        self._local = _Stack()

    @property
    def stack(self):
        return self._local.stack

    @property  # type: ignore[misc]
    def __class__(self):
        """For `isinstance`: people ask which regulariser it is. A routine's class would promise its code."""
        original = vars(self)["original"]
        return _Switch if inspect.isroutine(original) or isinstance(original, type) else type(original)

    def __getattr__(self, name):
        return getattr(vars(self)["original"], name)

    def __call__(self, /, *args, **kwargs):
        stack = self._local.stack
        return (stack[-1] if stack else self.original)(*args, **kwargs)


_lock = threading.RLock()


def current(owner, name):
    """The attribute, whether or not some thread has replaced it for the moment."""
    value = getattr(owner, name, None)
    return value.original if isinstance(value, _Switch) else value


def standing(owner, name):
    """What a call of the attribute runs in this thread: the replacement that stands in for it now, or the attribute."""
    value = getattr(owner, name, None)
    return value.stack[-1] if isinstance(value, _Switch) and value.stack else current(owner, name)


def is_overwritten(owner, name):
    """Whether somebody has given this one object a method of its own, other than by `replaced`."""
    value = vars(owner).get(name)
    return value.own if isinstance(value, _Switch) else value is not None


@contextlib.contextmanager
def replaced(owner, **replacements):
    """For the duration of the block, calls of `owner.<name>` in this thread go to a replacement.

    Replicas of a `tf.distribute` strategy run in threads that share the layers, hence the care.

    Args:
        owner: any object with a `__dict__`, a Keras layer for instance.
        **replacements: name of a callable attribute -> what to call instead.
    """
    switches: list = []
    try:
        for name, replacement in replacements.items():
            with _lock:
                switch = vars(owner).get(name)
                if not isinstance(switch, _Switch):
                    own = name in vars(owner)
                    switch = _Switch(getattr(owner, name), own)
                    vars(owner)[name] = switch
                depth = len(switch.stack)
                switch.users += 1
                switches.append((name, switch, depth))  # first, so that Ctrl-C leaves nothing behind
            switch.stack.append(replacement)
        yield
    finally:
        for name, switch, depth in reversed(switches):
            del switch.stack[depth:]
            with _lock:
                switch.users -= 1
                if not switch.users:
                    if switch.own:
                        vars(owner)[name] = switch.original
                    else:
                        del vars(owner)[name]


class _ListOfThread:
    """Stands in for a list: what a thread that uses it puts there is its own. It has what Keras does with `layer._losses`."""

    def __init__(self, original):
        self.original = original
        self.own: dict = {}  # thread -> list of lists, the innermost block's last

    def _here(self):
        return self.own.get(threading.get_ident(), [self.original])[-1]

    def extend(self, more):
        self._here().extend(more)

    def clear(self):
        self._here().clear()

    def __getitem__(self, which):
        return self._here()[which]


@contextlib.contextmanager
def own_added_losses(layer):
    """For the duration of the block, `layer.add_loss` in this thread adds to a list that this thread alone clears and reads.

    Keras keeps one list for all replicas. Where these take turns within a forward pass, as synchronized batch norm makes them
    do, each would find the losses of another and lose its own.
    """
    thread = threading.get_ident()
    with contextlib.ExitStack() as undo:
        with _lock:
            losses = vars(layer)["_losses"]
            if not isinstance(losses, _ListOfThread):
                losses = vars(layer)["_losses"] = _ListOfThread(losses)
            lists = losses.own.setdefault(thread, [])
            undo.callback(_forget, layer, losses, thread, len(lists))
            lists.append([])
        yield


def _forget(layer, losses, thread, depth):
    """Drop a thread's lists from a depth on, and what stands in for the layer's list when nobody uses it any more."""
    with _lock:
        del losses.own[thread][depth:]
        if not losses.own[thread]:
            del losses.own[thread]
        if not losses.own:
            vars(layer)["_losses"] = losses.original


def scaled_losses_noted(seen: list) -> Any:
    """For the duration of the block, `seen` gets every mean that a loss of Keras has divided by the number of replicas."""
    scale = standing(loss_module, "scale_loss_for_distribution")

    def noting(value):
        seen.append(value)
        return scale(value)

    return replaced(loss_module, scale_loss_for_distribution=noting)
