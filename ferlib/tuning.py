"""Hyperparameter tuning with keras-tuner: a trial is a training like any other.

keras-tuner chooses the values and keeps the books. A trial turns them into a `Recipe`, which
`training.train` trains in the trial's own folder. So a search that is killed continues in the
middle of the trial where it stopped, and each trial's folder says all that decided its score.
"""

import contextlib
import dataclasses
import inspect
import json
import os
import re
import shutil
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

# isort: off
from ferlib.backend import keras  # before keras_tuner, which would start TensorFlow aloud
import keras_tuner
from keras_tuner import oracles
from keras_tuner.engine.base_tuner import BaseTuner
# isort: on

from ferlib import distributed, files, models, recipes, training
from ferlib.batches import Augmentation
from ferlib.faces import FERData
from ferlib.recipes import Recipe

SGD_FACTOR = 20
"""SGD needs about this many times the learning rate of Adam."""

Space = Callable[[keras_tuner.HyperParameters, Recipe], Recipe]
"""A search space is a function of keras-tuner's HyperParameters and of the recipe that trials vary,
which gives the recipe of a trial."""


def recipe_space(hp: keras_tuner.HyperParameters, base: Recipe) -> Recipe:
    """Draws a recipe from the search space, for any network with `widths` and `dropout`.

    Args:
        hp: keras-tuner's HyperParameters, which names each value and its range.
        base: The recipe that everything else is taken from.

    Returns:
        The recipe. "width" multiplies the base's widths, which are rounded to multiples of 8.
        "blocks" and "squeeze" are drawn where the network has them. Under SGD the learning rate is
        `SGD_FACTOR` times the value drawn, and the weight decay is divided by it, so that one range
        fits both optimizers. "augmentation" multiplies the strengths of the base's augmentation; 0
        leaves flips alone.

    Example:
        >>> hp = keras_tuner.HyperParameters()
        >>> recipe_space(hp, recipes.RECIPES["residual"]).options["widths"]
        [32, 64, 128, 256]
        >>> hp.values["width"]
        1.0
    """
    known = inspect.signature(models.BUILDERS[base.model]).parameters
    widths = base.options.get("widths", known["widths"].default)
    factor = hp.Choice("width", [0.5, 0.75, 1.0, 1.25, 1.5], default=1.0)
    options = {"widths": [8 * max(1, round(factor * width / 8)) for width in widths]}
    options["dropout"] = hp.Float("dropout", 0.0, 0.5, step=0.1)
    if "blocks" in known:
        options["blocks"] = hp.Int("blocks", 1, 2)
    if "squeeze" in known:
        options["squeeze"] = hp.Boolean("squeeze")
    optimizer = hp.Choice("optimizer", ["adamw", "sgd"])
    factor = SGD_FACTOR if optimizer == "sgd" else 1
    return base.replace(
        options=base.options | options,
        optimizer=optimizer,
        learning_rate=hp.Float("learning_rate", 3e-4, 1e-2, sampling="log") * factor,
        weight_decay=hp.Float("weight_decay", 1e-3, 0.1, sampling="log") / factor,
        label_smoothing=hp.Float("label_smoothing", 0.0, 0.2, step=0.05),
        augmentation=_scaled(base.augmentation, hp.Float("augmentation", 0.0, 2.0, step=0.5)),
    )


def _scaled(augmentation, factor):
    """Multiplies the strengths of an augmentation, or where there is none of the default one."""
    augmentation = augmentation or Augmentation()
    names = {field.name for field in dataclasses.fields(augmentation)} - {"flip", "sharp"}
    scaled = {name: factor * getattr(augmentation, name) for name in names}
    return dataclasses.replace(augmentation, **scaled)


