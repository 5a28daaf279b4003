"""Other backends, several devices and several processes: the same losses, the same answers.

JAX and torch are looked for in the environment of `$FERLIB_JAX_PYTHON` and `$FERLIB_TORCH_PYTHON`,
then in this one; `make test-backends` makes one. Everything here runs on the CPU.
"""

import importlib.util
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ferlib import batches, drawn, models, recipes, training, zoo
from ferlib.backend import keras

ROOT = Path(__file__).resolve().parent.parent
RECIPE = recipes.Recipe(
    model="residual",
    options={"widths": [8, 12], "dropout": 0.0},
    epochs=3,
    batch_size=32,
    learning_rate=1e-3,
    mixup=0.2,
    ema=0.9,
    augmentation=batches.Augmentation(erase=0.3),
)
DATA = "drawn:201"  # 29 pictures in val: no two devices have equal parts
WITHOUT_TENSORFLOW = """
import importlib.util, sys
if importlib.util.find_spec("tensorflow"):
    sys.exit(77)
import numpy as np
from ferlib import drawn, zoo
from ferlib.__main__ import main
assert main(["train", "recipe.json", "--out", "out", "--data", "drawn:201"]) == 0
images = drawn.draw(70, seed=1).images[..., None]
np.save("answers.npy", zoo.load("out/model.keras").predict(images, verbose=0))
"""
CONTINUED = """
import numpy as np
from ferlib import drawn, recipes, training
from ferlib.backend import keras

class Stop(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise KeyboardInterrupt

recipe = recipes.Recipe("residual", {"widths": [8], "blocks": 1, "dropout": 0.3}, epochs=2)
whole = training.train(recipe, drawn.draw(70), "whole", verbose=False)
try:
    training.train(recipe, drawn.draw(70), "half", callbacks=[Stop()], verbose=False)
except KeyboardInterrupt:
    half = training.train(recipe, drawn.draw(70), "half", verbose=False)
for one, other in zip(whole.get_weights(), half.get_weights(), strict=True):
    np.testing.assert_array_equal(one, other)
"""
HASTENED = """
import keras, numpy as np

def train():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    images = keras.Input((48, 48, 1))
    x = images
    pools = layers.MaxPooling2D(), layers.AveragePooling2D(2, padding="same")
    for strides, pool in enumerate(pools, 1):
        x = layers.Conv2D(32, 3, strides=strides, padding="same", use_bias=False)(x)
        x = pool(layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(x)))
    x = layers.Dense(7, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(images, x)
    model.compile(keras.optimizers.SGD(0.1), "categorical_crossentropy")
    losses = [model.train_on_batch(pictures, wanted) for _ in range(6)]
    return losses, model.predict(pictures, verbose=0)

rng = np.random.default_rng(0)
pictures = rng.normal(size=(128, 48, 48, 1)).astype("float32")
wanted = np.eye(7, dtype="float32")[rng.integers(0, 7, 128)]
call = keras.layers.BatchNormalization.call
losses, answers = train()
from ferlib import batches, torch_layout, training
with torch_layout.channels_last():
    assert keras.layers.BatchNormalization.call is not call
    again, same = train()
assert keras.layers.BatchNormalization.call is call
maps = rng.normal(np.tile([1, 0, 0, 0, 1, 0, 0, 0], (128, 1)), [.2, .2, 9, .2, .2, 9, 0, 0])
maps = maps.astype("float32")
for some in (pictures, pictures[:, :40].repeat(3, axis=-1)):
    how = {"fill_mode": "nearest", "data_format": "channels_last"}
    one = keras.ops.image.affine_transform(some, maps.copy(), **how)
    other = batches._moved(*map(keras.ops.convert_to_tensor, (some, maps)))
    np.testing.assert_allclose(*map(keras.ops.convert_to_numpy, (one, other)), rtol=0, atol=1e-3)
np.testing.assert_allclose(again, losses, rtol=0, atol=1e-5)
np.testing.assert_allclose(same, answers, rtol=0, atol=1e-4)
"""


