"""Transfer models: built, trained, saved, loaded, and what is said when weights are missing."""

import json
import zipfile
from urllib.error import URLError

import keras
import numpy as np
import pytest

from ferlib import drawn, evaluation, models, recipes, training, zoo

QUICK = ("MobileNet", "VGG16")


def recipe(backbone, trained, **changes):
    options = {"backbone": backbone, "size": 32, "trained": trained}
    changes = {"epochs": 1, "batch_size": 16, **changes}
    if trained == "head":
        changes["augmentation"] = None
    return recipes.RECIPES["fine_tuned"].replace(options=options, **changes)


@pytest.fixture(scope="module")
def few():
    return drawn.draw(84, seed=3)


@pytest.fixture(scope="module")
def frozen(few, tmp_path_factory):
    out = tmp_path_factory.mktemp("transfer") / "frozen"
    training.train(recipe("MobileNet", "head", epochs=2), few, out, verbose=False)
    return out


@pytest.mark.parametrize(
    "name",
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in models.BACKBONES],
)
def test_every_backbone_is_trained_saved_loaded_and_evaluated(name, few, tmp_path):
    trained = training.train(recipe(name, "top"), few, tmp_path, verbose=False)
    path = tmp_path / "model.keras"
    report = evaluation.evaluate(path, few, split="val")
    answers = trained.predict(few.of("val").images[..., None], verbose=0)
    assert np.allclose(report.probabilities, answers, atol=1e-5)
    assert zoo.read_card(path)["recipe"]["options"]["backbone"] == name
    with zipfile.ZipFile(path) as archive:
        config = archive.read("config.json").decode()
    assert "ferlib" not in config and "Lambda" not in config


@pytest.mark.parametrize("name", models.BACKBONES)
def test_preprocessing_is_the_backbones_own(name):
    picture = np.arange(256, dtype="float32").reshape(1, 16, 16, 1).repeat(3, axis=3)
    own = getattr(keras.applications, name).__module__
    own = __import__(own, fromlist=["preprocess_input"]).preprocess_input(picture.copy())
    scale, offset = models.PREPROCESSING[models.BACKBONES[name][0]]
    assert np.allclose(own, picture * np.array(scale) + np.array(offset), atol=1e-4)


def test_preprocessing_is_inside_the_model():
    means = {}
    for mode in ("tf", "caffe"):
        keras.utils.clear_session()
        model = models.transfer("MobileNet", size=32, preprocessing=mode)
        inner = keras.Model(model.inputs, model.get_layer("resizing").output)
        assert inner.output_shape == (None, 32, 32, 3)
        white = np.full((1, 48, 48, 1), 255, "uint8")
        means[mode] = inner.predict(white, verbose=0).mean((0, 1, 2))
    assert np.allclose(means["tf"], 1)
    assert np.allclose(means["caffe"], 255 - np.array([103.939, 116.779, 123.68]))


def test_parts_that_are_trained():
    def trained(part):
        model = models.transfer("MobileNet", size=32, trained=part)
        return {v.path.split("/")[0] for v in model.trainable_variables}

    assert trained("head") == {"logits"}
    assert trained("top") == {"conv_dw_12", "conv_pw_12", "conv_dw_13", "conv_pw_13", "logits"}
    assert trained("conv_pw_13") == {"conv_pw_13", "logits"}
    assert "conv1" in trained("all") and "conv1_bn" not in trained("all")
    assert "conv1_bn" in trained("scratch")
    with pytest.raises(ValueError, match="no part of MobileNet"):
        trained("conv_99")


