"""The scope in which variables have values of its own: which one we are in, and being in another."""

import contextlib
from collections.abc import Iterator
from typing import Any

from keras.src.backend.common.global_state import set_global_attribute
from keras.src.backend.common.stateless_scope import get_stateless_scope as current_stateless_scope

__all__ = ["current_stateless_scope", "stateless_scope_set"]


@contextlib.contextmanager
def stateless_scope_set(scope: Any) -> Iterator[None]:
    """For the duration of the block, the `keras.StatelessScope` that we are in is another one, or None."""
    before = current_stateless_scope()
    set_global_attribute("stateless_scope", scope)
    try:
        yield
    finally:
        set_global_attribute("stateless_scope", before)
