"""Training: recipes, what is written, and continuing after a kill."""

import dataclasses
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ferlib import batches, cleaning, drawn, evaluation, models, recipes, training, zoo
from ferlib.backend import keras
from ferlib.recipes import Recipe

SMALL = Recipe(
    model="residual",
    options={"widths": [8, 12, 16], "blocks": 1},
    epochs=3,
    batch_size=32,
    warmup_epochs=0.5,
    ema=0.9,
)
SCRIPT = """
import keras, sys, time
from ferlib import drawn, recipes, training
path, out, last = sys.argv[1:]
class Wait(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 == int(last):  # so that who kills this in an epoch before is never too late
            time.sleep(900)
training.train(recipes.Recipe.from_json(path), drawn.draw(200, seed=0), out, callbacks=[Wait()])
"""


@pytest.fixture(scope="module")
def data():
    return drawn.draw(200, seed=0)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained")
    training.train(SMALL, data, out)
    return out


def weights(path):
    return zoo.load(path).get_weights()


def test_a_training_writes_model_history_recipe_and_metrics(trained, data):
    history = pd.read_csv(trained / "history.csv")
    assert list(history.epoch) == [1, 2, 3]
    assert {"loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"} <= set(history)
    assert history.learning_rate.iloc[-1] < 1e-4 * SMALL.learning_rate + 1e-9
    assert Recipe.from_json(trained / "recipe.json") == SMALL
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["val_accuracy"] == pytest.approx(history.val_accuracy.iloc[-1])
    card = zoo.read_card(trained / "model.keras")
    assert card["data"]["fingerprint"] == data.fingerprint
    labels = data.of("train").labels
    counted = np.bincount(labels, minlength=7) / len(labels)
    assert list(card["data"]["shares"]) == list(data.classes)
    assert list(card["data"]["shares"].values()) == pytest.approx(counted, abs=1e-5)
    seen = cleaning.picture_hashes(data.of("train").images)
    np.testing.assert_array_equal(zoo.read_seen(trained / "model.keras"), np.sort(seen))


def test_shares_are_those_of_what_is_learned(data):
    balanced = training._shares(SMALL.replace(class_weights=True), data)
    assert list(balanced.values()) == pytest.approx([1 / 7] * 7, abs=1e-5)
    voted = training._shares(SMALL.replace(ferplus_weight=1.0), data)
    plain = training._shares(SMALL, data)
    assert voted["neutral"] > plain["neutral"] + 0.05  # one vote in ten goes there


def test_the_saved_model_is_the_average_that_was_validated(trained, data):
    val = data.of("val")
    answers = zoo.load(trained / "model.keras").predict(val.images[..., None], verbose=0)
    accuracy = (answers.argmax(axis=1) == val.labels).mean()
    metrics = json.loads((trained / "metrics.json").read_text())
    assert accuracy == pytest.approx(metrics["val_accuracy"], abs=1e-6)


def test_a_finished_training_is_only_loaded(trained, data, capsys):
    before = (trained / "model.keras").stat().st_mtime_ns
    training.train(SMALL, data, trained)
    assert (trained / "model.keras").stat().st_mtime_ns == before
    assert "epoch" not in capsys.readouterr().out


def test_another_recipe_in_the_same_folder_is_refused_until_asked_for(data, tmp_path):
    training.train(SMALL.replace(epochs=1), data, tmp_path, verbose=False)
    with pytest.raises(FileExistsError, match="epochs 1 -> 2"):
        training.train(SMALL.replace(epochs=2), data, tmp_path)
    training.train(SMALL.replace(epochs=2), data, tmp_path, overwrite=True, verbose=False)
    assert len(pd.read_csv(tmp_path / "history.csv")) == 2


def test_a_training_without_augmentation_is_another_one(data, tmp_path):
    recipe = SMALL.replace(epochs=1, augmentation=batches.Augmentation())
    training.train(recipe, data, tmp_path, verbose=False)
    with pytest.raises(FileExistsError, match=r"augmentation .* -> None"):
        training.train(recipe.replace(augmentation=None), data, tmp_path, verbose=False)
    assert Recipe.from_json(tmp_path / "recipe.json") == recipe


