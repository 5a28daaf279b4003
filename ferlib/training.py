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
import numbers
import os
import pathlib
import platform
import shutil
import sys
import time

import numpy as np

from ferlib import batches, cleaning, files, models
from ferlib.backend import keras
from ferlib.batches import Augmentation
from ferlib.devices import Spread, accelerators
from ferlib.labels import EMOTIONS

ops = keras.ops


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that decides how a model is trained; saved beside every model as `recipe.json`.

    Args:
        model: A name that `models.build` knows.
        options: What its builder takes.
        init: A trained model of the same form (a `.keras` file or a shipped name) whose weights
            are the first; "" begins with the builder's.
        epochs: Passes over the training pictures.
        batch_size: Pictures in a batch.
        optimizer: "adam", "adamw" or "sgd" (Nesterov, momentum 0.9).
        learning_rate: The highest learning rate.
        schedule: "cosine" (down to zero, Loshchilov and Hutter 2016, arXiv:1608.03983) or
            "constant".
        warmup_epochs: Epochs over which a cosine schedule first rises, linearly.
        weight_decay: Decoupled weight decay; biases and normalisation are left out.
        label_smoothing: Share of each target that is spread over all labels; what teachers answer
            is not spread.
        augmentation: How training pictures are changed; None changes nothing.
        mixup: Alpha of mixup; 0 for none.
        ema: Momentum of the moving average of the weights, a step; 0 for none. The average is
            what is validated and saved.
        ferplus_weight: Share of FER+'s votes in the targets.
        teachers: Trained models (`.keras` files or shipped names) whose mean answer to the very
            picture that is learned from, changed and blended, is part of the target (distillation,
            Hinton et al. 2015, arXiv:1503.02531; why the same picture: Beyer et al. 2021,
            arXiv:2106.05237).
        teacher_weight: Their share of the target.
        class_weights: Whether rare labels weigh more.
        seed: Seed of weights, order, augmentation, mixup and dropout.
        precision: Keras's dtype policy in training, such as "mixed_bfloat16". What is saved
            computes in float32.
    """

    model: str = "vgg"
    options: dict = dataclasses.field(default_factory=dict)
    init: str = ""
    epochs: int = 60
    batch_size: int = 128
    optimizer: str = "adamw"
    learning_rate: float = 2e-3
    schedule: str = "cosine"
    warmup_epochs: float = 1.0
    weight_decay: float = 0.02
    label_smoothing: float = 0.1
    augmentation: Augmentation | None = Augmentation()
    mixup: float = 0.0
    ema: float = 0.0
    ferplus_weight: float = 0.0
    teachers: tuple[str, ...] = ()
    teacher_weight: float = 0.5
    class_weights: bool = False
    seed: int = 0
    precision: str = "float32"

    def __post_init__(self):
        if isinstance(self.augmentation, dict):
            object.__setattr__(self, "augmentation", Augmentation(**self.augmentation))
        teachers = [self.teachers] if isinstance(self.teachers, str) else self.teachers
        object.__setattr__(self, "teachers", tuple(teachers))
        allowed = {
            "model": (self.model in models.BUILDERS, f"one of {', '.join(models.BUILDERS)}"),
            "optimizer": (self.optimizer in ("adam", "adamw", "sgd"), "adam, adamw or sgd"),
            "schedule": (self.schedule in ("cosine", "constant"), "cosine or constant"),
            "epochs": (_whole(self.epochs), "a whole number, 1 or more"),
            "batch_size": (_whole(self.batch_size), "a whole number, 1 or more"),
            "learning_rate": (self.learning_rate > 0, "above 0"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "0 or more, under 1"),
            "ema": (0 <= self.ema < 1, "0 or more, under 1"),
            "ferplus_weight": (0 <= self.ferplus_weight <= 1, "0 to 1"),
            "teacher_weight": (0 <= self.teacher_weight <= 1, "0 to 1"),
        }
        for name, (fits, what) in allowed.items():
            if not fits:
                raise ValueError(f"Recipe: {name} is {getattr(self, name)!r}; it must be {what}.")

    @property
    def head_only(self) -> bool:
        """Whether features can be computed once: a frozen backbone, unchanged pictures."""
        frozen = self.model == "transfer" and self.options.get("trained", "head") == "head"
        return frozen and not (self.augmentation or self.mixup or self.teachers)

    def replace(self, **changes) -> "Recipe":
        """Gives this recipe with some fields changed."""
        return dataclasses.replace(self, **changes)

    def changed(self, texts: dict[str, str]) -> "Recipe":
        """Gives this recipe with fields changed as a command line says it.

        Args:
            texts: New values by field, as JSON; where the field is text, as they are. Of options
                and augmentation only what is named changes.

        Raises:
            ValueError: If a recipe has no such field, or the field no such value.
        """
        fields = dataclasses.asdict(self)
        unknown = set(texts) - set(fields)
        if unknown:
            raise ValueError(
                f"No recipe has {', '.join(sorted(unknown))}; fields are {', '.join(fields)}."
            )
        for name, text in texts.items():
            try:
                value = text if isinstance(fields[name], str) else json.loads(text)
                part = isinstance(fields[name], dict) and isinstance(value, dict)
                self = self.replace(**{name: fields[name] | value if part else value})
            except (TypeError, ValueError) as error:
                raise ValueError(f"{name}={text} does not fit a recipe: {error}.") from error
        return self

    def to_json(self, path):
        """Writes the recipe to a file."""
        files.write_json(path, dataclasses.asdict(self))

    @classmethod
    def from_json(cls, path) -> "Recipe":
        """Reads a recipe from a file.

        Raises:
            ValueError: If the file is no recipe; names the file and the field.
        """
        try:
            fields = json.loads(pathlib.Path(path).read_text())
            unknown = set(fields) - {field.name for field in dataclasses.fields(cls)}
            if unknown:
                raise ValueError(f"no recipe has {', '.join(sorted(unknown))}")
            return cls(**fields)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} is not a recipe: {error}") from error


def _whole(number):
    return isinstance(number, numbers.Integral) and number >= 1


RECIPES = {
    "classic": Recipe(
        model="classic",
        epochs=50,
        optimizer="adam",
        learning_rate=5e-4,
        schedule="constant",
        weight_decay=0.0,
        label_smoothing=0.0,
        augmentation=None,
    ),
    "compact": Recipe(
        options={"dropout": 0.4},
        epochs=110,
        learning_rate=3e-3,
        weight_decay=0.05,
        augmentation=Augmentation(shift=0.1, rotation=15, zoom=0.2, contrast=0.0, erase=0.4),
        mixup=0.2,
        ema=0.998,
    ),
    "tiny": Recipe(
        options={"widths": [16, 32, 64, 128], "dropout": 0.1},
        epochs=64,
        learning_rate=4e-3,
        label_smoothing=0.0,
        augmentation=Augmentation(shift=0.08, rotation=12, zoom=0.15, contrast=0.0, erase=0.2),
        mixup=0.2,
        ema=0.998,
        teachers=("compact",),
        teacher_weight=0.8,
    ),
    "compact_quick": Recipe(
        model="residual",
        options={"dropout": 0.2},
        epochs=8,
        batch_size=64,
        weight_decay=0.02,
        label_smoothing=0.0,
        augmentation=Augmentation(shift=0.04, rotation=0, zoom=0, contrast=0.0, sharp=1.0),
    ),
    "frozen": Recipe(
        model="transfer",
        options={"backbone": "MobileNet", "weights": "imagenet"},
        epochs=30,
        learning_rate=3e-3,
        augmentation=None,
    ),
    "fine_tuned": Recipe(
        model="transfer",
        options={"backbone": "MobileNet", "weights": "imagenet", "trained": "all"},
        epochs=16,
        batch_size=64,
        learning_rate=5e-4,
    ),
}
"""The recipes that ferlib ships: notebook 03, `ferlib train` and the README's results use these.
What a recipe builds on is a shipped model, that of the day, or a training of another recipe, in
`runs/` of the working folder; the card of the result says which it was.
"""

RECIPES["residual"] = RECIPES["compact"].replace(model="residual", epochs=80)

_WIDE = RECIPES["compact"].replace(
    options={"widths": [64, 128, 256, 512], "dropout": 0.4}, learning_rate=2.5e-3, weight_decay=0.06
)
RECIPES["member_1"] = _WIDE.replace(seed=1)
RECIPES["member_2"] = _WIDE.replace(
    options={"widths": [64, 128, 256, 512], "dropout": 0.5, "crop": 48},
    augmentation=dataclasses.replace(_WIDE.augmentation, erase=0.2),
    mixup=0.4,
    seed=2,
)
RECIPES["member_3"] = _WIDE.replace(
    options={"widths": [64, 96, 192, 384, 512], "dropout": 0.4, "crop": 48}, seed=3
)
RECIPES["member_4"] = _WIDE.replace(
    options={"widths": [96, 160, 256, 512], "dropout": 0.4, "crop": 40},
    augmentation=dataclasses.replace(_WIDE.augmentation, shift=0.12),
    seed=4,
)
RECIPES["member_5"] = _WIDE.replace(
    model="residual",
    options={"widths": [64, 128, 256, 512], "dropout": 0.4, "crop": 48},
    learning_rate=2e-3,
    seed=5,
)
_MEMBERS = tuple(f"runs/member_{number}/model.keras" for number in range(1, 6))

RECIPES["accurate"] = _WIDE.replace(
    init=_MEMBERS[0],
    options={"widths": [64, 128, 256, 512], "dropout": 0.3},
    epochs=130,
    learning_rate=2e-3,
    label_smoothing=0.0,
    teachers=_MEMBERS,
    teacher_weight=0.8,
    seed=6,
)
RECIPES["compact_distilled"] = RECIPES["compact"].replace(
    init="compact",
    options={"dropout": 0.2},
    epochs=75,
    learning_rate=2e-3,
    label_smoothing=0.0,
    teachers=_MEMBERS,
    teacher_weight=0.8,
    seed=7,
)
RECIPES["tiny_distilled"] = RECIPES["tiny"].replace(
    init="tiny", epochs=50, learning_rate=3e-3, teachers=("ensemble",)
)
RECIPES["compact_ferplus"] = RECIPES["compact"].replace(
    init="compact",
    epochs=12,
    learning_rate=1.5e-3,
    label_smoothing=0.0,
    mixup=0.0,
    ferplus_weight=1.0,
)


def recipe(name_or_path) -> Recipe:
    """Finds a recipe: a shipped one by name, or a JSON file.

    Raises:
        FileNotFoundError: If it is neither.
        ValueError: If the file is no recipe.
    """
    if str(name_or_path) in RECIPES:
        return RECIPES[str(name_or_path)]
    if not pathlib.Path(name_or_path).is_file():
        raise FileNotFoundError(
            f"No recipe {str(name_or_path)!r}: give a JSON file or one of {', '.join(RECIPES)}."
        )
    return Recipe.from_json(name_or_path)


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
            return models.load(out / "model.keras")
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
            contents[name] = models.find(name).read_bytes()
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
        first = models.load(recipe.init).get_weights()
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
                self.teachers.append(models.load(teacher))
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
        card.setdefault("built on", {})[name] = models.read_card(name)
        before = models.read_seen(name)
        seen = seen if before is None else np.union1d(seen, before)
    files.write_json(out / "metrics.json", metrics)
    models.save(model, out / "model.keras", card=card, seen=seen)
    for checkpoint in (out / "state").glob("*.weights.h5"):
        checkpoint.unlink(missing_ok=True)
    spread.agree(len(history), out)
    return model