def test_fine_tuning_continues_from_the_frozen_model_and_keeps_batch_norm(few, frozen, tmp_path):
    path, val = tmp_path / "model.keras", few.of("val").images
    first = zoo.load(frozen / "model.keras")
    for layer in first.get_layer("mobilenet_1.00_32").layers:
        # Through random kernels and frozen normalisation nothing would be left of a picture.
        layer.set_weights([5 * w if w.ndim == 4 else w for w in layer.get_weights()])
    zoo.save(first, path)
    step = recipe("MobileNet", "top", init=str(path), learning_rate=1e-9, weight_decay=0.0)
    same = training.train(step, few, tmp_path / "same", verbose=False)
    before = evaluation.probabilities(path, val)
    assert np.allclose(evaluation.probabilities(same, val), before, rtol=0, atol=1e-6)

    step = step.replace(learning_rate=1e-3)
    tuned = training.train(step, few, tmp_path / "tuned", verbose=False)
    assert not np.allclose(evaluation.probabilities(tuned, val), before, rtol=0, atol=1e-5)
    old, new = (m.get_layer("mobilenet_1.00_32") for m in (zoo.load(path), tuned))
    for layer, then in zip(old.layers, new.layers, strict=True):
        kept = all(map(np.array_equal, layer.get_weights(), then.get_weights()))
        changes = layer.name in ("conv_dw_12", "conv_pw_12", "conv_dw_13", "conv_pw_13")
        assert kept != changes, layer.name


def test_a_tuned_model_knows_the_pictures_of_the_model_it_began_with(few, frozen, tmp_path):
    others = drawn.draw(84, seed=4)
    step = recipe("MobileNet", "head", init=str(frozen / "model.keras"))
    training.train(step, others, tmp_path, verbose=False)
    seen = zoo.read_seen(tmp_path / "model.keras")
    assert np.isin(zoo.read_seen(frozen / "model.keras"), seen).all()
    assert len(seen) == len(others.of("train")) + len(few.of("train"))
    (before,) = zoo.read_card(tmp_path / "model.keras")["built on"].values()
    assert before["recipe"]["model"] == "transfer"


def test_a_changed_first_model_is_another_training(few, frozen, tmp_path):
    first = zoo.save(zoo.load(frozen / "model.keras"), tmp_path / "first.keras")
    step = recipe("MobileNet", "head", init=str(first))
    training.train(step, few, tmp_path / "out", verbose=False)
    zoo.save(zoo.load(frozen / "model.keras"), first, card={"new": True})
    with pytest.raises(FileExistsError, match="content of init"):
        training.train(step, few, tmp_path / "out", verbose=False)


@pytest.mark.slow
def test_stopped_fine_tuning_ends_as_if_it_had_not_been(few, frozen, tmp_path):
    step = recipe("MobileNet", "all", init=str(frozen / "model.keras"), epochs=3)

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(step, few, tmp_path / "stopped", callbacks=[Stop()], verbose=False)
    stopped = training.train(step, few, tmp_path / "stopped", verbose=False)
    whole = training.train(step, few, tmp_path / "whole", verbose=False)
    assert all(map(np.array_equal, stopped.get_weights(), whole.get_weights()))


def test_a_failed_download_says_what_to_do(monkeypatch, tmp_path):
    def no_network(*_):
        raise URLError("no network")

    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))

    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", no_network)
    with pytest.raises(FileNotFoundError) as error:
        models.transfer("VGG19", size=32, weights="imagenet")
    file = "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5"
    for what in ("VGG19", file, "models", "weights=FILE", "not transfer learning"):
        assert what in str(error.value)


def test_weights_from_a_file(tmp_path):
    source = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(64, 64, 3))
    file = tmp_path / "mobilenet.weights.h5"
    source.save_weights(file)
    model = models.transfer("MobileNet", size=32, weights=file)
    backbone = model.get_layer("mobilenet_1.00_32")
    assert all(map(np.array_equal, backbone.get_weights(), source.get_weights()))
    with pytest.raises(ValueError, match="VGG16 cannot be built .*mobilenet.weights.h5"):
        models.transfer("VGG16", size=32, weights=file)
    with pytest.raises(FileNotFoundError, match="none.h5 for VGG16"):
        models.transfer("VGG16", size=32, weights="none.h5")
    with pytest.raises(ValueError, match="AlexNet"):
        models.transfer("AlexNet")


def test_transfer_recipes_are_json(tmp_path):
    made = recipes.RECIPES["fine_tuned"]
    made.to_json(tmp_path / "r.json")
    assert recipes.Recipe.from_json(tmp_path / "r.json") == made
    assert json.loads((tmp_path / "r.json").read_text())["options"]["trained"] == "all"
