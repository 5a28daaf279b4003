"""Training: a recipe in, a run directory out, and a killed run goes on where it stopped.

Everything random in an epoch (order, augmentation, mixup, dropout) follows from the recipe's seed
and the epoch's number, and every epoch ends with a checkpoint that appears whole or not at all.
So a training that is started again replays the unfinished epoch and ends as it would have ended:
bit for bit on a CPU.
"""

import contextlib
import dataclasses
import datetime
import hashlib
import json
import os
import pathlib
import platform
import shutil
import sys
import time

import numpy as np

from ferlib import batches, cleaning, files, models, zoo
from ferlib.backend import keras
from ferlib.devices import Spread, accelerators
from ferlib.labels import EMOTIONS

ops = keras.ops


def train(
    recipe,
    data,
    out,
    *,
    devices="one",
    overwrite=False,
    on_epoch=None,
    tensorboard=None,
    verbose=True,
) -> keras.Model:
    """Trains a model, or goes on with a training that was stopped.

    Writes into `out`: `model.keras`, `history.csv` (a row an epoch), `recipe.json`,
    `metrics.json`, and `state/` with the last epoch's checkpoint. Where `out` already holds the
    finished training of this recipe on this data, the model is only loaded.

    Where only the classifier of a transfer model is trained, on pictures that are not changed,
    its features are computed once, kept in `out/features`, and trained on instead.

    Args:
        recipe: A `Recipe`.
        data: A `FERData` with the splits train and val. Nothing else is looked at.
        out: The folder of the run.
        devices: "one", or "all": each batch is shared among all GPUs (without any, CPU devices) of
            this process, and on JAX of all the processes that `KERAS_DISTRIBUTION_JOB_ADDRESSES`,
            `KERAS_DISTRIBUTION_NUM_PROCESSES` and `KERAS_DISTRIBUTION_PROCESS_ID` speak of (see
            `keras.distribution.initialize`). They share `out`, and process 0 writes there.
        overwrite: Whether a training of another recipe or other data in `out` is replaced.
        on_epoch: Called after every epoch with the history so far, a DataFrame.
        tensorboard: A folder for TensorBoard's logs; None writes none.
        verbose: Whether a line is printed for each epoch.

    Returns:
        The trained model, with the last epoch's weights (their moving average under `ema`).

    Raises:
        FileExistsError: If `out` holds another training and `overwrite` is not set.
        ValueError: If the data has no pictures to train on or none to validate on, or the recipe
            cannot be shared among the devices.
        FloatingPointError: If the loss is no longer a number.
        RuntimeError: If another process trains in `out`, or if one of this training has ended
            (CPU: at once; GPU: within two minutes, when JAX itself ends this process with a
            message).
    """
    out = pathlib.Path(out)
    spread = Spread.over(devices)
    with _claim(out, recipe, data, overwrite, spread):
        if (out / "model.keras").exists():
            return zoo.load(out / "model.keras")
        return _train(recipe, data, out, spread, on_epoch, tensorboard, verbose)


def _train(recipe, data, out, spread, on_epoch, tensorboard, verbose):
    """Trains in a folder that has been claimed."""
    pictures, held_out = data.of("train"), data.of("val")
    if not len(pictures) or not len(held_out):
        raise ValueError(f"{data.origin} has no pictures in train or none in val.")

    spread.check(recipe, min(recipe.batch_size, len(pictures)))
    _make_deterministic()
    verbose = verbose and not spread.process
    wanted = batches.targets(pictures.labels, pictures.votes, ferplus_weight=recipe.ferplus_weight)
    keras.utils.set_random_seed(recipe.seed)
    with spread.scope, spread.telling_of_losses():
        model = learned = _build(recipe)
        inputs = pictures.images, np.asarray(held_out.images)[..., None]
        if recipe.head_only:
            body, learned = models.features_and_head(model)
            inputs = [_features(body, x, recipe, out, verbose) for x in inputs]
        feed = batches.Batches(
            inputs[0],
            wanted,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            mixup=recipe.mixup,
            part=(spread.process, spread.processes),
        )
        learner = _compile(learned, recipe, len(feed), spread)
        state = _State(out, feed, recipe, spread, on_epoch=on_epoch, verbose=verbose)
        callbacks = [keras.callbacks.SwapEMAWeights()] if recipe.ema else []
        if tensorboard and not spread.process:
            callbacks.append(keras.callbacks.TensorBoard(pathlib.Path(tensorboard) / out.name))
        learner.fit(
            feed,
            epochs=recipe.epochs,
            initial_epoch=spread.agree(state.restore(learner), out),
            shuffle=False,
            validation_data=spread.share(inputs[1], batches.targets(held_out.labels)),
            validation_batch_size=spread.share_of(256),
            class_weight=batches.class_weights(pictures.labels) if recipe.class_weights else None,
            callbacks=[*callbacks, state],
            verbose=0,
        )
    return _finish(model, recipe, data, out, state.history, spread)


