"""Legacy HDF5 files of whole models, which `model.save`, `keras.saving.save_model` and callbacks write by one function."""

import functools
from collections.abc import Callable
from typing import Any

from keras.src.legacy.saving import legacy_h5_format as _format


def told_before_hdf5(cls: type, tell: Callable[[Any, Any], None]) -> None:
    """From now on, `tell(model, filepath)` is called before a model of `cls` is written into an HDF5 file."""
    write = _format.save_model_to_hdf5

    @functools.wraps(write)
    def save_model_to_hdf5(model, filepath, *args, **kwargs):
        if isinstance(model, cls):
            tell(model, filepath)
        return write(model, filepath, *args, **kwargs)

    _format.save_model_to_hdf5 = save_model_to_hdf5
