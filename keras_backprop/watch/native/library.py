"""The operation of `figures.c`, compiled by the machine's C compiler when it is first wanted.

It is compiled for the processor at hand and kept in the user's cache directory, so that only the first process waits, for a
second or two. Without a compiler, or with the environment variable `KERAS_BACKPROP_NATIVE=0`, there is none, and figures are
computed by TensorFlow's operations.
"""

import functools
import hashlib
import os
import pathlib
import platform
import shutil
import subprocess
import tempfile
import threading

import tensorflow as tf

SOURCE = pathlib.Path(__file__).with_name("figures.c")

_FLAGS = ["-std=gnu11", "-O3", "-march=native", "-shared", "-fPIC"]

_SECONDS = 60
"""So long a compiler may take."""

_lock = threading.Lock()


def is_loaded() -> bool:
    """Whether TensorFlow knows the operation; the first call compiles and loads it."""
    with _lock:
        return _load()


@functools.cache
def _load():
    compiler = shutil.which(os.environ.get("CC") or "cc")
    if compiler is None or os.environ.get("KERAS_BACKPROP_NATIVE") == "0":
        return False
    try:
        tf.load_op_library(str(compiled(compiler, cache_directory())))
    except (OSError, subprocess.SubprocessError, tf.errors.OpError):
        return False
    return True


def compiled(compiler: str, directory: pathlib.Path) -> pathlib.Path:
    """The compiled library, made if it is not there.

    Args:
        compiler: path of a C compiler.
        directory: where it is kept.

    Returns:
        Its path.

    Raises:
        OSError: the directory cannot be written to.
        subprocess.SubprocessError: the compiler fails.
    """
    library = directory / f"figures-{_key()}.so"
    if not library.exists():
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory) as own:
            made = os.path.join(own, library.name)
            command = [compiler, *_FLAGS, f"-I{tf.sysconfig.get_include()}", str(SOURCE), "-o", made]
            subprocess.run(
                [*command, *tf.sysconfig.get_link_flags()], check=True, capture_output=True, timeout=_SECONDS
            )
            os.replace(made, library)  # at once, for other processes may be looking
    return library


def cache_directory() -> pathlib.Path:
    """Where the library is kept."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "keras_backprop"


def _key():
    """What a library depends on: the source, TensorFlow, and the processor that it is compiled for."""
    cpu = pathlib.Path("/proc/cpuinfo")
    lines = cpu.read_text(errors="replace").splitlines() if cpu.exists() else [platform.processor()]
    instructions = next((line for line in lines if line.startswith(("flags", "Features"))), lines[0])
    parts = [SOURCE.read_text(), *_FLAGS, tf.__version__, tf.sysconfig.get_lib(), platform.machine(), instructions]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