def _identity(recipe, data):
    """Gives all that decides what a training makes, as JSON reads it back."""
    contents = {}
    for name in _borrowed(recipe):
        try:
            contents[name] = zoo.find(name).read_bytes()
        except FileNotFoundError as error:
            raise FileNotFoundError(f"This recipe builds on another training. {error}") from error
    if pathlib.Path(weights := str(recipe.options.get("weights"))).is_file():
        contents[weights] = pathlib.Path(weights).read_bytes()
    if recipe.ferplus_weight and data.votes is not None:
        contents["the votes"] = data.votes.tobytes()
    identity = {"recipe": dataclasses.asdict(recipe), "data": data.fingerprint}
    for name, content in contents.items():
        identity[f"content of {name}"] = hashlib.sha256(content).hexdigest()[:16]
    return json.loads(json.dumps(identity))


def _claim(out, recipe, data, overwrite, spread):
    """Makes `out` the folder of this recipe on this data, and locks it unless it is finished."""
    identity = _identity(recipe, data)
    path = out / "state" / "identity.json"
    there = json.loads(path.read_text()) if path.exists() else None
    finished = (out / "model.keras").exists()
    if finished and there == identity:
        return contextlib.nullcontext()
    if there and there != identity and not overwrite:
        old, new = (x | x["recipe"] | {"recipe": ""} for x in (there, identity))
        changed = [f"{k} {old.get(k)!r} -> {new.get(k)!r}" for k in new if old.get(k) != new[k]]
        raise FileExistsError(
            f"{out} holds another training ({'; '.join(changed)}). "
            "Give another folder, or remove this one."
        )
    if finished and not there and not overwrite:
        raise FileExistsError(f"{out} holds a model that this training did not make.")
    held = contextlib.nullcontext() if spread.process else files.hold(out, wait=5)
    if there == identity:
        return held
    if there:
        shutil.rmtree(out / "state")
    (out / "model.keras").unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    recipe.to_json(out / "recipe.json")
    files.write(path, json.dumps(identity))
    return held


def _borrowed(recipe):
    """Names the trained models that a recipe builds on."""
    return [recipe.init] * bool(recipe.init) + list(recipe.teachers)


def _make_deterministic():
    """Makes TensorFlow repeat itself on a CPU; other backends do so by themselves."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if not tf.config.list_physical_devices("GPU"):
            tf.config.experimental.enable_op_determinism()


def _build(recipe):
    """Builds the model with its first weights."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(recipe.precision)
    try:
        model = models.build(recipe.model, **recipe.options)
    finally:
        keras.config.set_dtype_policy(policy)
    if recipe.init:
        first = zoo.load(recipe.init).get_weights()
        if [w.shape for w in first] != [w.shape for w in model.get_weights()]:
            raise ValueError(f"The weights of {recipe.init} are not those of {recipe.model}.")
        model.set_weights(first)
    return model


def _features(body, images, recipe, out, verbose):
    """Computes what a frozen backbone makes of pictures; float32 [N, D], memory-mapped."""
    from tqdm import tqdm

    kind = recipe.options | {"dropout": 0, "precision": recipe.precision}
    key = hashlib.sha256(json.dumps(kind, sort_keys=True).encode())
    for part in (cleaning.picture_hashes(images), *body.get_weights()):
        key.update(part.tobytes())
    path = out / "features" / f"{key.hexdigest()[:16]}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name("unfinished.npy")
        starts = tqdm(range(0, len(images), 512), "batches of features", disable=not verbose)
        parts = (images[start : start + 512].reshape(-1, *body.input_shape[1:]) for start in starts)
        made = [body.predict(part, batch_size=64, verbose=0) for part in parts]
        np.save(unfinished, np.concatenate(made))
        os.replace(unfinished, path)
    return np.load(path, mmap_mode="r")


