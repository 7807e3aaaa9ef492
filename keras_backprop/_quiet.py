"""Import TensorFlow without the lines it writes to standard error while it starts.

For `python -m keras_backprop` only: Python imports the package before it runs `__main__`, and some of the lines heed no
environment variable.
"""

import contextlib
import os
import sys


@contextlib.contextmanager
def without_standard_error():
    """What is written to file descriptor 2 meanwhile, by C++ too, is thrown away. Exceptions pass."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


if "-m" in sys.argv[:1] and "keras_backprop" in sys.orig_argv:  # sys.argv is ["-m", …] until the module is found
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with without_standard_error():
        import tensorflow  # noqa: F401
