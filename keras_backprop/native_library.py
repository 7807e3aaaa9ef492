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
import subprocess
import tempfile
import threading

import tensorflow as tf

_FLAGS = ["-std=gnu11", "-O3", "-fno-math-errno", "-shared", "-fPIC"]

_SECONDS = 60
"""So long a compiler may take."""

_lock = threading.Lock()


def is_loaded(source: pathlib.Path, operation: str) -> bool:
    """Whether TensorFlow knows an operation; the first call compiles and loads it.

    Args:
        source: of a file in C that registers the operation.
        operation: its name in TensorFlow, such as `KerasBackpropNoise`.
    """
    with _lock:
        return _load(source, operation)


@functools.cache
def _load(source, operation):
    if os.environ.get("KERAS_BACKPROP_NATIVE") == "0":
        return False
    try:
        compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
        if shutil.which(compiler[0]) is None:
            return False
        loaded = tf.load_op_library(str(compiled(source, compiler, cache_directory())))
    except (OSError, RuntimeError, ValueError, subprocess.SubprocessError, tf.errors.OpError):
        return False  # whatever is wrong with the machine, `fit` goes on by TensorFlow's operations
    in_python = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", operation).lower()
    return hasattr(loaded, in_python)  # nobody else says whether it could be registered


def compiled(source: pathlib.Path, compiler: list[str], directory: pathlib.Path) -> pathlib.Path:
    """The compiled library, made if it is not there.

    Args:
        source: of a file in C.
        compiler: the command of a C compiler, such as `["ccache", "gcc"]`.
        directory: where it is kept.

    Returns:
        Its path.

    Raises:
        OSError: the directory cannot be written to.
        subprocess.SubprocessError: the compiler fails.
    """
    flags, instructions = _flags(pathlib.Path("/proc/cpuinfo"))
    library = directory / f"{source.stem}-{_key(source, flags, instructions)}.so"
    if not library.exists():
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory) as own:
            made = os.path.join(own, library.name)
            command = [*compiler, *flags, f"-I{tf.sysconfig.get_include()}", str(source), "-o", made]
            subprocess.run(
                [*command, *tf.sysconfig.get_link_flags()], check=True, capture_output=True, timeout=_SECONDS
            )
            os.replace(made, library)  # at once, for other processes may be looking
    return library


def cache_directory() -> pathlib.Path:
    """Where the library is kept.

    Raises:
        RuntimeError: nobody knows where the user's home is.
    """
    given = pathlib.Path(
        os.environ.get("XDG_CACHE_HOME", "")
    )  # which counts if it is absolute, says the XDG specification
    return (given if given.is_absolute() else pathlib.Path("~/.cache").expanduser()) / "keras_backprop"


def _flags(cpuinfo):
    """The compiler's flags, and the instructions that they let it use, a string.

    A home may be shared by different machines. So the library is for the processor at hand only where its instructions are known,
    as Linux tells them of x86 and ARM, and can be part of the key.
    """
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.exists() else []
    instructions = "\n".join(sorted({line for line in lines if line.startswith(("flags", "Features"))}))
    return [*_FLAGS, "-march=native"] if instructions else _FLAGS, instructions


def _key(source, flags, instructions):
    """What a library depends on: the source, TensorFlow, and the processor that it is compiled for."""
    parts = [*flags, tf.__version__, tf.sysconfig.get_lib(), platform.machine(), instructions]
    return hashlib.sha256(source.read_bytes() + os.fsencode("\n".join(parts))).hexdigest()[:16]
