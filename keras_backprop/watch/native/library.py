"""The operation of `figures.c`, compiled by the machine's C compiler when a process first wants it.

It is compiled for the processor that it runs on, into a directory that is removed once it is loaded: nothing is installed, and
nothing is left behind. Without a compiler, or with the environment variable `KERAS_BACKPROP_NATIVE=0`, there is none, and figures
are computed by TensorFlow's operations.
"""

import functools
import os
import pathlib
import shutil
import subprocess
import tempfile

import tensorflow as tf

SOURCE = pathlib.Path(__file__).with_name("figures.c")

_FLAGS = ["-std=gnu11", "-O3", "-march=native", "-shared", "-fPIC"]

_SECONDS = 30
"""So long a compiler may take, which usually takes half a second."""


@functools.cache
def is_loaded():
    """Whether TensorFlow knows the operation; it is compiled and loaded by the first call."""
    compiler = shutil.which(os.environ.get("CC") or "cc")
    if compiler is None or os.environ.get("KERAS_BACKPROP_NATIVE", "1") == "0":
        return False
    with tempfile.TemporaryDirectory(prefix="keras_backprop_", ignore_cleanup_errors=True) as directory:
        library = os.path.join(directory, "figures.so")
        includes = f"-I{tf.sysconfig.get_include()}"
        command = [compiler, *_FLAGS, includes, str(SOURCE), "-o", library, *tf.sysconfig.get_link_flags()]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS)
            tf.load_op_library(library)
        except (OSError, subprocess.SubprocessError, tf.errors.OpError):
            return False
    return True