def python(backend) -> str:
    """Finds a Python that has a backend, or skips the test."""
    name = f"FERLIB_{backend.upper()}_PYTHON"
    if not os.environ.get(name):
        if importlib.util.find_spec(backend):
            return sys.executable
        pytest.skip(f"{backend} is not installed and ${name} not set: make test-backends")
    return os.environ[name]


def start(folder, code, *arguments, backend, **more):
    """Starts Python in a folder that holds the recipe."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("KERAS_DISTRIBUTION")}
    environment = {"PYTHONPATH": str(ROOT), "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3", **more}
    return subprocess.Popen(
        [python(backend), *(["-c", code] if code else ["-m", "ferlib"]), *arguments],
        cwd=folder,
        env=inherited | environment,
        encoding="utf-8",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def train(folder, out, recipe=RECIPE, *, devices="one", **more):
    recipe.to_json(folder / "recipe.json")
    arguments = ["train", "recipe.json", "--out", out, "--data", DATA, "--devices", devices]
    return start(folder, None, *arguments, **more)


def end(process):
    _, error = process.communicate(timeout=1800)
    assert process.returncode == 0, error


def histories_agree(folder, first, second):
    one, two = (pd.read_csv(folder / name / "history.csv") for name in (first, second))
    pd.testing.assert_frame_equal(
        one.drop(columns="seconds"), two.drop(columns="seconds"), rtol=0, atol=1e-5
    )
    val = drawn.draw(201, seed=0).images[..., None]
    one, two = (zoo.load(folder / name / "model.keras") for name in (first, second))
    np.testing.assert_allclose(
        one.predict(val, verbose=0), two.predict(val, verbose=0), rtol=0, atol=1e-4
    )


@pytest.mark.slow
def test_two_devices_give_the_losses_of_one(tmp_path):
    recipe = RECIPE.replace(options=RECIPE.options | {"dropout": 0.2})
    end(train(tmp_path, "one", recipe, backend="jax"))
    flags = "--xla_force_host_platform_device_count=2"
    end(train(tmp_path, "two", recipe, backend="jax", devices="all", XLA_FLAGS=flags))
    assert zoo.read_card(tmp_path / "two/model.keras")["devices"] == 2
    histories_agree(tmp_path, "one", "two")


def two(folder, out, recipe):
    """Starts two processes on this machine that train together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    return [
        train(
            folder,
            out,
            recipe,
            backend="jax",
            devices="all",
            KERAS_DISTRIBUTION_JOB_ADDRESSES=address,
            KERAS_DISTRIBUTION_NUM_PROCESSES="2",
            KERAS_DISTRIBUTION_PROCESS_ID=str(number),
        )
        for number in range(2)
    ]


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one_also_after_either_was_killed(tmp_path):
    recipe = RECIPE.replace(options=RECIPE.options | {"dropout": 0.2}, epochs=6)
    alone = train(tmp_path, "one", recipe, backend="jax")
    for killed, epoch in ((1, 1), (0, 3)):
        processes = two(tmp_path, "two", recipe)
        for line in processes[0].stdout:
            if line.startswith(f"epoch {epoch}/"):
                break
        processes[killed].kill()
        began = time.monotonic()
        left = processes[1 - killed]
        _, error = left.communicate(timeout=600)
        print(f"process {1 - killed} ended after {time.monotonic() - began:.0f} s: {error}")
        assert left.returncode not in (0, None)
        assert "If another process has ended" in error or "another task died" in error
        processes[killed].communicate()
    processes = two(tmp_path, "two", recipe)
    told, error = processes[0].communicate(timeout=1800)
    end(processes[1])
    assert processes[0].returncode == 0, error
    assert "continues after epoch" in told
    end(alone)
    histories_agree(tmp_path, "one", "two")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_model_trained_without_tensorflow_answers_the_same_on_it(backend, tmp_path):
    RECIPE.to_json(tmp_path / "recipe.json")
    process = start(tmp_path, WITHOUT_TENSORFLOW, backend=backend)
    if process.wait(1800) == 77:
        pytest.skip(f"{python(backend)} has TensorFlow too: make test-backends")
    end(process)
    model = zoo.load(tmp_path / "out/model.keras")
    assert zoo.read_card(tmp_path / "out/model.keras")["backend"] == backend
    answers = model.predict(drawn.draw(70, seed=1).images[..., None], verbose=0)
    np.testing.assert_allclose(answers, np.load(tmp_path / "answers.npy"), rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_training_that_was_interrupted_ends_with_the_same_bits(backend, tmp_path):
    end(start(tmp_path, CONTINUED, backend=backend))


@pytest.mark.slow
def test_what_torch_is_spared_changes_no_result(tmp_path):
    end(start(tmp_path, HASTENED, backend="torch"))


@pytest.mark.slow
def test_a_student_learns_on_torch_as_on_tensorflow(tmp_path):
    for seed, name in enumerate(("teacher", "first")):  # each with the names of a fresh process
        keras.backend.clear_session()
        keras.utils.set_random_seed(seed)
        zoo.save(models.build(RECIPE.model, **RECIPE.options), tmp_path / f"{name}.keras")
    first, teacher = (str(tmp_path / f"{name}.keras") for name in ("first", "teacher"))
    recipe = RECIPE.replace(init=first, teachers=[teacher], augmentation=None)
    recipe = recipe.replace(optimizer="sgd", learning_rate=0.05)
    for backend in ("tensorflow", "torch"):
        end(train(tmp_path, f"on {backend}", recipe, backend=backend))
    paths = (tmp_path / f"on {name}" / "history.csv" for name in ("tensorflow", "torch"))
    one, two = map(pd.read_csv, paths)
    assert one.loss.iloc[-1] < one.loss[0] - 0.02
    np.testing.assert_allclose(two.loss, one.loss, rtol=1e-3)
    np.testing.assert_allclose(two.val_loss, one.val_loss, rtol=1e-3)


def test_the_parts_of_a_batch_make_it_up():
    images = np.arange(10 * 48 * 48, dtype="uint32").astype("uint8").reshape(10, 48, 48)
    targets = batches.targets(np.arange(10) % 7)
    options = {"batch_size": 6, "seed": 1, "mixup": 0.2}
    whole = batches.Batches(images, targets, **options)[0]
    parts = [batches.Batches(images, targets, part=(i, 3), **options)[0] for i in range(3)]
    for number in range(2):
        joined = np.concatenate([part[number] for part in parts])
        np.testing.assert_array_equal(joined, whole[number])


def test_every_picture_of_val_counts_once_however_it_is_shared():
    x, y = np.arange(29), np.arange(29)
    parts = [training.Spread(devices=4, process=k, processes=2).share(x, y) for k in range(2)]
    assert [len(part[0]) for part in parts] == [16, 16]
    rows, _, weights = (np.concatenate([part[i] for part in parts]) for i in range(3))
    assert sorted(rows[weights > 0]) == list(x)
    assert weights.sum() == pytest.approx(32)


def test_devices_that_cannot_share_a_batch_are_refused(monkeypatch, faces, tmp_path):
    with pytest.raises(ValueError, match='it must be "one" or "all"'):
        training.train(RECIPE, faces, tmp_path, devices="both")
    with pytest.raises(ValueError, match="on JAX alone: set KERAS_BACKEND=jax"):
        training.train(RECIPE, faces, tmp_path, devices="all")
    monkeypatch.setattr(training.Spread, "over", lambda devices: training.Spread(devices=3))
    with pytest.raises(ValueError, match="batch of 32 pictures cannot be shared .* 3 devices"):
        training.train(RECIPE, faces, tmp_path, devices="all")
