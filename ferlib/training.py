"""Training: a recipe in, a run directory out, and a killed run continues where it stopped.

Everything random in an epoch (order, augmentation, mixup, dropout) follows from the recipe's seed
and the epoch's number, and every epoch ends with a checkpoint that appears whole or not at all.
So a training that is started again replays the unfinished epoch and ends as it would have ended:
bit for bit on a CPU.
"""

import contextlib
import dataclasses
import datetime
import hashlib
import io
import json
import os
import platform
import shutil
import sys
import time
import zipfile
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any, Self

import numpy as np

from ferlib import batches, cleaning, files, models, torch_layout, zoo
from ferlib.backend import keras
from ferlib.faces import FERData
from ferlib.labels import EMOTIONS
from ferlib.recipes import Recipe

ops = keras.ops


def train(
    recipe: Recipe,
    data: FERData,
    out: str | Path,
    *,
    devices: str = "one",
    overwrite: bool = False,
    callbacks: Iterable[keras.callbacks.Callback] = (),
    verbose: bool = True,
) -> keras.Model:
    """Trains a model, or continues a training that was stopped.

    Writes into `out`: `model.keras`, `history.csv` (a row an epoch), `recipe.json`,
    `metrics.json`, and `state/` with the last epoch's checkpoint. Where `out` already holds the
    finished training of this recipe on this data, the model is only loaded.

    Args:
        recipe: A `Recipe`.
        data: A `FERData` with the splits train and val. Nothing else is looked at.
        out: The folder of the run.
        devices: "one", or on JAX "all": each batch is shared among all devices of this process, or
            of all the processes that `KERAS_DISTRIBUTION_JOB_ADDRESSES`,
            `KERAS_DISTRIBUTION_NUM_PROCESSES` and `KERAS_DISTRIBUTION_PROCESS_ID` speak of (see
            `keras.distribution.initialize`). They share `out`, and process 0 writes there.
        overwrite: Whether a training of another recipe or other data in `out` is replaced.
        callbacks: Keras's callbacks, such as `keras.callbacks.TensorBoard(folder)`. They are
            called after the epoch's checkpoint is written; what they remember is not in it.
        verbose: Whether progress is shown.

    Returns:
        The trained model, with the last epoch's weights (their moving average under `ema`).

    Raises:
        FileExistsError: If `out` holds another training and `overwrite` is not set.
        FileNotFoundError: If a model that the recipe builds on is not there.
        ValueError: If the data has no pictures to train on or none to validate on, or the recipe
            does not fit the data's classes or cannot be shared among the devices, or the backend
            cannot compute in its precision on this processor.
        FloatingPointError: If the loss is no longer a number.
        RuntimeError: If another process trains in `out`, or if one of this training has ended
            (CPU: at once; GPU: within two minutes, when JAX itself ends this process with a
            message).

    Example:
        >>> import tempfile
        >>> from ferlib import drawn, recipes
        >>> recipe = recipes.find("quick").replace(options={"widths": [8]}, epochs=1)
        >>> with tempfile.TemporaryDirectory() as out:
        ...     train(recipe, drawn.draw(70), out, verbose=False).output_shape
        (None, 7)
    """
    out = Path(out)
    spread = Spread.over(devices)
    _check_precision(recipe.precision)
    with _claim(out, recipe, data, overwrite, spread):
        if (out / "model.keras").exists():
            return _finished(recipe, out)
        with torch_layout.channels_last(), spread.scope(), spread.advice():
            model, history = _fit(recipe, data, out, spread, callbacks, verbose)
        return _finish(model, recipe, data, out, history, spread)