def test_other_votes_are_another_training(data, tmp_path):
    votes = np.random.default_rng(0).multinomial(10, [0.1] * 10, len(data)).astype("float32")
    one, other = (dataclasses.replace(data, votes=v) for v in (votes, votes[::-1].copy()))
    labels_alone, taught = SMALL.replace(epochs=1), SMALL.replace(epochs=1, ferplus_weight=0.5)
    for number, recipe in enumerate((labels_alone, taught)):
        training.train(recipe, one, tmp_path / str(number), verbose=False)
    training.train(labels_alone, other, tmp_path / "0", verbose=False)
    with pytest.raises(FileExistsError, match="content of the votes"):
        training.train(taught, other, tmp_path / "1", verbose=False)


def test_one_process_trains_in_a_folder(data, tmp_path):
    code = "import sys, time; from ferlib import files\nheld = files.hold(sys.argv[1], wait=0)"
    code += "\nprint('held', flush=True); time.sleep(900)"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RuntimeError, match=f"in use by process {other.pid}"):
            training.train(SMALL, data, tmp_path, verbose=False)
        other.kill()
    training.train(SMALL.replace(epochs=1), data, tmp_path, verbose=False)


def test_the_seed_decides_everything(trained, data, tmp_path):
    training.train(SMALL, data, tmp_path / "again", verbose=False)
    for a, b in zip(weights(trained / "model.keras"), weights(tmp_path / "again/model.keras")):
        np.testing.assert_array_equal(a, b)
    training.train(SMALL.replace(seed=1), data, tmp_path / "other", verbose=False)
    pairs = zip(weights(trained / "model.keras"), weights(tmp_path / "other/model.keras"))
    assert any(not np.array_equal(a, b) for a, b in pairs)


def start(recipe, out, *, last=0):
    """Starts a training; after the epoch `last` it waits to be killed."""
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(recipe), str(out), str(last)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        encoding="utf-8",
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def assert_it_ends_like_whole(folder):
    """Starts the killed training again, and compares its end with the undisturbed one's."""
    again = start(folder / "recipe.json", folder / "killed")
    printed, _ = again.communicate()
    assert again.returncode == 0 and "continues after epoch" in printed
    a, b = (weights(folder / name / "model.keras") for name in ("whole", "killed"))
    for left, right in zip(a, b, strict=True):
        np.testing.assert_array_equal(left, right)
    histories = [pd.read_csv(folder / name / "history.csv") for name in ("whole", "killed")]
    pd.testing.assert_frame_equal(*(h.drop(columns="seconds") for h in histories))


def test_a_killed_training_ends_as_if_it_had_not_been_killed(trained, tmp_path):
    recipe = SMALL.replace(epochs=4, mixup=0.2, augmentation=batches.Augmentation(erase=0.3))
    recipe = recipe.replace(model="vgg", options={"widths": [8, 12]})
    recipe = recipe.replace(teachers=[str(trained / "model.keras")])
    recipe.to_json(tmp_path / "recipe.json")
    whole = start(tmp_path / "recipe.json", tmp_path / "whole")
    assert whole.wait() == 0
    killed = start(tmp_path / "recipe.json", tmp_path / "killed", last=3)
    for line in killed.stdout:
        if line.startswith("epoch 2"):
            time.sleep(0.05)  # into epoch 3
            killed.kill()
            break
    killed.wait()
    assert not (tmp_path / "killed/model.keras").exists()
    assert_it_ends_like_whole(tmp_path)


@pytest.mark.slow
def test_killed_at_five_random_moments_it_ends_with_the_same_weights(tmp_path):
    recipe = SMALL.replace(epochs=60, mixup=0.2, augmentation=batches.Augmentation(erase=0.3))
    recipe.to_json(tmp_path / "recipe.json")
    assert start(tmp_path / "recipe.json", tmp_path / "whole").wait() == 0
    chance = random.Random()
    for number in range(5):
        killed = start(tmp_path / "recipe.json", tmp_path / "killed", last=59)
        for _ in range(chance.randint(not number, 2)):  # after so many epochs, and then some
            next(line for line in killed.stdout if line.startswith("epoch "))
        time.sleep(chance.uniform(0, 0.5))
        killed.kill()
        killed.communicate()
        assert not (tmp_path / "killed/model.keras").exists()
    assert_it_ends_like_whole(tmp_path)


