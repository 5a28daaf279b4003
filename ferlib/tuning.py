"""Hyperparameter tuning with keras-tuner: a trial is a training like any other.

keras-tuner chooses the values and keeps the books. A trial turns them into a `Recipe`, which
`training.train` trains in the trial's own folder. So a search that is killed goes on in the middle
of the trial where it stopped, and each trial's folder says all that decided its score.
"""

import dataclasses
import json
import os
import pathlib
import shutil
import time

# isort: off
from ferlib.backend import keras  # before keras_tuner, which would start TensorFlow aloud
import keras_tuner
from keras_tuner import oracles
from keras_tuner.engine.base_tuner import BaseTuner
# isort: on

from ferlib import distributed, files, recipes, training
from ferlib.batches import Augmentation
from ferlib.recipes import Recipe

METHODS = {
    "bayesian": oracles.BayesianOptimizationOracle,
    "hyperband": oracles.HyperbandOracle,
    "random": oracles.RandomSearchOracle,
}
"""How the next values are chosen. Bayesian optimisation asks a model of the scores so far (Snoek
et al. 2012, arXiv:1206.2944); Hyperband stops weak trials early (Li et al. 2016,
arXiv:1603.06560)."""

_SGD = 20  # SGD needs about this many times the learning rate of Adam.


def residual_space(hp, base: Recipe) -> Recipe:
    """Draws a recipe for the residual network from the search space.

    Args:
        hp: keras-tuner's HyperParameters, which names each value and its range.
        base: The recipe that everything else is taken from.

    Returns:
        The recipe. Under SGD the learning rate is 20 times, the weight decay a 20th of the value
        drawn, so that one range fits both optimizers; "augmentation" multiplies the strengths of
        the base's augmentation, 0 leaves flips alone.
    """
    width = hp.Int("width", 16, 48, step=8)
    options = {
        "widths": (width, 2 * width, 4 * width, 8 * width),
        "blocks": hp.Int("blocks", 1, 2),
        "dropout": hp.Float("dropout", 0.0, 0.5, step=0.1),
        "squeeze": hp.Boolean("squeeze"),
    }
    optimizer = hp.Choice("optimizer", ["adamw", "sgd"])
    scale = _SGD if optimizer == "sgd" else 1
    rate = hp.Float("learning_rate", 3e-4, 1e-2, sampling="log")
    decay = hp.Float("weight_decay", 1e-3, 0.1, sampling="log")
    smoothing = hp.Float("label_smoothing", 0.0, 0.2, step=0.05)
    strength = hp.Float("augmentation", 0.0, 2.0, step=0.5)
    mild = base.augmentation or Augmentation()
    fixed = ("flip", "sharp")
    scaled = {k: v * strength for k, v in dataclasses.asdict(mild).items() if k not in fixed}
    return base.replace(
        model="residual",
        options=base.options | options,
        optimizer=optimizer,
        learning_rate=rate * scale,
        weight_decay=decay / scale,
        label_smoothing=smoothing,
        augmentation=dataclasses.replace(mild, **scaled),
    )