def _fit(recipe, data, out, spread, callbacks, verbose):
    """Trains in a folder that has been claimed; gives the model and the rows of its history."""
    held_out = data.of("val")
    feed = _feed(recipe, data, spread)
    if not len(held_out):
        raise ValueError(f"{data.origin} has no pictures in val.")
    model, learner = _learner(recipe, data, len(feed), spread)
    checkpoint = _Checkpoint(out, model, spread)
    done = checkpoint.restore(learner)
    ours = [_Seeds(feed, recipe.seed), checkpoint]
    if recipe.ema:
        ours.insert(0, keras.callbacks.SwapEMAWeights())
    if verbose and not spread.process:
        if done:
            print(f"continues after epoch {done} of {recipe.epochs} in {out}", flush=True)
        ours.append(Progress(len(feed.images)))
    classes = len(data.classes)
    weights = None
    if recipe.class_weights:
        weights = batches.class_weights(data.of("train").labels, classes=classes)
    wanted = batches.targets(held_out.labels, classes=classes)
    learner.fit(
        feed,
        epochs=recipe.epochs,
        initial_epoch=done,
        shuffle=False,
        validation_data=spread.share(np.asarray(held_out.images)[..., None], wanted),
        validation_batch_size=spread.share_of(256),
        class_weight=weights,
        callbacks=[*ours, *callbacks],
        verbose=0,
    )
    model.optimizer = None
    return model, checkpoint.history


def seconds_per_epoch(recipe: Recipe, data: FERData) -> float:
    """Estimates how long an epoch will take here, without validation, from a few batches.

    Args:
        recipe: The recipe.
        data: Its data.

    Returns:
        Seconds; what comes once, such as tracing the network, is left out.
    """
    spread = Spread()
    feed = _feed(recipe, data, spread)
    _, learner = _learner(recipe, data, len(feed), spread)
    with torch_layout.channels_last():
        learner.train_on_batch(*feed[0])
        started = time.perf_counter()
        for number in range(3):
            learner.train_on_batch(*feed[number % len(feed)])
    return (time.perf_counter() - started) / 3 * len(feed)


