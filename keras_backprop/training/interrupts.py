"""Ctrl-C, wherever it comes."""

import _thread
import concurrent.futures
import contextlib
import os
import signal
import sys
import sysconfig
import threading
import time
from typing import Any

import keras
import tensorflow as tf

from keras_backprop import _tensorflow

_lock, _blocks, _before = threading.Lock(), 0, sys.unraisablehook


SECONDS = 0.1
"""So long one waits at a stretch for another thread."""

AGAIN, LONGEST = 0.005, 0.3
"""After so many seconds Ctrl-C that was put off comes again; after so many it is not put off any more."""

_THEIRS = tuple(os.path.join(os.path.dirname(module.__file__), "") for module in (tf, keras))
_PYTHONS = (os.path.join(sysconfig.get_paths()["stdlib"], ""), "<frozen ")
_PACKAGES = tuple(os.path.join(path, "") for path in {sysconfig.get_paths()[name] for name in ("purelib", "platlib")})


class _Hearing:
    """A handler of SIGINT that raises `KeyboardInterrupt` in code of the user or of this package, and puts it off elsewhere.

    Amid TensorFlow and Keras it may be lost: in a bare `except`, or in Python that C calls to look something up and whose
    exceptions it forgets. It may end the process: TensorFlow's C follows a null pointer when a property of its context raises.

    Attributes:
        since: float or None, when it was put off first (`time.monotonic`), if it is.
    """

    since: Any = None

    def __call__(self, number, frame):
        if _may_be_lost_in(frame) and (self.since is None or time.monotonic() - self.since < LONGEST):
            self.put_off()
        else:
            self.since = None
            signal.default_int_handler(number, frame)

    def put_off(self):
        since = self.since or time.monotonic()
        _thread.start_new_thread(self._again, (since,))
        self.since = since

    def _again(self, since):
        time.sleep(AGAIN)
        if self.since == since:
            if not _is_set():
                self.since = None  # it is another handler that will hear of it
            _interrupt_main()


_hearing: Any = _Hearing()


def _may_be_lost_in(frame):
    """Whether what runs is Keras's or TensorFlow's, or sets and restores handlers, or is what these call of Python's own."""
    while frame is not None and _is_pythons(frame.f_code.co_filename):
        frame = frame.f_back
    return frame is not None and (_is_theirs(frame.f_code.co_filename) or frame.f_code in _SET_HANDLERS)


def _is_theirs(path):
    return path.startswith(_THEIRS)


def _is_set():
    return signal.getsignal(signal.SIGINT) is _hearing


def _is_pythons_own_set():
    return signal.getsignal(signal.SIGINT) is signal.default_int_handler


def _is_pythons(path):
    return path.startswith(_PYTHONS) and not path.startswith(_PACKAGES) and not _is_theirs(path)


def _interrupt_main():
    """As Ctrl-C: a signal that also ends the main thread's waiting, where the system has one."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # type: ignore[arg-type]
    else:
        _thread.interrupt_main()


@contextlib.contextmanager
def raised_where_it_is_heard() -> Any:
    """For the duration of the block, Ctrl-C is raised where it cannot be lost, if nobody else handles it."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or not _is_pythons_own_set():
        yield
        return
    _hearing.since = None
    try:
        signal.signal(signal.SIGINT, _hearing)
        yield
    finally:
        if _is_set():
            signal.signal(signal.SIGINT, signal.default_int_handler)
        let_through()


def let_through() -> None:
    """A place where Ctrl-C that was put off is raised: between calls that take nearly all the time, it might meet no other.

    Raises:
        KeyboardInterrupt: it was put off.
    """
    if _hearing.since is None or threading.current_thread() is not threading.main_thread():
        return
    ends = time.monotonic() + LONGEST
    try:
        while _hearing.since is not None and time.monotonic() < ends:
            time.sleep(AGAIN)
        if _hearing.since is not None:  # the signal does not arrive: this thread blocks it
            raise KeyboardInterrupt
    finally:
        _hearing.since = None


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
    if unraisable.exc_type is not KeyboardInterrupt:
        _before(unraisable)
    elif _is_set():
        _hearing.put_off()
    else:
        again = threading.Timer(AGAIN, _thread.interrupt_main)  # what is raised in here would be forgotten as well
        again.daemon = True
        again.start()


_SET_HANDLERS = {
    *(context.__wrapped__.__code__ for context in (raised_where_it_is_heard, none_forgotten)),  # type: ignore[attr-defined]
    *(function.__code__ for function in (_is_set, _is_pythons_own_set)),
}


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
