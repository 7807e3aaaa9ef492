"""Operations of our own in C, compiled by the machine's C compiler when they are first wanted.

They are compiled for the processor at hand, where the system says what that can do, and kept in the user's cache directory, so
that only the first process waits, for a second or two. Without a compiler, or with the environment variable
`KERAS_BACKPROP_NATIVE=0`, there are none, and TensorFlow's operations compute the same.
"""

import functools
import hashlib
import os
import pathlib
import platform
import re
import shlex
import shutil
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable
from typing import Any

import tensorflow as tf

_FLAGS = ["-std=gnu11", "-O3", "-fno-math-errno", "-shared", "-fPIC"]

_SECONDS = 60
"""So long a compiler may take."""

_INSTRUCTIONS = ("flags", "Features")
"""What Linux calls the instructions of a processor, of x86 and of ARM."""

_MODEL = (
    "vendor_id",
    "cpu family",
    "model",
    "stepping",
    "CPU implementer",
    "CPU architecture",
    "CPU variant",
    "CPU part",
)
"""And by what else compilers choose instructions."""

_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH

_lock = threading.Lock()


def is_loaded(source: pathlib.Path, operation: str, is_right: Callable[[Any], bool] | None = None) -> bool:
    """Whether TensorFlow knows an operation; the first call compiles and loads it.

    Args:
        source: of a file in C that registers the operation.
        operation: its name in TensorFlow, such as `KerasBackpropNoise`.
        is_right: is asked once whether the operation, a function of tensors, computes what it should; else there is none.
    """
    with _lock:
        return _load(source, operation, is_right)


@functools.cache
def _load(source, operation, is_right=None):
    if os.environ.get("KERAS_BACKPROP_NATIVE") == "0":
        return False
    try:
        compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
        if shutil.which(compiler[0]) is None:
            return False
        loaded = tf.load_op_library(str(compiled(source, compiler, cache_directory())))
        in_python = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", operation).lower()
        function = getattr(loaded, in_python, None)  # nobody else says whether it could be registered
        return function is not None and (is_right is None or _is(is_right, function))
    except (OSError, RuntimeError, ValueError, subprocess.SubprocessError, tf.errors.OpError):
        return False  # whatever is wrong with the machine, `fit` goes on by TensorFlow's operations


def _is(right, function):
    try:
        return right(function)
    except Exception:  # of any kind: the operation is not known to compute what it should
        return False


def compiled(source: pathlib.Path, compiler: list[str], directory: pathlib.Path) -> pathlib.Path:
    """The compiled library, made if it is not there.

    Args:
        source: of a file in C.
        compiler: the command of a C compiler, such as `["ccache", "gcc"]`.
        directory: where it is kept.

    Returns:
        Its path.

    Raises:
        OSError: the directory cannot be written to, or others may put something into it.
        subprocess.SubprocessError: the compiler fails.
    """
    flags, processor = _flags(pathlib.Path("/proc/cpuinfo"))
    library = directory / f"{source.stem}-{_key(source, [*compiler, *flags], processor)}.so"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _make_own(directory)
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=directory) as own:
            made = os.path.join(own, library.name)
            command = [*compiler, *flags, f"-I{tf.sysconfig.get_include()}", str(source), "-o", made]
            subprocess.run(
                [*command, *tf.sysconfig.get_link_flags()], check=True, capture_output=True, timeout=_SECONDS
            )
            os.chmod(made, 0o700)
            os.replace(made, library)  # at once, for other processes may be looking
    _require_own(library)
    return library


def _make_own(directory):
    """Let nobody else write to a directory of one's own; if others could, what is in it is to be made anew."""
    status = directory.stat()
    if hasattr(os, "geteuid") and status.st_uid == os.geteuid() and status.st_mode & _OTHERS_MAY_WRITE:
        directory.chmod(0o700)
        for library in directory.glob("*.so"):
            library.unlink(missing_ok=True)
    _require_own(directory)


def _require_own(path):
    """Raise a `PermissionError` if somebody else may change a file: what is loaded runs with all rights of this process."""
    if not hasattr(os, "geteuid"):
        return
    status = path.stat()
    if status.st_uid not in (os.geteuid(), 0) or status.st_mode & _OTHERS_MAY_WRITE:
        raise PermissionError(
            f"{path} can be written by others: its mode is {status.st_mode:o}, its owner {status.st_uid}"
        )


def cache_directory() -> pathlib.Path:
    """Where the library is kept.

    Raises:
        RuntimeError: nobody knows where the user's home is.
    """
    # It counts if it is absolute, says the XDG specification.
    given = pathlib.Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (given if given.is_absolute() else pathlib.Path("~/.cache").expanduser()) / "keras_backprop"


def _flags(cpuinfo):
    """The compiler's flags, and the processor that they are for, a string.

    A home may be shared by different machines. So the library is for the processor at hand only where its instructions are known,
    as Linux tells them of x86 and ARM, and can be part of the key.
    """
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.exists() else []
    told = {
        name: [line for line in lines if line.partition(":")[0].strip() == name] for name in (*_INSTRUCTIONS, *_MODEL)
    }
    native = any(told[name] for name in _INSTRUCTIONS)
    processor = "\n".join(sorted({line for of_name in told.values() for line in of_name}))
    return [*_FLAGS, "-march=native"] if native else _FLAGS, processor


def _key(source, command, processor):
    """What a library depends on: the source, the compiler, TensorFlow, and the processor that it is compiled for."""
    parts = [*command, tf.__version__, tf.sysconfig.get_lib(), platform.machine(), processor]
    return hashlib.sha256(source.read_bytes() + os.fsencode("\n".join(parts))).hexdigest()[:16]