def tune(
    data,
    out,
    *,
    method: str = "bayesian",
    trials: int = 12,
    epochs: int = 3,
    base: Recipe | None = None,
    space=residual_space,
    seed: int = 0,
    overwrite: bool = False,
    on_trial=None,
    verbose: bool = True,
):
    """Searches for good values, or goes on with a search that was stopped.

    `out/trials.csv` is complete after every trial, and a trial's folder `out/trials/trial_<number>`
    is that of a training. Finished trials are kept; one that was interrupted goes on. A trial
    that fails is recorded with its reason, and the search goes on.

    Under keras-tuner's $KERASTUNER_TUNER_ID, $KERASTUNER_ORACLE_IP and $KERASTUNER_ORACLE_PORT this
    process is the chief or a worker of a distributed search; `distributed.run` starts them all. A
    search may be begun in one process and go on in several, or the other way round.

    Args:
        data: A `FERData`; trials are trained on train and scored on val.
        out: The folder of the search.
        method: One of `METHODS`.
        trials: How many trials. Hyperband decides for itself; for it this is the most, 0 for none.
        epochs: Epochs of a trial; under Hyperband those of the longest. A trial that Hyperband
            prolongs goes on with the weights that it has.
        base: The recipe that trials vary; None is "residual" of `RECIPES`.
        space: A function of keras-tuner's HyperParameters and `base` that gives a recipe.
        seed: Seed of the choices and of every trial.
        overwrite: Whether another search in `out` is replaced.
        on_trial: Called with the table of trials after each; never in a worker.
        verbose: Whether a line is printed for each trial; never in a worker.

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
    if trials < (method != "hyperband"):
        raise ValueError(f"trials is {trials}; {method} needs 1 or more.")
    out, base = pathlib.Path(out), base or recipes.RECIPES["residual"]
    hp = keras_tuner.HyperParameters()
    space(hp, base)
    asked = [method, epochs, seed, data.fingerprint, dataclasses.asdict(base), hp.get_config()]
    _claim(out / "trials", json.loads(json.dumps(asked)), overwrite)
    options = {"max_epochs": epochs} if method == "hyperband" else {"max_trials": trials}
    if method == "bayesian":
        options["num_initial_points"] = max(3, trials // 3)
    oracle = type("Oracle", (_Durable, METHODS[method]), {})(
        objective=keras_tuner.Objective("val_accuracy", "max"),
        hyperparameters=hp,
        seed=seed + 1,  # 0 would mean a random one
        max_consecutive_failed_trials=10**9,
        **options,
    )
    oracle.max_trials = trials or None
    oracle.told = out, on_trial, verbose, trials
    tuner = _Tuner(oracle, directory=out, project_name="trials")
    tuner.job = data, base, space, epochs, seed
    tuner.search(verbose=0)
    if supervised and _is_worker():
        os._exit(0)  # at once: the supervisor must see this before it sees the chief end
    return oracle.write_table()


def _claim(folder, asked, overwrite):
    """Makes a folder that of this search, without trials that a kill left half recorded."""
    path, books = folder / "search.json", folder / "oracle.json"
    there = json.loads(path.read_text()) if path.exists() else None
    if _is_worker():
        if there != asked:
            raise ValueError(
                f"{folder} is not that of the chief's search. The folder has to be one that all "
                "machines share; method, epochs, seed and data have to be the same."
            )
        return
    if there not in (None, asked):
        if not overwrite:
            raise FileExistsError(
                f"{folder} holds another search. Give another folder, or remove this one."
            )
        shutil.rmtree(folder)
    files.write(path, json.dumps(asked))
    begun = json.loads(books.read_text())["start_order"] if books.exists() else []
    for trial in folder.glob("trial_*/trial.json"):
        if trial.parent.name.removeprefix("trial_") not in begun:
            trial.unlink()


def _is_worker() -> bool:
    """Says whether this process is a worker of a distributed search."""
    chief = "chief" in os.environ.get("KERASTUNER_TUNER_ID", "chief")
    return "KERASTUNER_ORACLE_IP" in os.environ and not chief


class _Durable:
    """Writes an oracle's books whole or not at all, which keras-tuner does not, and tells of them.

    Of a distributed search there is one oracle, the chief's.
    """

    def reload(self):
        super().reload()
        # A kill just after a trial's end leaves it among those that are to be run again.
        again = [x for x in self._retry_queue if self.trials[x].status == "RUNNING"]
        self._retry_queue = list(dict.fromkeys(again))

    def end_trial(self, trial):
        values = self.trials[trial.trial_id].hyperparameters.values
        trial.hyperparameters.values = values | trial.hyperparameters.values  # gRPC mixes them up
        super().end_trial(trial)
        _, on_trial, verbose, trials = self.told
        table = self.write_table()
        if verbose:
            print(_line(table, int(trial.trial_id), trials), flush=True)
        if on_trial:
            on_trial(table)

    def write_table(self):
        table = read_trials(self.told[0])
        files.write(self.told[0] / "trials.csv", table.to_csv(index=False))
        return table

    def save(self):
        files.write(self._get_oracle_fname(), json.dumps(self.get_state()))

    def _save_trial(self, trial):
        path = pathlib.Path(self._get_trial_dir(trial.trial_id)) / "trial.json"
        files.write(path, json.dumps(trial.get_state()))


class _Tuner(BaseTuner):
    """Trains the recipe of each trial that its oracle asks for."""

    pause = 0

    def run_trial(self, trial, **_):
        data, base, space, epochs, seed = self.job
        folder = pathlib.Path(self.get_trial_dir(trial.trial_id))
        values, end = trial.hyperparameters.values, {"reason": ""}
        done = values.get("tuner/initial_epoch", 0)
        started, graphs = time.perf_counter(), set(_graph_gradients())
        try:
            recipe = space(trial.hyperparameters, base).replace(
                epochs=values.get("tuner/epochs", epochs) - done, seed=seed + done
            )
            if done:
                before = pathlib.Path(self.get_trial_dir(values["tuner/trial_id"]))
                recipe = recipe.replace(init=str(before / "model.keras"))
            training.train(recipe, data, folder, overwrite=True, verbose=False)
            return json.loads((folder / "metrics.json").read_text())["val_accuracy"]
        except Exception as error:
            text = " ".join(str(error).split())[:300]
            end["reason"] = f"{type(error).__name__}: {text}"
            raise keras_tuner.errors.FailedTrialError(end["reason"]) from error
        finally:
            for name in set(_graph_gradients()) - graphs:
                del _graph_gradients()[name]
            keras.utils.clear_session()
            end |= {"seconds": time.perf_counter() - started, "memory_mb": _memory()}
            files.write(folder / "end.json", json.dumps(end))

    def pre_create_trial(self):
        time.sleep(self.pause)
        self.pause = 1  # if there is no trial now, as when Hyperband waits for other workers

    def on_trial_begin(self, trial):
        self.pause = 0

    def save(self):
        if self._is_worker():
            files.write(self._get_tuner_fname(), "{}")  # says when a trial was last finished
        else:
            self.oracle.save()

    def _get_tuner_fname(self):
        name = self.tuner_id if self._is_worker() else "oracle"  # in one process or in several
        return str(pathlib.Path(self.project_dir) / f"{name}.json")


def _graph_gradients() -> dict:
    """Gives TensorFlow's registry of gradients.

    Keras's optimizers enter one for every graph, TensorFlow never takes it out, and with it lives
    all that the graph holds.
    """
    if keras.backend.backend() != "tensorflow":
        return {}
    from tensorflow.python.framework.ops import gradient_registry

    return gradient_registry._registry


def _memory() -> float:
    """Gives the memory that this process holds, in MB."""
    import psutil

    return psutil.Process().memory_info().rss / 1e6


def _line(table, number, trials):
    """Says in one line how a trial ended."""
    row = table[table.number == number].iloc[0]
    score = f"val accuracy {row.score:.1%} (best {table.score.max():.1%})"
    ended = row.reason if row.status == "failed" else score
    values = row.iloc[1 : table.columns.get_loc("score")].items()
    told = (f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in values)
    return f"trial {number + 1}/{trials or '?'}  {ended}  {row.seconds:.0f} s  {'  '.join(told)}"


def read_trials(out):
    """Reads the trials that ended.

    Args:
        out: The folder of the search.

    Returns:
        A DataFrame with one row a trial: number (its folder's, from 0), a column for each value,
        score (val accuracy after the last epoch), epochs (all those its weights have seen),
        seconds, status ("completed" or "failed"), reason, and memory_mb, what the process held
        after the trial.
    """
    import pandas as pd

    rows = []
    for path in sorted(pathlib.Path(out).glob("trials/trial_*/trial.json")):
        trial, end = json.loads(path.read_text()), path.with_name("end.json")
        if trial["status"] not in ("COMPLETED", "FAILED") or not end.exists():
            continue
        values, end = trial["hyperparameters"]["values"], json.loads(end.read_text())
        recipe = path.with_name("recipe.json")
        epochs = json.loads(recipe.read_text())["epochs"] if recipe.exists() else 0
        rows.append({
            "number": int(trial["trial_id"]),
            **{k: v for k, v in values.items() if not k.startswith("tuner/")},
            "score": trial["score"],
            "epochs": epochs + values.get("tuner/initial_epoch", 0),
            "seconds": end["seconds"],
            "status": trial["status"].lower(),
            "reason": end["reason"],
            "memory_mb": end["memory_mb"],
        })  # fmt: skip
    columns = ["number", "score", "epochs", "seconds", "status", "reason", "memory_mb"]
    return pd.DataFrame(rows, columns=None if rows else columns).astype({"score": float})


def best(out) -> Recipe:
    """Gives the recipe of the best trial, to be trained for longer.

    Raises:
        ValueError: If no trial was completed.
    """
    table = read_trials(out)
    if not table.score.notna().any():
        raise ValueError(f"No trial in {out} was completed: {'; '.join(set(table.reason))}")
    number = table.number[table.score.idxmax()]
    folders = {int(p.name[6:]): p for p in pathlib.Path(out).glob("trials/trial_*")}
    return Recipe.from_json(folders[number] / "recipe.json").replace(init="")


def importance(trials, *, seed: int = 0):
    """Asks which values matter: permutation importance in a random forest fitted to the trials.

    Args:
        trials: What `read_trials` gave.
        seed: Seed of forest and permutations.

    Returns:
        A DataFrame, the most important first: parameter; importance, the loss of R² when the
        parameter's values are shuffled among the trials, and its standard deviation std. From
        few trials it is little more than a hint.

    Source: Breiman, Random Forests (2001), as scikit-learn implements it.
    """
    import pandas as pd
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    done = trials[trials.score.notna()]
    values = done.iloc[:, 1 : done.columns.get_loc("score")]
    if done.epochs.nunique() > 1:
        values = values.assign(epochs=done.epochs)
    coded = values.apply(lambda x: x.astype(float) if x.dtype.kind in "bif" else x.factorize()[0])
    forest = RandomForestRegressor(300, random_state=seed).fit(coded, done.score)
    found = permutation_importance(forest, coded, done.score, n_repeats=30, random_state=seed)
    columns = {"importance": found.importances_mean, "std": found.importances_std}
    table = pd.DataFrame({"parameter": values.columns, **columns})
    return table.sort_values("importance", ascending=False, ignore_index=True)