class _Books(keras_tuner.Oracle):
    """Books of an oracle that survive a kill at any moment, which keras-tuner's do not.

    Of a distributed search there is one oracle, the chief's.

    Args:
        after_trial: Called with keras-tuner's id of each trial that has ended.
        **options: What the oracle takes.
    """

    def __init__(self, *, after_trial, **options):
        super().__init__(
            objective=keras_tuner.Objective("val_accuracy", "max"),
            max_consecutive_failed_trials=10**9,  # failures are recorded, and the search continues
            **options,
        )
        self.after_trial = after_trial

    def reload(self):
        for path in Path(self._project_dir).glob("trial_*/trial.json"):
            files.read_json(path)  # keras-tuner would take a damaged one
        files.read_json(self._get_oracle_fname())
        super().reload()
        # keras-tuner writes a new trial's file before it enters the trial into the books: a kill
        # between the two leaves a trial that nobody runs.
        self.trials = {number: self.trials[number] for number in self.start_order}
        # It queues what was ongoing to be run again, even a trial that had ended just before the
        # kill, or that was in the queue already.
        running = [number for number, trial in self.trials.items() if trial.status == "RUNNING"]
        self._retry_queue = [number for number in running if number in self._retry_queue]
        if not _is_chief():
            return
        # Workers of other machines train on while a chief is started again.
        books = Path(self._get_oracle_fname())
        for tuner, number in files.read_json(books)["ongoing_trials"].items():
            if number in self._retry_queue and distributed.has_joined(books.parents[1], tuner):
                self._retry_queue.remove(number)
                self.ongoing_trials[tuner] = self.trials[number]
                self.tuner_ids.add(tuner)

    @keras_tuner.synchronized
    def create_trial(self, tuner_id):
        trial = super().create_trial(tuner_id)
        if trial.status == "STOPPED" and self.ongoing_trials:
            trial.status = "IDLE"  # what others train may yet be lost, and be to be done again
            self.tuner_ids.add(tuner_id)
        return trial

    @keras_tuner.synchronized
    def give_up(self, machine, workers):
        """Has others do the trials of all but the first workers of a machine."""
        is_gone = re.compile(rf"{re.escape(machine)}-(\d+)").fullmatch
        for tuner in [*self.tuner_ids, *self.ongoing_trials]:
            found = is_gone(tuner)
            if found and int(found[1]) >= workers:
                self.tuner_ids.discard(tuner)
                if tuner in self.ongoing_trials:
                    self._retry_queue.append(self.ongoing_trials.pop(tuner).trial_id)
        self.save()

    @keras_tuner.synchronized
    def update_trial(self, trial_id, metrics, step=0):
        if trial_id in self.end_order:
            return self.trials[trial_id]
        return super().update_trial(trial_id, metrics, step)

    @keras_tuner.synchronized
    def end_trial(self, trial):
        if trial.trial_id in self.end_order:  # of a machine that was given up, and came back
            return
        if trial.trial_id in self._retry_queue:
            self._retry_queue.remove(trial.trial_id)
        # gRPC loses the order of the values, and with it that of the table's columns.
        ordered = self.trials[trial.trial_id].hyperparameters.values
        trial.hyperparameters.values = ordered | trial.hyperparameters.values
        super().end_trial(trial)
        self.after_trial(trial.trial_id)

    def save(self):
        # keras-tuner writes in place: a kill meanwhile leaves half a file.
        files.write_json(self._get_oracle_fname(), self.get_state(), sealed=True)

    def _save_trial(self, trial):
        path = f"{self._get_trial_dir(trial.trial_id)}/trial.json"
        files.write_json(path, trial.get_state(), sealed=True)