@pytest.mark.parametrize("flip", [False, True])
def test_a_student_learns_its_teachers_answers(trained, data, tmp_path, flip):
    teacher = str(trained / "model.keras")
    recipe = SMALL.replace(
        epochs=25, augmentation=None, label_smoothing=0, teachers=[teacher], teacher_weight=1.0
    )
    recipe = recipe.replace(teacher_flip=flip)
    student = training.train(recipe, data, tmp_path / "student", verbose=False)
    images = data.of("train").images
    learned, one = (evaluation.probabilities(model, images) for model in (student, teacher))
    both = evaluation.probabilities(teacher, images, tta="flip")
    wanted, other = (both, one) if flip else (one, both)
    assert np.abs(learned - wanted).mean() < 0.05
    assert np.square(learned - wanted).mean() < np.square(learned - other).mean()
    last = pd.read_csv(tmp_path / "student/history.csv").iloc[-1]
    report = evaluation.evaluate(student, data, split="val")
    assert last.val_accuracy == pytest.approx(report.metrics["accuracy"].value)
    assert last.val_loss == pytest.approx(report.metrics["log_loss"].value, abs=1e-4)
    assert zoo.read_card(tmp_path / "student/model.keras")["built on"][teacher]["recipe"]
    with pytest.raises(FileNotFoundError, match="No model 'nobody'"):
        training.train(SMALL.replace(teachers=["nobody"]), data, tmp_path / "other")


