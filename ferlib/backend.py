"""Imports Keras, quietly.

No setting silences the messages that TensorFlow's C++ parts print as they start (TensorFlow's
issue 100442), and in a notebook they would stand above the first figure. Whatever fails still
raises its exception.
"""

import contextlib
import os
from collections.abc import Generator


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Silences what native libraries write to the error stream, where the process has one."""
    kept = nowhere = None
    with contextlib.suppress(OSError):  # pythonw on Windows has no error stream
        kept = os.dup(2)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
    try:
        yield
    finally:
        if kept is not None:
            os.dup2(kept, 2)
            os.close(kept)
        if nowhere is not None:
            os.close(nowhere)


with _quiet():
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow

        tensorflow.config.list_physical_devices()
        tensorflow.get_logger().setLevel("ERROR")

__all__ = ["keras"]