class _Bayesian(_Books, oracles.BayesianOptimizationOracle):
    def __init__(self, *, trials, epochs, **options):
        super().__init__(max_trials=trials, num_initial_points=max(3, trials // 3), **options)

    def populate_space(self, trial_id):
        with warnings.catch_warnings():  # scikit-learn's, of scores that a parameter hardly moves
            warnings.filterwarnings("ignore", "The optimal value found for")
            return super().populate_space(trial_id)


class _Hyperband(_Books, oracles.HyperbandOracle):
    def __init__(self, *, trials, epochs, **options):
        super().__init__(max_epochs=epochs, **options)
        self.max_trials = trials or None


class _Random(_Books, oracles.RandomSearchOracle):
    def __init__(self, *, trials, epochs, **options):
        super().__init__(max_trials=trials, **options)


METHODS = {"bayesian": _Bayesian, "hyperband": _Hyperband, "random": _Random}
"""How the next values are chosen. Bayesian optimisation asks a model of the scores so far (Snoek
et al. 2012, arXiv:1206.2944); Hyperband stops weak trials early (Li et al. 2016,
arXiv:1603.06560)."""


class _NoDisk(keras_tuner.errors.FatalError, OSError):
    """Ends a search without a word against the trial, which continues later."""


class _Tuner(BaseTuner):
    """Trains the recipe of each trial that its oracle asks for."""

    is_idle = False

    def run_trial(self, trial, data, *, recipe, progress, **_):
        folder = Path(self.get_trial_dir(trial.trial_id))
        end: dict[str, Any] = {"epochs": 0, "reason": ""}
        started = time.perf_counter()
        try:
            with _freed_graphs():
                made = recipe(trial.hyperparameters)
                end["epochs"] = trial.hyperparameters.values.get("tuner/epochs", made.epochs)
                made = self.continued(made, trial.hyperparameters.values)
                training.train(made, data, folder, overwrite=True, verbose=progress)
            return files.read_json(folder / "metrics.json")["val_accuracy"]
        except Exception as error:
            end["reason"] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise  # keras-tuner records that the trial failed
        finally:
            end["seconds"] = time.perf_counter() - started
            end["memory_mb"] = psutil.Process().memory_info().rss / 1e6
            if (folder / "recipe.json").exists():
                end["recipe"] = files.digest(folder / "recipe.json")
            files.write_json(folder / "end.json", end, sealed=True)

    def _run_and_update_trial(self, trial, *args, **options):
        import grpc

        try:
            super()._run_and_update_trial(trial, *args, **options)
        except grpc.RpcError as error:  # no fault of the trial: this process is started again
            raise keras_tuner.errors.FatalError("The chief was lost.") from error
        except files.Unwritable as error:
            raise _NoDisk(str(error)) from error

    def continued(self, recipe, values):
        """Gives the recipe of the epochs that Hyperband adds to those of a shorter trial."""
        done = values.get("tuner/initial_epoch", 0)
        if "tuner/epochs" in values:
            recipe = recipe.replace(epochs=values["tuner/epochs"] - done, seed=recipe.seed + done)
        if done:
            before = Path(self.get_trial_dir(values["tuner/trial_id"]))
            recipe = recipe.replace(init=str(before / "model.keras"))
        return recipe

    def pre_create_trial(self):
        # keras-tuner asks again at once while Hyperband waits for the trials of other workers.
        time.sleep(1 if self.is_idle else 0)
        self.is_idle = True

    def on_trial_begin(self, trial):
        self.is_idle = False

    def save(self):
        if self._is_worker():
            files.write(self._get_tuner_fname(), "{}")  # says when a trial was last finished
        else:
            self.oracle.save()

    def _get_tuner_fname(self):
        # One process and a chief continue each other's search: they read the same books.
        name = self.tuner_id if self._is_worker() else "oracle"
        return f"{self.project_dir}/{name}.json"


@contextlib.contextmanager
def _freed_graphs():
    """Frees what Keras and TensorFlow hold of the models that were trained meanwhile.

    Keras's optimizer on TensorFlow sums gradients over devices, also over one, with
    `tf.custom_gradient`. TensorFlow enters that into its registry of gradients and never takes it
    out again (its issue 97697), and with it lives the whole graph: 21 MB a trial of the smallest
    networks, whether garbage is collected or not; 0.7 MB with this. No public function removes it.
    """
    registry = {}
    if keras.backend.backend() == "tensorflow":
        from tensorflow.python.framework.ops import gradient_registry

        registry = gradient_registry._registry
    before = set(registry)
    try:
        yield
    finally:
        keras.utils.clear_session()
        for name in set(registry) - before:
            del registry[name]


def tune(
    data: FERData,
    out: str | os.PathLike,
    *,
    method: str = "bayesian",
    trials: int = 12,
    epochs: int = 3,
    base: Recipe | None = None,
    space: Space = recipe_space,
    seed: int = 0,
    overwrite: bool = False,
    on_trial: Callable[[pd.DataFrame], object] | None = None,
    verbose: bool = True,
) -> pd.DataFrame:
    """Searches for good values, or continues a search that was stopped.

    `out/trials.csv` is complete after every trial, and a trial's folder `out/trials/trial_<number>`
    is that of a training. Finished trials are kept; one that was interrupted continues. A trial
    that fails is recorded with its reason, and the search continues.

    Under keras-tuner's $KERASTUNER_TUNER_ID, $KERASTUNER_ORACLE_IP and $KERASTUNER_ORACLE_PORT this
    process is the chief or a worker of a distributed search; `distributed.run` starts them all. A
    search may be begun in one process and continued in several, or the other way round.

    Args:
        data: Trials are trained on train and scored on val.
        out: The folder of the search.
        method: One of `METHODS`.
        trials: How many trials. Hyperband decides for itself; for it this is the most, 0 for none.
        epochs: Epochs of a trial; under Hyperband those of the longest. A trial that Hyperband
            prolongs continues with the weights that it has.
        base: The recipe that trials vary; None is "residual" of `RECIPES`.
        space: The search space.
        seed: Seed of the choices and of every trial.
        overwrite: Whether another search in `out` is replaced.
        on_trial: Called with the table of trials after each; never in a worker.
        verbose: Whether trainings show their progress, and each trial a line at its end.

    Returns:
        The table of trials, as `read_trials` gives it.

    Raises:
        FileExistsError: If `out` holds another search and `overwrite` is not set.
        ValueError: If there is no such method, if it needs a number of trials, or if the chief
            that this worker has been given runs another search.
    """
    supervised = distributed.end_with_supervisor()
    if method not in METHODS:
        raise ValueError(f"There is no method {method!r}; known are {', '.join(METHODS)}.")
    if trials < 1 and method != "hyperband":
        raise ValueError(f"trials is {trials}; {method} needs 1 or more.")
    base = (base or recipes.RECIPES["residual"]).replace(epochs=epochs, seed=seed)
    hp = keras_tuner.HyperParameters()
    space(hp, base)
    fixed = {"method": method, "base": dataclasses.asdict(base), "space": hp.get_config()}
    held = contextlib.nullcontext()
    if "KERASTUNER_ORACLE_IP" not in os.environ:  # else the supervisor holds it
        held = files.hold(Path(out) / "workers" / distributed.LOCAL, wait=1)
    with held:
        _claim(Path(out) / "trials", fixed | {"data": data.fingerprint}, overwrite)

        ended = {}

        def after_trial(trial):
            ended[int(trial)] = _row(Path(out) / "trials" / f"trial_{trial}")
            table = _write_table(out, ended.values())
            if verbose:
                print(_line(table, int(trial), trials), flush=True)
            if on_trial:
                on_trial(table)

        # keras-tuner takes the seed 0 for "choose one".
        options = {"trials": trials, "epochs": epochs, "seed": seed + 1}
        oracle = METHODS[method](after_trial=after_trial, hyperparameters=hp, **options)
        ended |= {row["number"]: row for row in _rows(out)}
        tuner = _Tuner(oracle, directory=out, project_name="trials")
        if _is_chief():
            threading.Thread(target=_watch, args=(oracle, out), daemon=True).start()
        tuner.search(data, recipe=lambda hp: space(hp, base), progress=verbose, verbose=0)
        if supervised and _is_worker():
            os._exit(0)  # at once: the supervisor must see this before it sees the chief end
        return _write_table(out, _rows(out))


def _claim(folder, search, overwrite):
    """Makes a folder that of this search."""
    path, search = folder / "search.json", json.loads(json.dumps(search))
    there = files.read_json(path) if path.exists() else None
    if there == search:
        return
    if _is_worker():
        needs = "all machines have to share it, and have the same method, epochs, seed and data"
        raise ValueError(f"{folder} is not that of the chief's search: {needs}.")
    if there and not overwrite:
        remedy = "give another folder, or remove this one"
        raise FileExistsError(f"{folder} holds another search (see search.json there): {remedy}.")
    if there:
        shutil.rmtree(folder)
    files.write_json(path, search, sealed=True)


def _watch(oracle, out):
    """Gives up the machines that are lost, for ever."""
    for machine, workers in distributed.lost(out):
        if not workers:
            print(f"{machine} is lost; others do its trials", flush=True)
        oracle.give_up(machine, workers)


def _is_worker():
    """Says whether this process is a worker of a distributed search."""
    is_chief = "chief" in os.environ.get("KERASTUNER_TUNER_ID", "chief")
    return "KERASTUNER_ORACLE_IP" in os.environ and not is_chief


def _is_chief():
    """Says whether this process is the chief of a distributed search."""
    return "KERASTUNER_ORACLE_IP" in os.environ and not _is_worker()


def _write_table(out, rows):
    """Writes `trials.csv` in one step, and gives the table."""
    table = _table(rows)
    files.write(Path(out) / "trials.csv", table.to_csv(index=False))
    return table


def _line(table, number, trials):
    """Says in one line how a trial ended."""
    row = table.set_index("number").loc[number]
    ended = row.reason or f"val accuracy {row.score:.1%} (best {table.score.max():.1%})"
    values = row[: row.index.get_loc("score")].items()
    texts = [f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in values]
    return f"trial {number + 1}/{trials or '?'}  {ended}  {row.seconds:.0f} s  {'  '.join(texts)}"


def read_trials(out: str | os.PathLike) -> pd.DataFrame:
    """Reads the trials that ended.

    Args:
        out: The folder of the search.

    Returns:
        A DataFrame with one row a trial: number (its folder's, from 0), a column for each value,
        score (val accuracy after the last epoch), status ("completed" or "failed"), epochs (all
        those its weights have seen), reason (why it failed), seconds, and memory_mb, what the
        process held after it.
    """
    return _table(_rows(out))


def _rows(out):
    """Reads the rows of all trials that ended."""
    return list(filter(None, map(_row, Path(out).glob("trials/trial_*"))))


def _row(folder):
    """Reads a trial's row from its folder; None where it has not ended."""
    path = folder / "trial.json"
    trial: dict[str, Any] = files.read_json(path) if path.exists() else {"status": ""}
    if trial["status"] not in ("COMPLETED", "FAILED"):
        return None
    values = trial["hyperparameters"]["values"].items()
    row: dict[str, Any] = {"number": int(trial["trial_id"])}
    row |= {name: value for name, value in values if not name.startswith("tuner/")}
    row |= {"score": trial["score"], "status": trial["status"].lower()}
    end = files.read_json(folder / "end.json")
    end.pop("recipe", None)
    return row | end


def _table(rows):
    """Makes the table of trials from their rows."""
    last = ["number", "score", "status", "epochs", "reason", "seconds", "memory_mb"]
    table = pd.DataFrame(rows, columns=None if rows else last)
    return table.astype({"score": float}).sort_values("number", ignore_index=True)


def best(out: str | os.PathLike) -> Recipe:
    """Gives the recipe of the best trial, to be trained for longer.

    Args:
        out: The folder of the search.

    Raises:
        ValueError: If no trial was completed.
    """
    table = read_trials(out)
    if not table.score.notna().any():
        raise ValueError(f"No trial in {out} was completed: {'; '.join(set(table.reason))}")
    folders = {int(x.name.removeprefix("trial_")): x for x in Path(out).glob("trials/trial_*")}
    folder = folders[table.number[table.score.idxmax()]]
    path, end = folder / "recipe.json", files.read_json(folder / "end.json")
    if end.get("recipe") not in (None, files.digest(path)):
        raise files.damaged(path)
    return Recipe.from_json(path).replace(init="")
