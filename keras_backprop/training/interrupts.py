"""Ctrl-C, wherever it comes."""

import _thread
import concurrent.futures
import contextlib
import sys
import threading
from typing import Any

import tensorflow as tf

from keras_backprop import _tensorflow

_lock, _blocks, _before = threading.Lock(), 0, sys.unraisablehook


SECONDS = 0.1
"""So long one waits at a stretch for another thread."""


@contextlib.contextmanager
def none_forgotten() -> Any:
    """For the duration of the block, Ctrl-C that falls into a finalizer or into the callback of a weak reference comes again.

    Python prints an exception that is raised there, by `sys.unraisablehook`, and forgets it; tracing a function runs thousands of
    them.
    """
    global _blocks, _before
    with _lock:
        if not _blocks:
            _before, sys.unraisablehook = sys.unraisablehook, _again
        _blocks += 1
    try:
        yield
    finally:
        with _lock:
            _blocks -= 1
            if not _blocks and sys.unraisablehook is _again:
                sys.unraisablehook = _before


def _again(unraisable):
    if unraisable.exc_type is KeyboardInterrupt:
        again = threading.Timer(0.01, _thread.interrupt_main)  # what is raised in here would be forgotten as well
        again.daemon = True
        again.start()
        return
    _before(unraisable)


@contextlib.contextmanager
def none_mistaken() -> Any:
    """For the duration of the block, what Ctrl-C has led to is raised as Ctrl-C.

    Where it falls into code that cleans up, another exception may come of it: TensorFlow ends a graph that has half an operation
    with a `SystemError`.
    """
    handled = sys.exception()  # by those around the block: it is behind all that is raised in here
    try:
        yield
    except Exception as error:
        behind: list = [error]
        known = {id(handled), id(None)}
        while behind:
            one = behind.pop()
            if id(one) in known:
                continue
            if isinstance(one, KeyboardInterrupt):
                raise KeyboardInterrupt from error
            known.add(id(one))
            behind += [one.__cause__, one.__context__]
        raise


def heard_meanwhile(function: Any, *arguments: Any) -> Any:
    """Call what takes seconds in one piece, outside Python, in another thread: Ctrl-C ends the waiting at once.

    The function then comes to its end by itself, so it should be one that changes nothing.
    """
    device, executor = _tensorflow.device(), concurrent.futures.ThreadPoolExecutor(1)

    def call():
        with tf.device(device or None):  # as in the thread that waits
            return function(*arguments)

    try:
        future = executor.submit(call)
        while not concurrent.futures.wait([future], SECONDS).done:
            pass  # an interrupt that is no signal to this thread (`_thread.interrupt_main`) would not wake it
        return future.result()
    finally:
        executor.shutdown(wait=False)
