"""What a training is shared among: the devices of a process, and on JAX several processes."""

import contextlib
import dataclasses
import os

import numpy as np

from ferlib.backend import keras


@dataclasses.dataclass(frozen=True)
class Spread:
    """What a training is spread over.

    Args:
        scope: Models built in it are copied to all devices.
        devices: How many there are, in all processes.
        process: Number of this process.
        processes: How many there are.
    """

    scope: contextlib.AbstractContextManager = contextlib.nullcontext()
    devices: int = 1
    process: int = 0
    processes: int = 1

    @classmethod
    def over(cls, devices: str):
        """Finds the devices, and first waits for the other processes, where there are any.

        Args:
            devices: "one" or "all", see `training.train`.

        Raises:
            ValueError: If it is neither, or "all" on a backend that cannot share.
        """
        backend = keras.backend.backend()
        if devices == "one":
            return cls()
        if devices != "all" or backend not in ("tensorflow", "jax"):
            raise ValueError(
                f'devices is {devices!r}; it must be "one", or "all" on TensorFlow or JAX.'
            )
        if backend == "tensorflow":
            import tensorflow as tf

            found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
            scope = tf.distribute.MirroredStrategy([device.name for device in found]).scope()
            return cls(scope, len(found)) if len(found) > 1 else cls()
        import jax

        if "KERAS_DISTRIBUTION_NUM_PROCESSES" in os.environ:
            if not jax.distributed.is_initialized():
                keras.distribution.initialize()
        if jax.device_count() == 1:
            return cls()
        scope = keras.distribution.DataParallel(auto_shard_dataset=False).scope()
        return cls(scope, jax.device_count(), jax.process_index(), jax.process_count())

    def check(self, recipe, batch_size):
        """Refuses what cannot be shared evenly."""
        if self.devices > 1 and recipe.head_only:
            raise ValueError("Only a classifier of features is trained: one device is enough.")
        if batch_size % self.devices:
            raise ValueError(
                f"A batch of {batch_size} pictures cannot be shared evenly among {self.devices} "
                "devices: change batch_size."
            )

    def agree(self, done, out):
        """Refuses to go on where the processes do not see the same checkpoint."""
        if self.processes > 1:
            from jax.experimental import multihost_utils

            if np.ptp(multihost_utils.process_allgather(np.array(done))):
                raise ValueError(f"{out} must be one folder that all processes share.")
        return done

    def share_of(self, size):
        """Gives this process's part of a batch of about so many pictures."""
        return max(size // self.devices, 1) * self.devices // self.processes

    def share(self, *arrays):
        """Gives this process's rows, as many on each device; rows that fill up weigh nothing."""
        if self.devices == 1:
            return arrays
        count = len(arrays[0])
        rows = np.arange(-(-count // self.devices) * self.devices)
        weights = np.where(rows < count, len(rows) / count, 0).astype("float32")
        mine = slice(self.process, None, self.processes)
        return *(x[rows[mine] % count] for x in arrays), weights[mine]

    @contextlib.contextmanager
    def telling_of_losses(self):
        """Says what to do where this process fails because another has ended."""
        try:
            yield
        except (RuntimeError, ValueError) as error:  # JAX raises either where a connection breaks
            if self.processes == 1:
                raise
            raise RuntimeError(
                f"Process {self.process} of {self.processes} cannot go on "
                f"({str(error).splitlines()[0]}). If another process has ended, start all of them "
                "again: they go on after the last epoch."
            ) from error


def accelerators() -> list[str]:
    """Names the GPUs that this process sees, such as "NVIDIA H200"; none where there are none."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        details = tf.config.experimental.get_device_details
        gpus = tf.config.get_visible_devices("GPU")
        return [details(gpu).get("device_name", gpu.name) for gpu in gpus]
    if backend == "jax":
        import jax

        return [device.device_kind for device in jax.local_devices() if device.platform != "cpu"]
    import torch

    return [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