# ---- several devices ---------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Spread:
    """What a training is spread over.

    Args:
        devices: How many there are, in all processes.
        process: Number of this process.
        processes: How many there are.
    """

    devices: int = 1
    process: int = 0
    processes: int = 1

    @classmethod
    def over(cls, devices: str) -> Self:
        """Finds the devices, and first waits for the other processes, where there are any."""
        if devices == "one":
            return cls()
        if devices != "all":
            raise ValueError(f'devices is {devices!r}; it must be "one" or "all".')
        if keras.backend.backend() != "jax":
            raise ValueError(
                "Several devices share a training on JAX alone: set KERAS_BACKEND=jax, or "
                'devices to "one".'
            )
        import jax

        several = "KERAS_DISTRIBUTION_NUM_PROCESSES" in os.environ
        if several and not jax.distributed.is_initialized():
            keras.distribution.initialize()
        return cls(jax.device_count(), jax.process_index(), jax.process_count())

    def scope(self) -> contextlib.AbstractContextManager:
        """Gives the context in which models are built, so that all devices have a copy."""
        if self.devices == 1:
            return contextlib.nullcontext()
        return keras.distribution.DataParallel(auto_shard_dataset=False).scope()

    def share_of(self, size: int) -> int:
        """Gives this process's part of a batch of about so many pictures."""
        return max(size // self.devices, 1) * self.devices // self.processes

    def share(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        """Gives this process's rows, as many on each device; rows that fill up weigh nothing."""
        if self.devices == 1:
            return arrays
        count = len(arrays[0])
        rows = np.arange(-(-count // self.devices) * self.devices)
        weights = np.where(rows < count, len(rows) / count, 0).astype("float32")
        mine = slice(self.process, None, self.processes)
        return *(x[rows[mine] % count] for x in arrays), weights[mine]

    def agree(self, done: int, out: Path) -> None:
        """Waits for all processes, and refuses to continue where they see other checkpoints."""
        if self.processes > 1:
            from jax.experimental import multihost_utils

            if np.ptp(multihost_utils.process_allgather(np.array(done))):
                raise ValueError(f"{out} must be one folder that all processes share.")

    @contextlib.contextmanager
    def advice(self) -> Generator[None]:
        """Says what to do where this process fails because another has ended."""
        try:
            yield
        except (RuntimeError, ValueError) as error:  # JAX raises either where a connection breaks
            if self.processes == 1:
                raise
            raise RuntimeError(
                f"Process {self.process} of {self.processes} cannot continue "
                f"({str(error).splitlines()[0]}). If another process has ended, start all of them "
                "again: they continue after the last epoch."
            ) from error


def _accelerators():
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

    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]


# ---- the folder --------------------------------------------------------------------------


def _built_on(recipe):
    """Names the trained models that a recipe builds on, by what they are to it."""
    names = {"init": recipe.init} if recipe.init else {}
    for number, teacher in enumerate(recipe.teachers, 1):
        names[f"teacher {number}"] = teacher
    return names


def _identity(recipe, data):
    """Gives all that decides what a training makes; None for the content of a missing file."""
    identity = dataclasses.asdict(recipe.replace(init="", teachers=()))
    identity |= {"data": data.fingerprint, "classes": data.classes}
    contents = dict.fromkeys(_built_on(recipe))
    for role, name in _built_on(recipe).items():
        with contextlib.suppress(FileNotFoundError):
            contents[role] = zoo.find(name).read_bytes()
    weights = Path(recipe.options.get("weights", ""))
    if weights.suffix:
        contents["weights"] = weights.read_bytes() if weights.is_file() else None
    if recipe.ferplus_weight and data.votes is not None:
        contents["the votes"] = data.votes.tobytes()
    for role, content in contents.items():
        digest = hashlib.sha256(content).hexdigest()[:16] if content else None
        identity[f"content of {role}"] = digest
    return json.loads(json.dumps(identity))


def _claim(out, recipe, data, overwrite, spread):
    """Makes `out` the folder of this recipe on this data, and locks it unless it is finished."""
    path = out / "state" / "identity.json"
    new = _identity(recipe, data)
    old = files.read_json(path) if path.exists() else {}
    missing = [name for name in new if name.startswith("content of ") and new[name] is None]
    changed = []
    for name in [*new, *(old.keys() - new.keys())]:
        before, now = old.get(name), new.get(name)
        if before != now and name not in missing:
            changed.append(f"{name} {before!r} -> {now!r}")
    finished = (out / "model.keras").exists()
    if finished and not changed:
        return contextlib.nullcontext()
    for name in _built_on(recipe).values():
        zoo.find(name)  # raises where it is missing
    if old and changed and not overwrite:
        raise FileExistsError(
            f"{out} holds another training ({'; '.join(changed)}). "
            "Give another folder, or remove this one."
        )
    if finished and not old and not overwrite:
        raise FileExistsError(f"{out} holds a model that this training did not make.")
    held = contextlib.nullcontext() if spread.process else files.hold(out, wait=5)
    if changed:
        shutil.rmtree(out / "state", ignore_errors=True)
        (out / "model.keras").unlink(missing_ok=True)
        recipe.to_json(out / "recipe.json")
        files.write_json(path, new, sealed=True)
    return held


def _finish(model, recipe, data, out, history, spread):
    """Writes metrics and the model with its card, and drops the checkpoint."""
    if recipe.precision != "float32" or spread.devices > 1:
        trained = model
        model = models.build(recipe.model, classes=len(data.classes), **recipe.options)
        model.set_weights(trained.get_weights())
    if spread.process:
        spread.agree(len(history), out)  # waits until process 0 has written
        return model
    metrics = {
        "val_accuracy": history[-1]["val_accuracy"],
        "val_loss": history[-1]["val_loss"],
        "epochs": len(history),
        "seconds": sum(row["seconds"] for row in history),
        "parameters": model.count_params(),
    }
    card = _card(recipe, data, metrics, spread)
    seen = cleaning.picture_hashes(data.of("train").images)
    for name in _built_on(recipe).values():
        card.setdefault("built on", {})[name] = zoo.read_card(name)
        before = zoo.read_seen(name)
        if before is not None:
            seen = np.union1d(seen, before)
    files.write_json(out / "metrics.json", metrics)
    files.write_json(out / "state" / "history.json", {"rows": history}, sealed=True)
    zoo.save(model, out / "model.keras", card=card, seen=seen)
    for checkpoint in (out / "state").glob("epoch-*"):
        checkpoint.unlink(missing_ok=True)
    spread.agree(len(history), out)
    return model


def _finished(recipe, out):
    """Loads a finished model, and makes again what a damaged disk has changed beside it."""
    model, kept = zoo.load(out / "model.keras"), out / "state" / "history.json"
    if kept.exists():
        history = files.read_json(kept)["rows"]
        with contextlib.suppress(files.Unwritable):
            recipe.to_json(out / "recipe.json")
            files.write_json(out / "metrics.json", zoo.read_card(out / "model.keras")["training"])
            _write_history(out, history)
    return model


def _write_history(out, history):
    import pandas as pd

    files.write(out / "history.csv", pd.DataFrame(history).to_csv(index=False))


def _card(recipe, data, metrics, spread):
    """Gives what is known of a training, as JSON holds it."""
    backend = keras.backend.backend()
    hardware = [platform.machine(), f"{os.cpu_count()} CPU cores"]
    hardware += _accelerators()[: spread.devices]
    return {
        "recipe": dataclasses.asdict(recipe),
        "classes": list(data.classes),
        "data": {
            "title": data.title,
            "fingerprint": data.fingerprint,
            "pictures": {split: len(data.of(split)) for split in data.splits},
            "shares": _shares(recipe, data),
        },
        "training": metrics,
        "backend": backend,
        "versions": {
            "python": platform.python_version(),
            "keras": keras.__version__,
            backend: sys.modules[backend].__version__,
        },
        "hardware": ", ".join(hardware),
        "devices": spread.devices,
        "date": datetime.date.today().isoformat(),
    }


def _shares(recipe, data):
    """Gives the share of each class in what is learned: of the targets, weighed as they are."""
    train = data.of("train")
    shares = _targets(recipe, train).mean(axis=0)
    if recipe.class_weights:
        weights = batches.class_weights(train.labels, classes=len(data.classes))
        shares = shares * np.array(list(weights.values()))
    shares = shares / shares.sum()
    return {name: round(float(share), 6) for name, share in zip(data.classes, shares, strict=True)}


# ---- what learns -------------------------------------------------------------------------


def _feed(recipe, data, spread):
    """Gives the batches of a training."""
    pictures = data.of("train")
    if not len(pictures):
        raise ValueError(f"{data.origin} has no pictures in train.")
    if recipe.ferplus_weight and data.classes[: len(EMOTIONS)] != EMOTIONS:
        raise ValueError("ferplus_weight: FER+'s votes speak of FER2013's classes alone.")
    for name in _built_on(recipe).values():
        card = zoo.read_card(name)
        if card and tuple(card.get("classes", EMOTIONS)) != data.classes:
            raise ValueError(f"{name} knows other classes than {', '.join(data.classes)}.")
    size = min(recipe.batch_size, len(pictures))
    if size % spread.devices:
        raise ValueError(
            f"A batch of {size} pictures cannot be shared evenly among {spread.devices} devices: "
            "change batch_size."
        )
    return batches.Batches(
        pictures.images,
        _targets(recipe, pictures),
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        mixup=recipe.mixup,
        part=(spread.process, spread.processes),
    )


def _targets(recipe, pictures):
    """Gives the distributions that pictures are learned towards."""
    return batches.targets(
        pictures.labels,
        pictures.votes,
        classes=pictures.classes,
        ferplus_weight=recipe.ferplus_weight,
    )


def _learner(recipe, data, steps, spread):
    """Builds the model, and around it what is trained: augmentation, teachers, loss."""
    _make_deterministic()
    keras.utils.set_random_seed(recipe.seed)
    model = _build(recipe, len(data.classes))
    images = keras.Input(model.input_shape[1:], dtype=model.inputs[0].dtype)
    changed = images
    if recipe.augmentation:
        changed = batches.Augmenter(recipe.augmentation)(images)
    answers = model(changed)
    if recipe.teachers:
        answers = _Taught(recipe)(answers, changed)
    learner = keras.Model(images, answers)
    # Rows that fill up a batch of val for several devices weigh nothing.
    metrics = "metrics" if spread.devices == 1 else "weighted_metrics"
    learner.compile(
        optimizer=_optimizer(recipe, steps),
        loss=_loss(recipe, len(data.classes)),
        **{metrics: [accuracy]},
    )
    if keras.backend.backend() == "tensorflow":
        _make_variables(learner, len(data.classes))
    model.optimizer = learner.optimizer  # a checkpoint is of these two, without teachers
    return model, learner


def _make_variables(learner, classes):
    """Makes those of optimizer and metrics, which would have TensorFlow trace the step twice."""
    learner.optimizer.build(learner.trainable_variables)
    some = keras.ops.zeros((1, classes))
    learner.compute_metrics(None, some, some)
    learner.reset_metrics()


def _make_deterministic():
    """Makes TensorFlow repeat itself on a CPU; other backends do so by themselves."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if not tf.config.list_physical_devices("GPU"):
            tf.config.experimental.enable_op_determinism()


def _check_precision(precision):
    """Refuses what this processor cannot compute, before anything is written."""
    dtype = keras.DTypePolicy(precision).compute_dtype
    try:
        keras.ops.conv(keras.ops.zeros((1, 8, 8, 1), dtype), keras.ops.zeros((3, 3, 1, 1), dtype))
    except Exception as error:
        raise ValueError(
            f"{keras.backend.backend()} cannot compute in {dtype} on this processor: "
            "take precision=float32, or another backend (KERAS_BACKEND=torch or jax)."
        ) from error


def _build(recipe, classes):
    """Builds the model with its first weights."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(recipe.precision)
    try:
        model = models.build(recipe.model, classes=classes, **recipe.options)
    finally:
        keras.config.set_dtype_policy(policy)
    if recipe.init:
        first = zoo.load(recipe.init).get_weights()
        if [w.shape for w in first] != [w.shape for w in model.get_weights()]:
            raise ValueError(f"The weights of {recipe.init} are not those of {recipe.model}.")
        model.set_weights(first)
    return model


class _Taught(keras.layers.Layer):
    """Puts beside a model's answers, in training, the mean of its teachers' to the same pictures.

    Keras's own Distiller, which Keras 3.11 lacks, would ask teachers about the unchanged picture.

    Args:
        recipe: Names the teachers, whether they answer the mirror image too, and the dtype policy
            in which they answer.

    Returns:
        From a call: float32 [N, 2 * classes] in training, else the model's answers alone.
    """

    def __init__(self, recipe):
        super().__init__()
        self.flip = recipe.teacher_flip
        self.teachers = []
        for number, teacher in enumerate(recipe.teachers):
            with keras.name_scope(f"teacher_{number}"):  # else torch mixes up layers of one name
                self.teachers.append(zoo.load(teacher))
        self.trainable = False
        for layer in self._flatten_layers(include_self=False):
            if layer.name not in ("logits", "probabilities"):
                layer.dtype_policy = recipe.precision

    def call(self, answers, images, training=False):
        if not training:
            return answers
        views = [images, ops.flip(images, axis=2)] if self.flip else [images]
        taught = [teacher(view, training=False) for teacher in self.teachers for view in views]
        return ops.concatenate([answers, ops.stop_gradient(sum(taught) / len(taught))], axis=-1)


def _loss(recipe, classes):
    """Gives the loss of answers [N, classes], or of answers with their teachers' beside them."""
    entropy = keras.losses.categorical_crossentropy

    def loss(wanted, answers):
        smoothing = recipe.label_smoothing
        if answers.shape[-1] == classes:  # of these, Keras finds the logits
            return entropy(wanted, answers, label_smoothing=smoothing)
        own = answers[:, :classes]
        labelled = entropy(wanted, own, label_smoothing=smoothing)
        taught = entropy(answers[:, classes:], own)
        return (1 - recipe.teacher_weight) * labelled + recipe.teacher_weight * taught

    return loss


def accuracy(wanted: Any, answers: Any) -> Any:
    """Says which answers are right; Keras names the metric after this function."""
    return keras.metrics.categorical_accuracy(wanted, answers[:, : wanted.shape[-1]])


def _optimizer(recipe, steps):
    """Gives the optimizer of a recipe, for epochs of so many batches."""
    options = {"learning_rate": recipe.learning_rate, "weight_decay": recipe.weight_decay or None}
    if recipe.schedule == "cosine":
        warmup = int(recipe.warmup_epochs * steps)
        options["learning_rate"] = keras.optimizers.schedules.CosineDecay(
            recipe.learning_rate / 100 if warmup else recipe.learning_rate,
            max(recipe.epochs * steps - warmup, 1),
            warmup_target=recipe.learning_rate if warmup else None,
            warmup_steps=warmup,
        )
    if recipe.ema:
        options |= {"use_ema": True, "ema_momentum": recipe.ema}
    if recipe.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(momentum=0.9, nesterov=True, **options)
    else:  # Keras's Adam decays weights as AdamW does
        optimizer = keras.optimizers.Adam(**options)
    if recipe.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


# ---- callbacks ---------------------------------------------------------------------------


class _Seeds(keras.callbacks.Callback):
    """Makes all that is random in an epoch follow from the seed and the epoch's number."""

    def __init__(self, feed, seed):
        super().__init__()
        self.feed = feed
        self.seed = seed

    def on_epoch_begin(self, epoch, logs: Any = None):
        self.feed.start_epoch(epoch)
        random = [v for v in self.model.variables if v.name == "seed_generator_state"]
        for number, variable in enumerate(random):
            words = np.random.SeedSequence([self.seed, epoch, number]).generate_state(2)
            variable.assign(words.astype(variable.dtype))
        if keras.backend.backend() == "torch":  # there dropout takes torch's own generator
            import torch

            torch.manual_seed(self.seed + epoch)


class _Checkpoint(keras.callbacks.Callback):
    """Writes history and checkpoint after every epoch, each whole or not at all.

    Keras's CSVLogger would keep the row of an epoch that is trained again after a kill, its
    ModelCheckpoint the weights of the frozen teachers; its TerminateOnNaN makes an accelerator
    wait for the loss of every batch.
    """

    def __init__(self, out, model, spread):
        super().__init__()
        self.out = out
        self.trained = model
        self.spread = spread
        self.history = []

    def restore(self, learner):
        """Loads the last checkpoint, if there is one, and gives the number of epochs done."""
        saved = sorted((self.out / "state").glob("epoch-*.npz"))
        if saved:
            learner.optimizer.build(learner.trainable_variables)
            self._read(saved[-1])
        done = len(self.history)
        self.spread.agree(done, self.out)
        return done

    def on_epoch_begin(self, epoch, logs: Any = None):
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs: Any = None):
        if not np.isfinite(logs["loss"] + logs["val_loss"]):
            raise FloatingPointError(
                f"The loss is {logs['loss']}, on val {logs['val_loss']}, after epoch {epoch + 1} "
                f"in {self.out}: a lower learning_rate, or a longer warm-up, may help."
            )
        row = {"epoch": epoch + 1} | {name: float(value) for name, value in logs.items()}
        row["learning_rate"] = float(ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row["seconds"] = time.perf_counter() - self.started
        self.history.append(row)
        self._save(epoch + 1)

    def _save(self, done):
        path = self.out / "state" / f"epoch-{done:04}.npz"
        values = [_storable(variable) for variable in self._variables()]  # in every process
        if self.spread.process:
            return
        made = io.BytesIO()  # HDF5 ends the process where the disk fills while it writes
        np.savez(made, *values, history=json.dumps(self.history))
        files.write(path, files.seal(made.getvalue()))
        _write_history(self.out, self.history)
        for old in path.parent.glob("epoch-*"):
            if old != path:
                old.unlink()

    def _read(self, path):
        files.check(path)
        try:
            with np.load(path, allow_pickle=False) as saved:
                self.history = json.loads(str(saved["history"]))
                for number, variable in enumerate(self._variables()):
                    variable.assign(saved[f"arr_{number}"])
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise files.damaged(path) from error

    def _variables(self):
        return [*self.trained.variables, *self.trained.optimizer.variables]


def _storable(variable):
    """Gives the value of a variable in a type that numpy knows."""
    value = ops.convert_to_numpy(variable)
    return value.astype("float32") if value.dtype.kind == "V" else value  # bfloat16


class Progress(keras.callbacks.Callback):
    """Shows how far any `fit` is, and how long it still takes.

    In a terminal and in an open notebook that is a bar. Elsewhere, as in the log of a notebook
    that runs headless, it is a line at least every 20 seconds, validation included. A line at the
    end of each epoch gives its results.

    Args:
        pictures: Pictures in an epoch.

    Example:
        >>> progress = Progress(28709)  # then: model.fit(..., verbose=0, callbacks=[progress])
    """

    params: Any  # of `fit`, as Keras sets them
    async_safe = True  # else Keras waits for a GPU after every batch, only to move the bar

    def __init__(self, pictures: int):
        super().__init__()
        self.pictures = pictures

    def on_train_begin(self, logs: Any = None) -> None:
        self.batch = self.pictures // self.params["steps"]
        self.bar: Any = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.started = time.monotonic()
        self.name = f"epoch {epoch + 1}/{self.params['epochs']}"
        each = self.batch * self.params["steps"]
        if self.bar is None:
            total = each * self.params["epochs"]
            start = each * epoch
            self.bar = _bar(desc=f"{self.name}: ", total=total, initial=start, unit=" pictures")
        self.bar.set_description(self.name, refresh=False)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.bar.update(self.batch)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self.bar.update(0)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        results = [self.name]
        for name, value in logs.items():
            form = ".1%" if name.endswith("accuracy") else ".3f"
            results.append(f"{name.replace('_', ' ')} {value:{form}}")
        results.append(f"{time.monotonic() - self.started:.0f} s")
        self.bar.write("  ".join(results), file=sys.stdout)
        sys.stdout.flush()

    def on_train_end(self, logs: Any = None) -> None:
        if self.bar is not None:  # None where all epochs were done before
            self.bar.close()


PAUSE = 20
"""Most seconds from one line of a log to the next."""


def _bar(**options):
    """Makes a bar where somebody watches it, else lines of a log."""
    from tqdm import auto, std

    options["unit_scale"] = True  # 537 or 1.74k a second, without decimals
    if _is_watched():
        return auto.tqdm(**options, leave=False)
    form = "training {desc}{percentage:.0f}% done, {rate_noinv_fmt}, {remaining} left"
    return std.tqdm(
        **options, bar_format=form, file=_Log(), mininterval=PAUSE, miniters=0, leave=False
    )


def _is_watched():
    """Says whether this is a terminal, or a notebook that is open: papermill cannot answer."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if kernel := getattr(shell, "kernel", None):
        return kernel._allow_stdin
    return sys.stderr is not None and sys.stderr.isatty()


class _Log(io.TextIOBase):
    """Turns what tqdm draws into lines."""

    def write(self, text):
        unknown = ", ? pictures/s, ? left"  # before the first batch
        line = text.strip().replace(unknown, "")
        if line:
            print(line, flush=True)
