"""The search for hyperparameters: what is recorded, and what survives a kill."""

import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from ferlib import drawn, models, training, tuning


def space(hp, base):
    """A search space of two values, one of which alone decides the score of `fake`."""
    rate = hp.Float("learning_rate", 1e-4, 1e-2, sampling="log")
    optimizer = hp.Choice("optimizer", ["adamw", "sgd"])
    return base.replace(learning_rate=rate, optimizer=optimizer)


@pytest.fixture
def fake(monkeypatch):
    """Replaces training by a formula, and notes the recipes and folders that it was given."""

    class Fake(list):
        stops, fails = (), ()

        def train(self, recipe, data, out, **_):
            self.append((out.name, recipe))
            if len(self) in self.stops:
                raise KeyboardInterrupt
            if len(self) in self.fails:
                raise MemoryError("no room for\na tensor of shape [128, 9000]")
            recipe.to_json(out / "recipe.json")
            accuracy = 0.5 + 10 * recipe.learning_rate
            (out / "metrics.json").write_text(json.dumps({"val_accuracy": accuracy}))

    calls = Fake()
    monkeypatch.setattr(training, "train", calls.train)
    monkeypatch.setattr("keras.utils.clear_session", lambda: None)
    return calls


def search(out, faces, **options):
    options = {"trials": 5, "space": space, "verbose": False, **options}
    return tuning.tune(faces, out, **options)


@pytest.mark.parametrize("method", tuning.METHODS)
def test_each_method_finds_the_better_half(method, faces, fake, tmp_path):
    trials = 0 if method == "hyperband" else 10
    table = search(tmp_path, faces, method=method, trials=trials, epochs=9)
    assert (table.status == "completed").all() and table.number.is_unique
    assert len(table) == trials or method == "hyperband" and len(table) > 10
    best = tuning.best(tmp_path)
    assert best.learning_rate == pytest.approx(table.learning_rate[table.score.idxmax()])
    assert best.learning_rate > 5e-3 and best.init == ""


def test_hyperband_goes_on_with_the_weights_of_the_shorter_trial(faces, fake, tmp_path):
    table = search(tmp_path, faces, method="hyperband", trials=0, epochs=9)
    longer = [(folder, recipe) for folder, recipe in fake if recipe.init]
    assert longer and all(recipe.epochs < 9 for _, recipe in longer)
    assert all(recipe.init.endswith("model.keras") for _, recipe in longer)
    assert table.epochs.max() == 9


def test_a_killed_search_keeps_what_is_finished_and_runs_the_rest_once(faces, fake, tmp_path):
    fake.stops = (3,)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, faces)
    assert len(pd.read_csv(tmp_path / "trials.csv")) == 2
    table = search(tmp_path, faces)
    assert list(table.number) == [0, 1, 2, 3, 4]
    assert [folder for folder, _ in fake] == [f"trial_{n}" for n in (0, 1, 2, 2, 3, 4)]
    assert fake[2] == fake[3]
    pd.testing.assert_frame_equal(search(tmp_path, faces), table)
    assert len(fake) == 6


@pytest.mark.parametrize("method", tuning.METHODS)
def test_a_kill_in_the_first_trial(method, faces, fake, tmp_path):
    fake.stops = (1,)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, faces, method=method)
    table = search(tmp_path, faces, method=method)
    assert list(table.number) == [0, 1, 2, 3, 4] and fake[0] == fake[1]


def test_a_kill_between_two_trials_leaves_no_trial_behind(faces, fake, tmp_path, monkeypatch):
    save, saved = tuning._Durable.save, []

    def killed(self):
        saved.append(len(self.trials))
        if len(self.trials) == 3 and saved.count(3) == 1:
            raise KeyboardInterrupt
        save(self)

    monkeypatch.setattr(tuning._Durable, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, faces)
    assert (tmp_path / "trials/trial_2/trial.json").exists() and len(fake) == 2
    table = search(tmp_path, faces)
    assert list(table.number) == [0, 1, 2, 3, 4] and len(fake) == 5


def test_a_failing_trial_is_recorded_and_the_search_goes_on(faces, fake, tmp_path, capsys):
    fake.fails, told = (2, 3, 4, 5), []
    table = search(tmp_path, faces, trials=7, on_trial=told.append, verbose=True)
    assert list(table.status == "failed") == [False, True, True, True, True, False, False]
    assert table.reason[1] == "MemoryError: no room for a tensor of shape [128, 9000]"
    assert [len(t) for t in told] == [1, 2, 3, 4, 5, 6, 7]
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("trial ")]
    assert len(lines) == 7 and "MemoryError" in lines[1] and "val accuracy" in lines[0]
    written = pd.read_csv(tmp_path / "trials.csv")
    assert list(written.columns) == list(table.columns) and len(written) == 7
    assert list(written.score) == pytest.approx(list(table.score), nan_ok=True)


