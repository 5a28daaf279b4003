"""Makes convolutional networks train faster on torch, while a training lasts."""

import contextlib
from collections.abc import Generator
from typing import Any
from unittest.mock import patch

from ferlib.backend import keras


@contextlib.contextmanager
def channels_last() -> Generator[None]:
    """Keeps pictures channels-last on torch and lets torch itself normalise batches.

    Keras 3.15 copies pictures to channels-first and back around each convolution and pool, and
    normalises batches step by step in float32. Without that, training on a CPU takes half the
    time (tests/benchmarks/bench_training.py) and gives the same results, but for the moving
    variance: torch's is the unbiased estimate. Apple's GPUs cannot do without the copies. On
    other backends nothing changes, and at the end Keras is as it was.

    Example:
        >>> with channels_last():
        ...     pass
    """
    if keras.backend.backend() != "torch":
        yield
        return
    from keras.src.backend.torch import nn
    from torch.nn import functional

    permute: Any = getattr(nn, "_transpose_spatial_inputs", None)
    normalise = keras.layers.BatchNormalization.call

    def fits(x):
        return x.ndim == 4 and x.is_floating_point() and x.device.type != "mps"

    def view(x):
        return x.permute(0, 3, 1, 2) if fits(x) else permute(x)

    def call(self, inputs, training=None, mask=None):
        learning = bool(training and self.trainable)
        usual = self.axis in (-1, 3) and self.center and self.scale and not self.synchronized
        special = mask is not None or getattr(self, "renorm", False)
        alone = learning and inputs.numel() == inputs.shape[-1]
        if not fits(inputs) or not usual or special or alone:
            return normalise(self, inputs, training=training, mask=mask)
        weights = (self.moving_mean, self.moving_variance, self.gamma, self.beta)
        x = functional.batch_norm(
            inputs.permute(0, 3, 1, 2),
            *(weight.value for weight in weights),
            training=learning,
            momentum=1 - self.momentum,
            eps=self.epsilon,
        )
        return x.permute(0, 2, 3, 1)

    with (
        patch.object(keras.layers.BatchNormalization, "call", call),
        patch.object(nn, "_transpose_spatial_inputs", view, create=True),  # a later Keras has none
    ):
        yield
