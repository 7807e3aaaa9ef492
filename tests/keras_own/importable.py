"""What Keras's test modules find at home: the modules they import, and their markers."""

import contextlib
import importlib.util
import sys
import types

import pytest


@contextlib.contextmanager
def importable():
    """For the duration of the block, what a test module imports at its top and few of its tests need can be imported."""
    conftest = types.ModuleType("conftest")
    conftest.skip_if_backend = lambda backend, reason: pytest.mark.skipif(backend == "tensorflow", reason=reason)
    added = {"conftest": conftest, "jax": types.ModuleType("jax")}
    added = {name: module for name, module in added.items() if name not in sys.modules and not _installed(name)}
    sys.modules.update(added)
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]


def add_markers(config):
    """Let Keras's tests have the markers that they have at home."""
    for marker in ("requires_trainable_backend", "multi_device"):
        config.addinivalue_line("markers", f"{marker}: Keras's")


def _installed(name):
    with contextlib.suppress(ImportError):
        return importlib.util.find_spec(name) is not None
