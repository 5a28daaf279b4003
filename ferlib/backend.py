"""Imports Keras, without the messages that TensorFlow's C++ parts print as they start.

No setting silences them (TensorFlow's issue 100442), and in a notebook they would stand above
the first figure. Whatever fails still raises its exception.
"""

import contextlib
import os


@contextlib.contextmanager
def _quiet():
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


with _quiet():
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow

        tensorflow.config.list_physical_devices()
        tensorflow.get_logger().setLevel("ERROR")

__all__ = ["keras"]