def _compile(model, recipe, steps, spread):
    """Puts augmentation before a model, and gives it optimizer and loss."""
    images = keras.Input(model.input_shape[1:], dtype=model.inputs[0].dtype)
    changed = batches.Augmenter(recipe.augmentation)(images) if recipe.augmentation else images
    answers = model(changed)
    if recipe.teachers:
        answers = _Taught(recipe.teachers, recipe.precision)(answers, changed)
    learner = keras.Model(images, answers)

    rate = recipe.learning_rate
    if recipe.schedule == "cosine":
        warmup, total = int(recipe.warmup_epochs * steps), recipe.epochs * steps
        rate = keras.optimizers.schedules.CosineDecay(
            rate / 100 if warmup else rate,
            max(total - warmup, 1),
            warmup_target=rate if warmup else None,
            warmup_steps=warmup,
        )
    common = {"learning_rate": rate, "weight_decay": recipe.weight_decay or None}
    if recipe.ema:
        common |= {"use_ema": True, "ema_momentum": recipe.ema}
    if recipe.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(momentum=0.9, nesterov=True, **common)
    else:  # Keras's Adam decays weights as AdamW does
        optimizer = keras.optimizers.Adam(**common)
    if recipe.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    kind = "metrics"
    if spread.devices > 1:
        kind = "weighted_metrics"  # leaves out the rows that fill up
        for layer in learner._flatten_layers():
            if hasattr(layer, "synchronized") and keras.backend.backend() == "tensorflow":
                layer.synchronized = True  # statistics of the whole batch, as JAX has them
    learner.compile(optimizer=optimizer, loss=_loss(recipe), **{kind: [accuracy]})
    return learner


class _Taught(keras.layers.Layer):
    """Puts beside a model's answers, in training, the mean of its teachers' to the same pictures.

    Keras's own Distiller, which Keras 3.11 lacks, would ask teachers about the unchanged picture.

    Args:
        teachers: Trained models.
        precision: Dtype policy in which they answer.

    Returns:
        From a call: float32 [N, 14] in training, else the model's answers alone [N, 7].
    """

    def __init__(self, teachers, precision):
        super().__init__()
        self.teachers = []
        for number, teacher in enumerate(teachers):
            with keras.name_scope(f"teacher_{number}"):  # else torch mixes up layers of one name
                self.teachers.append(zoo.load(teacher))
        self.trainable = False
        for layer in self._flatten_layers(include_self=False):
            if layer.name not in ("logits", "probabilities"):
                layer.dtype_policy = precision

    def call(self, answers, images, training=False):
        if not training:
            return answers
        taught = [teacher(images, training=False) for teacher in self.teachers]
        return ops.concatenate([answers, ops.stop_gradient(sum(taught) / len(taught))], axis=-1)


def _loss(recipe):
    """Gives the loss of answers [N, 7], or of answers with their teachers' beside them [N, 14]."""

    def entropy(wanted, answers):
        loss, smoothing = keras.losses.categorical_crossentropy, recipe.label_smoothing
        if answers.shape[-1] == len(EMOTIONS):
            return loss(wanted, answers, label_smoothing=smoothing)
        own, taught = answers[:, : len(EMOTIONS)], answers[:, len(EMOTIONS) :]
        labelled = loss(wanted, own, label_smoothing=smoothing)
        return (1 - recipe.teacher_weight) * labelled + recipe.teacher_weight * loss(taught, own)

    return entropy


def accuracy(wanted, answers):
    """Says which answers are right; Keras names the metric after this function."""
    return keras.metrics.categorical_accuracy(wanted, answers[:, : len(EMOTIONS)])