def test_a_search_in_which_all_fails_says_why(faces, fake, tmp_path):
    fake.fails = (1, 2)
    search(tmp_path, faces, trials=2)
    with pytest.raises(ValueError, match="MemoryError"):
        tuning.best(tmp_path)


def test_another_search_is_refused_and_more_trials_are_not(faces, fake, tmp_path):
    search(tmp_path, faces, trials=2)
    assert len(search(tmp_path, faces, trials=4)) == 4 and len(fake) == 4
    with pytest.raises(FileExistsError, match="another search"):
        search(tmp_path, faces, trials=2, epochs=7)
    assert len(search(tmp_path, faces, trials=2, epochs=7, overwrite=True)) == 2
    assert len(fake) == 6
    with pytest.raises(ValueError, match="bayesian, hyperband, random"):
        search(tmp_path, faces, method="guess")


def test_the_space_gives_models_and_recipes_of_compact():
    from keras_tuner import HyperParameters

    hp, base = HyperParameters(), training.RECIPES["compact"]
    tuning.compact_space(hp, base)
    recipes = []
    for seed in range(20):
        hp.values = {v.name: v.random_sample(20 * n + seed) for n, v in enumerate(hp.space)}
        recipes.append((hp.values, tuning.compact_space(hp, base)))
    assert {recipe.optimizer for _, recipe in recipes} == {"adamw", "sgd"}
    for values, recipe in recipes:
        assert recipe.augmentation.rotation == values["augmentation"] * base.augmentation.rotation
        assert recipe.augmentation.flip and recipe.epochs == base.epochs
    sizes = {models.build(r.model, **r.options).count_params() for _, r in recipes[:3]}
    assert len(sizes) == 3


def test_a_part_of_the_data(faces):
    part = tuning.part(faces, train=50, val=20, seed=1)
    assert (len(part.of("train")), len(part.of("val")), len(part)) == (50, 20, 70)
    whole = tuning.part(faces, train=0, val=0)
    assert len(whole) == len(faces.of("train")) + len(faces.of("val"))


def test_importance_finds_what_matters():
    table = pd.DataFrame({
        "number": range(24),
        "useless": [n % 4 for n in range(24)],
        "optimizer": ["sgd", "adamw", "adamw"] * 8,
        "score": [0.6 if n % 3 else 0.4 for n in range(24)],
        "epochs": 3,
    })  # fmt: skip
    found = tuning.importance(table)
    assert found.parameter[0] == "optimizer" and found.importance[0] > 10 * found.importance[1]


def test_a_loss_that_is_no_number_fails_the_trial(tmp_path):
    def wild(hp, base):
        return base.replace(learning_rate=hp.Choice("learning_rate", [1e30, 1e29]))

    few = drawn.draw(84, seed=1)
    base = training.Recipe(
        options={"widths": (4,), "blocks": 1}, batch_size=16, optimizer="sgd", augmentation=None
    )
    table = search(tmp_path, few, trials=1, epochs=2, space=wild, base=base, method="random")
    assert table.status[0] == "failed" and "FloatingPointError: The loss is" in table.reason[0]


SCRIPT = """
import sys
from ferlib import drawn, training, tuning
base = training.Recipe(options={"widths": (4,), "blocks": 1}, batch_size=16)
def space(hp, base):
    return base.replace(learning_rate=hp.Float("learning_rate", 1e-3, 1e-1, sampling="log"))
tuning.tune(drawn.draw(140, seed=1), sys.argv[1], trials=3, epochs=4, base=base, space=space)
"""


@pytest.mark.slow
def test_sigkill_in_the_middle_of_a_trial(tmp_path):
    def start(out):
        command = [sys.executable, "-c", SCRIPT, str(tmp_path / out)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)

    killed = start("killed")
    history = tmp_path / "killed/trials/trial_1/history.csv"
    while not history.exists() and killed.poll() is None:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert len(tuning.read_trials(tmp_path / "killed")) == 1
    for out in ("killed", "whole"):
        assert start(out).communicate()[0].count("val accuracy") == (2 if out == "killed" else 3)
    tables = [tuning.read_trials(tmp_path / out) for out in ("killed", "whole")]
    columns = ["number", "learning_rate", "score", "epochs", "status"]
    pd.testing.assert_frame_equal(tables[0][columns], tables[1][columns])