def test_a_training_killed_before_its_model_is_written_is_finished(data, tmp_path, monkeypatch):
    recipe = SMALL.replace(epochs=1)
    whole = training.train(recipe, data, tmp_path / "whole")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(training, "_finish", killed)
        training.train(recipe, data, tmp_path / "killed")
    made = training.train(recipe, data, tmp_path / "killed")
    for one, other in zip(whole.get_weights(), made.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def killed(*_):
    raise KeyboardInterrupt


def test_a_checkpoint_holds_no_teacher(data, tmp_path):
    teacher = zoo.save(models.build("vgg", widths=(64, 128)), tmp_path / "teacher.keras")
    sizes = {}

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            (checkpoint,) = self.folder.glob("state/epoch-*")
            sizes[self.folder.name] = checkpoint.stat().st_size
            raise KeyboardInterrupt

    for name, teachers in {"alone": (), "taught": (str(teacher),)}.items():
        stop = Stop()
        stop.folder = tmp_path / name
        with pytest.raises(KeyboardInterrupt):
            recipe = SMALL.replace(teachers=teachers)
            training.train(recipe, data, stop.folder, callbacks=[stop], verbose=False)
    assert sizes["taught"] == pytest.approx(sizes["alone"], abs=100)  # figures have more digits


def test_a_finished_student_is_loaded_when_its_teacher_is_gone(data, tmp_path):
    teacher = zoo.save(models.build("vgg", widths=(8,)), tmp_path / "teacher.keras")
    recipe = SMALL.replace(epochs=1, teachers=(str(teacher),))
    training.train(recipe, data, tmp_path / "student", verbose=False)
    with pytest.raises(FileExistsError, match="content of teacher 1"):
        training.train(recipe.replace(teachers=()), data, tmp_path / "student", verbose=False)
    teacher.unlink()
    training.train(recipe, data, tmp_path / "student", verbose=False)
    with pytest.raises(FileExistsError, match="epochs 1 -> 2"):
        zoo.save(models.build("vgg", widths=(8,)), teacher)
        training.train(recipe.replace(epochs=2), data, tmp_path / "student", verbose=False)


def test_a_model_answers_with_the_classes_of_its_data(data, tmp_path):
    rows = data.labels < 3
    three = dataclasses.replace(data.select(rows), classes=("cross", "sick", "scared"))
    model = training.train(SMALL.replace(epochs=1), three, tmp_path / "three", verbose=False)
    assert model.output_shape == (None, 3)
    assert zoo.read_classes(tmp_path / "three/model.keras") == three.classes
    with pytest.raises(ValueError, match="knows other classes than cross, sick, scared"):
        training.train(SMALL.replace(teachers=["tiny"]), three, tmp_path / "taught")
    with pytest.raises(ValueError, match="FER2013's classes alone"):
        training.train(SMALL.replace(ferplus_weight=0.5), three, tmp_path / "voted")


def test_importing_ferlib_changes_nothing_in_keras():
    code = """
import keras
call = keras.layers.BatchNormalization.call
from ferlib import torch_layout, training
assert keras.layers.BatchNormalization.call is call
with torch_layout.channels_last():
    pass
assert keras.layers.BatchNormalization.call is call
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_ferlib_is_imported_where_there_is_no_error_stream():
    code = "import os; os.close(2); from ferlib import backend; print(backend.keras.__version__)"
    told = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert told.stdout.strip() == keras.__version__


def test_a_training_without_a_terminal_says_how_far_it_is(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(training, "PAUSE", 0)
    training.train(SMALL.replace(epochs=2), data, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("training epoch 1/2: 0% done")
    later = [line for line in lines if line.startswith("training epoch 2/2")]
    assert all("pictures/s" in line and line.endswith("left") for line in later)
    assert len(later) > 1
    ends = [line for line in lines if line.startswith("epoch ")]
    assert [line.split()[1] for line in ends] == ["1/2", "2/2"]
    assert "val accuracy" in ends[0]


def test_an_epoch_is_estimated_from_a_few_batches(data):
    assert 0 < training.seconds_per_epoch(SMALL, data) < 600


def test_what_learns_shares_no_path_with_what_teaches(data, tmp_path, monkeypatch):
    recipe, learners = SMALL.replace(epochs=1), []  # torch forgets gradients by path
    keras.backend.clear_session()  # each layer begins with the names of a fresh process
    zoo.save(models.build(recipe.model, **recipe.options), tmp_path / "teacher.keras")
    keras.backend.clear_session()
    fit = keras.Model.fit
    monkeypatch.setattr(
        keras.Model,
        "fit",
        lambda self, *args, **more: learners.append(self) or fit(self, *args, **more),
    )
    recipe = recipe.replace(teachers=[str(tmp_path / "teacher.keras")])
    training.train(recipe, data, tmp_path / "student", verbose=False)
    paths = [variable.path for variable in learners[0].variables]
    assert len(paths) > 2 * len(learners[0].trainable_variables)
    assert len(set(paths)) == len(paths)


def test_a_recipe_names_its_teachers_from_its_own_folder(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    teachers = ("compact", str(tmp_path / "b" / "teacher.keras"))
    recipe = Recipe(teachers=teachers, init=teachers[1])
    recipe.to_json(tmp_path / "a" / "r.json")
    written = json.loads((tmp_path / "a" / "r.json").read_text())
    assert written["teachers"] == ["compact", "../b/teacher.keras"]
    assert recipes.find(tmp_path / "a" / "r.json") == recipe
    monkeypatch.chdir(tmp_path)
    assert recipes.find("a/r.json").init == str(Path("b/teacher.keras"))


@pytest.mark.parametrize("text", ['{"init": 5}', '{"teachers": [5]}', '{"options": 5}',
                                  '{"augmentation": 5}'])  # fmt: skip
def test_a_recipe_with_a_field_of_another_kind_is_refused_by_name(tmp_path, text):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(ValueError, match=r"bad\.json is not a recipe"):
        recipes.find(tmp_path / "bad.json")


def test_recipes_survive_json_and_refuse_what_they_do_not_know(tmp_path):
    for name, shipped in recipes.RECIPES.items():
        shipped.to_json(tmp_path / f"{name}.json")
        assert recipes.find(tmp_path / f"{name}.json") == recipes.find(name) == shipped
    (tmp_path / "bad.json").write_text('{"epoch": 3}')
    with pytest.raises(ValueError, match="bad.json is not a recipe: no recipe has epoch"):
        recipes.find(tmp_path / "bad.json")
    with pytest.raises(ValueError, match="optimizer is 'adamx'; it must be adam, adamw or sgd"):
        Recipe(optimizer="adamx")
    with pytest.raises(FileNotFoundError, match="one of classic, classic_quick, compact"):
        recipes.find("compat")


def test_data_without_val_is_refused(data, tmp_path):
    with pytest.raises(ValueError, match="no pictures in val"):
        training.train(SMALL, data.of("train"), tmp_path / "out")


@pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine != "x86_64", reason="oneDNN's setting is of x86"
)
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="others compute in it anywhere")
def test_a_precision_that_a_processor_lacks_is_named_before_anything_is_written(tmp_path):
    command = [sys.executable, "-m", "ferlib", "train", "quick", "--data", "drawn:70"]
    command += ["--out", str(tmp_path / "run"), "-p", "precision=mixed_bfloat16"]
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    told = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert told.returncode == 1
    said = told.stderr.splitlines()[-1]
    assert "cannot compute in bfloat16 on this processor: take precision=float32" in said
    assert not (tmp_path / "run").exists()