class _State(keras.callbacks.Callback):
    """Seeds every epoch, and after it writes history and checkpoint."""

    async_safe = True  # else Keras waits for a GPU after every batch, only to move the bar

    def __init__(self, out, feed, recipe, spread, *, on_epoch, verbose):
        super().__init__()
        self.out, self.feed, self.recipe, self.spread = out, feed, recipe, spread
        self.on_epoch, self.verbose, self.history = on_epoch, verbose, []

    def restore(self, learner) -> int:
        """Loads the last checkpoint, if there is one, and returns the epoch to go on with."""
        import pandas as pd

        saved = sorted((self.out / "state").glob("epoch-*.weights.h5"))
        if not saved:
            return 0
        learner.optimizer.build(learner.trainable_variables)
        learner.load_weights(saved[-1])
        done = int(saved[-1].name[6:10])
        self.history = pd.read_csv(self.out / "history.csv").to_dict("records")[:done]
        if self.verbose:
            print(f"going on after epoch {done} of {self.recipe.epochs} in {self.out}", flush=True)
        return done

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter()
        self.feed.start_epoch(epoch)
        random = [v for v in self.model.variables if v.name == "seed_generator_state"]
        for number, variable in enumerate(random):
            words = np.random.SeedSequence([self.recipe.seed, epoch, number]).generate_state(2)
            variable.assign(words.astype(variable.dtype))
        if self.verbose and sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=len(self.feed), desc=f"epoch {epoch + 1}", leave=False)

    def on_train_batch_end(self, batch, logs=None):
        if hasattr(self, "bar"):
            self.bar.update()

    def on_epoch_end(self, epoch, logs=None):
        import pandas as pd

        if hasattr(self, "bar"):
            self.bar.close()
        if not np.isfinite(logs["loss"] + logs["val_loss"]):
            raise FloatingPointError(
                f"The loss is {logs['loss']}, on val {logs['val_loss']}, after epoch {epoch + 1} "
                f"in {self.out}: a lower learning_rate, or a longer warm-up, may help."
            )
        rate = float(ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row = {"epoch": epoch + 1, **{k: float(v) for k, v in logs.items()}, "learning_rate": rate}
        row["seconds"] = time.perf_counter() - self.started
        self.history.append(row)
        process = self.spread.process
        path = self.out / "state" / f"epoch-{epoch + 1:04}.weights.h5"
        unfinished = path.with_name(f"unfinished-{process}.weights.h5")
        self.model.save_weights(unfinished, overwrite=True)  # all processes take part in this
        if process:
            unfinished.unlink(missing_ok=True)
            return
        history = pd.DataFrame(self.history)
        files.write(self.out / "history.csv", history.to_csv(index=False))
        os.replace(unfinished, path)
        for old in path.parent.glob("epoch-*.weights.h5"):
            if old != path:
                old.unlink()
        if self.verbose:
            print(
                f"epoch {epoch + 1}/{self.recipe.epochs}  loss {row['loss']:.3f}  "
                f"accuracy {row['accuracy']:.1%}  val loss {row['val_loss']:.3f}  "
                f"val accuracy {row['val_accuracy']:.1%}  {row['seconds']:.0f} s",
                flush=True,
            )
        if self.on_epoch:
            self.on_epoch(history)


def _finish(model, recipe, data, out, history, spread):
    """Writes metrics and the model with its card, and drops the checkpoint."""
    if recipe.precision != "float32" or spread.devices > 1:
        trained, model = model, models.build(recipe.model, **recipe.options)
        model.set_weights(trained.get_weights())
    seen = cleaning.picture_hashes(data.of("train").images)
    metrics = {
        "val_accuracy": history[-1]["val_accuracy"],
        "val_loss": history[-1]["val_loss"],
        "epochs": len(history),
        "seconds": sum(row["seconds"] for row in history),
        "parameters": model.count_params(),
    }
    backend, gpus = keras.backend.backend(), accelerators()[: spread.devices]
    hardware = [platform.machine(), f"{os.cpu_count()} CPU cores", *gpus]
    versions = {"python": platform.python_version(), "keras": keras.__version__}
    card = {
        "recipe": dataclasses.asdict(recipe),
        "data": {
            "title": data.title,
            "fingerprint": data.fingerprint,
            "pictures": {split: len(data.of(split)) for split in data.splits},
        },
        "training": metrics,
        "backend": backend,
        "versions": versions | {backend: sys.modules[backend].__version__},
        "hardware": ", ".join(hardware),
        "devices": spread.devices,
        "date": datetime.date.today().isoformat(),
    }
    if spread.process:
        spread.agree(len(history), out)  # waits until process 0 has written
        return model
    for name in _borrowed(recipe):
        card.setdefault("built on", {})[name] = zoo.read_card(name)
        before = zoo.read_seen(name)
        seen = seen if before is None else np.union1d(seen, before)
    files.write_json(out / "metrics.json", metrics)
    zoo.save(model, out / "model.keras", card=card, seen=seen)
    for checkpoint in (out / "state").glob("*.weights.h5"):
        checkpoint.unlink(missing_ok=True)
    spread.agree(len(history), out)
    return model
