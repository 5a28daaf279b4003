"""Imports Keras, quietly on TensorFlow and with faster convolutional networks on torch.

No setting silences the messages that TensorFlow's C++ parts print as they start (TensorFlow's
issue 100442), and in a notebook they would stand above the first figure. Whatever fails still
raises its exception.
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


def _hasten_torch():
    """Keeps pictures channels-last on torch and lets torch itself normalise batches.

    Keras (3.11 to 3.15) copies pictures to channels-first and back around each convolution and
    pool, and normalises batches step by step in float32. Without that, training on a CPU takes
    half the time (tests/benchmarks/bench_backends.py) and gives the same results, but for the
    moving variance: torch's is the unbiased estimate.
    """
    from keras.src.backend.torch import nn
    from torch.nn import functional

    permute, normalise = nn._transpose_spatial_inputs, keras.layers.BatchNormalization.call

    def view(x):
        return x.permute(0, 3, 1, 2) if x.ndim == 4 else permute(x)

    def call(self, inputs, training=None, mask=None):
        usual = self.axis in (-1, 3) and self.center and self.scale and not self.synchronized
        if inputs.ndim != 4 or mask is not None or not usual or getattr(self, "renorm", False):
            return normalise(self, inputs, training=training, mask=mask)
        weights = (self.moving_mean, self.moving_variance, self.gamma, self.beta)
        learning = bool(training and self.trainable)
        x = functional.batch_norm(
            inputs.permute(0, 3, 1, 2),
            *(weight.value for weight in weights),
            training=learning,
            momentum=1 - self.momentum,
            eps=self.epsilon,
        )
        return x.permute(0, 2, 3, 1)

    nn._transpose_spatial_inputs = view
    keras.layers.BatchNormalization.call = call


with _quiet():
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow

        tensorflow.config.list_physical_devices()
        tensorflow.get_logger().setLevel("ERROR")
    elif keras.backend.backend() == "torch":
        _hasten_torch()

__all__ = ["keras"]
