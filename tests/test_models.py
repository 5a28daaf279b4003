"""Models: the contract, saving, loading and names."""

import doctest
import importlib
import importlib.util
import json
import subprocess
import sys
import warnings
import zipfile

import keras
import numpy as np
import pytest
from conftest import ROOT

from ferlib import models, recipes, zoo

OURS = ROOT / "experiments" / "recipes"


def experiment(name):
    """Reads the recipe of a shipped model, a member or a teacher."""
    return recipes.find(OURS / f"{name}.json")


@pytest.mark.parametrize(
    "name",
    ["batches", "models", "zoo", "recipes", "torch_layout", "evaluation", "explain", "plots"],
)
def test_examples(name):
    with warnings.catch_warnings(action="ignore"):  # of statistics on a few pictures
        assert doctest.testmod(importlib.import_module(f"ferlib.{name}")).failed == 0


@pytest.fixture(scope="module")
def tiny():
    return models.build("residual", widths=(8, 8, 8))


@pytest.mark.parametrize("name", models.BUILDERS)
def test_every_model_maps_grey_pictures_to_seven_probabilities(name, faces):
    if name == "transfer":
        pytest.skip("tests/test_transfer.py builds every backbone")
    model = models.build(name)
    answer = keras.ops.convert_to_numpy(model(faces.images[:2][..., None]))
    assert model.input_shape == (None, 48, 48, 1) and answer.shape == (2, 7)
    np.testing.assert_allclose(answer.sum(axis=1), 1, atol=1e-5)
    assert model.get_layer("logits").output.shape == (None, 7)


def test_a_model_has_as_many_outputs_as_there_are_classes(faces):
    for name, options in {"vgg": {}, "transfer": {"backbone": "MobileNet", "size": 32}}.items():
        model = models.build(name, classes=3, **options)
        assert model.output_shape == (None, 3)


def test_a_stem_halves_the_resolution_before_the_stages():
    model = models.build("vgg", stem=4, widths=(8, 16), convs=(1, 2), flatten=True)
    convolutions = [x for x in model.layers if isinstance(x, keras.layers.Conv2D)]
    shapes = [x.output.shape[1:] for x in convolutions]
    assert shapes == [(22, 22, 4), (22, 22, 8), (11, 11, 16), (11, 11, 16)]
    assert model.get_layer("logits").input.shape == (None, 11 * 11 * 16)


def test_models_have_the_size_that_is_said():
    some = {name: recipes.RECIPES[name] for name in ("classic", "compact", "tiny")}
    some["accurate"] = experiment("accurate")
    built = {name: models.build(r.model, **r.options) for name, r in some.items()}
    sizes = {name: model.count_params() for name, model in built.items()}
    assert 3.5e6 < sizes["classic"] < 4.5e6
    assert 0.8e6 < sizes["compact"] < 1.3e6
    assert sizes["tiny"] <= 0.3e6 and sizes["accurate"] <= 5e6


@pytest.mark.parametrize("name", ["vgg", "residual"])
def test_our_models_do_not_mind_light_and_contrast(name, faces):
    model = models.build(name)
    images = (faces.images[:4][..., None] // 2 + 20).astype("uint8")
    dark = keras.ops.convert_to_numpy(model(images))
    bright = keras.ops.convert_to_numpy(model(images + 60))
    np.testing.assert_allclose(dark, bright, atol=1e-2)


def test_a_saved_model_answers_alike_and_knows_its_origin(tiny, faces, tmp_path):
    seen = np.array([3, 2**63 + 1], "uint64")
    path = zoo.save(tiny, tmp_path / "a" / "m.keras", card={"name": "m"}, seen=seen)
    images = faces.images[:4][..., None]
    np.testing.assert_allclose(zoo.load(path)(images), tiny(images), atol=1e-6)
    assert zoo.read_card(path) == {"name": "m"}
    np.testing.assert_array_equal(zoo.read_seen(path), np.sort(seen))
    assert list(path.parent.iterdir()) == [path]
    plain = keras.saving.load_model(path)  # Keras alone reads it too
    np.testing.assert_allclose(plain(images), tiny(images), atol=1e-6)


@pytest.fixture(scope="module")
def ship():
    spec = importlib.util.spec_from_file_location("ship", ROOT / "experiments" / "ship.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_half_weights_take_half_the_space_and_answer_almost_alike(faces, tmp_path, ship):
    model = zoo.average([models.build("residual", widths=(16, 32, 64)) for _ in range(2)])
    whole = zoo.save(model, tmp_path / "whole.keras", card={"name": "m"})
    half = zoo.save(model, tmp_path / "half.keras", card={"name": "m"})
    ship.halve(half)
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    images = faces.images[:8][..., None]
    loaded = zoo.load(half)
    np.testing.assert_allclose(loaded(images), model(images), atol=5e-3)
    assert zoo.members(loaded)[0].get_layer("logits").kernel.dtype == "float32"
    assert zoo.read_card(half) == {"name": "m"}


def test_the_mean_of_weights_lies_between_the_models(ship):
    made = [models.build("vgg", widths=(8, 8)) for _ in range(2)]
    first, second = (model.get_weights() for model in made)
    mean = ship.mean_of_weights(made).get_weights()
    for one, other, between in zip(first, second, mean, strict=True):
        np.testing.assert_allclose(between, (one + other) / 2, atol=1e-6)
    assert any(np.abs(one - other).max() > 0.01 for one, other in zip(first, second, strict=True))


def test_a_saved_model_asks_for_nothing_that_older_keras_lacks(tmp_path):
    path = zoo.save(models.build("residual"), tmp_path / "model.keras")
    text = zipfile.ZipFile(path).read("config.json").decode()
    for option in ("input_axes", "renorm", "quantization_config"):
        assert option not in text
    assert '"momentum": 0.9' in text


def test_an_ensemble_answers_with_the_mean_of_its_members(tiny, faces, tmp_path):
    other = models.build("vgg", widths=(8, 8))
    other_file = zoo.save(other, tmp_path / "other.keras")
    path = zoo.save(zoo.average([tiny, other_file]), tmp_path / "both.keras")
    both, images = zoo.load(path), faces.images[:4][..., None]
    mean = (tiny(images) + other(images)) / 2
    np.testing.assert_allclose(both(images), mean, atol=1e-6)
    assert [len(m.layers) for m in zoo.members(both)] == [len(tiny.layers), len(other.layers)]
    assert zoo.members(other) == [other]
    wrapped = keras.Sequential([keras.Input((48, 48, 1), dtype="uint8"), other])
    assert zoo.members(wrapped) == [wrapped]


def test_classes_are_those_of_the_card_else_of_the_outputs(tiny, tmp_path):
    three = models.build("vgg", classes=3, widths=(8,))
    names = ("calm", "glad", "cross")
    named = zoo.save(three, tmp_path / "named.keras", card={"classes": names})
    unnamed = zoo.save(three, tmp_path / "unnamed.keras")
    assert zoo.load(named).output_shape == (None, 3)
    assert zoo.read_classes(named) == names
    assert zoo.read_classes(unnamed) == ("class 0", "class 1", "class 2")
    assert zoo.read_classes(tiny) == zoo.read_classes("tiny") == zoo.EMOTIONS


def test_models_are_found_and_cards_read_without_keras():
    code = (
        "import sys; from ferlib import zoo; zoo.read_card('tiny'); print('keras' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert told.stdout == "False\n", told.stderr


def test_a_file_from_elsewhere_has_no_card(tiny, tmp_path):
    tiny.save(tmp_path / "m.keras")
    assert zoo.read_card(tmp_path / "m.keras") == {}
    assert zoo.read_seen(tmp_path / "m.keras") is None


@pytest.mark.filterwarnings("ignore:You are saving a model that has not yet been built")
def test_a_model_without_shapes_is_refused(tmp_path):
    path = tmp_path / "m.keras"
    keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(7)]).save(path)
    with pytest.raises(ValueError, match="m.keras cannot be loaded safely"):
        zoo.load(path)


def test_an_older_h5_file_is_read(faces, tmp_path):
    images = keras.Input((48, 48, 1))
    out = keras.layers.Dense(7, activation="softmax")(keras.layers.Flatten()(images))
    model = keras.Model(images, out)
    model.save(tmp_path / "m.h5")
    loaded = zoo.load(tmp_path / "m.h5")
    x = faces.images[:2][..., None].astype("float32")
    np.testing.assert_allclose(loaded(x), model(x), atol=1e-6)


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_a_file_that_would_run_code_is_refused(suffix, tmp_path):
    images = keras.Input((48, 48, 1))
    x = keras.layers.Lambda(lambda v: v * 2)(images)
    out = keras.layers.Dense(7, activation="softmax")(keras.layers.Flatten()(x))
    path = tmp_path / f"evil.{suffix}"
    keras.Model(images, out).save(path)
    with pytest.raises(ValueError, match="evil.* cannot be loaded safely") as error:
        zoo.load(path)
    assert "safe_mode" not in str(error.value)


def test_wrong_files_and_shapes_say_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="give a model's file, .* or a shipped name"):
        zoo.load(tmp_path / "absent.keras")
    images = keras.Input((64, 64, 1))
    keras.Model(images, keras.layers.Flatten()(images)).save(tmp_path / "big.keras")
    with pytest.raises(ValueError, match=r"\(None, 48, 48, 1\) to"):
        zoo.load(tmp_path / "big.keras")
    with pytest.raises(ValueError, match="There is no model 'vast'"):
        models.build("vast")


@pytest.fixture(scope="module")
def strange(tiny, tmp_path_factory):
    """Gives files that are no whole model of Keras 3."""
    folder = tmp_path_factory.mktemp("strange")
    (folder / "text.keras").write_text("no model")
    whole = zoo.save(tiny, folder / "whole.keras").read_bytes()
    (folder / "cut.keras").write_bytes(whole[: len(whole) // 2])
    tiny.save_weights(folder / "m.weights.h5")
    images = keras.Input((48, 48, 1))
    plain = keras.Model(images, keras.layers.Dense(7)(keras.layers.Flatten()(images)))
    plain.save(folder / "plain.h5")
    data = (folder / "plain.h5").read_bytes()
    (folder / "cut.h5").write_bytes(data[: len(data) // 2])
    import h5py

    with h5py.File(folder / "plain.h5", "r+") as file:
        file.attrs["keras_version"] = "2.15.0"
        file.attrs["model_config"] = '{"class_name": "Functional", "config": {"layers": 3}}'
    (folder / "plain.h5").rename(folder / "old.h5")
    with zipfile.ZipFile(folder / "torch.keras", "w") as archive:
        archive.writestr("archive/data.pkl", "")
    (folder / "model.pth").write_bytes(b"\x80\x02")
    return folder


@pytest.mark.parametrize(
    ("file", "told"),
    {
        "text.keras": "no Keras model, or it is damaged",
        "cut.keras": "no Keras model, or it is damaged",
        "cut.h5": "no Keras model, or it is damaged",
        "m.weights.h5": "holds weights without their network",
        "old.h5": "written by Keras 2.15.0, and Keras 3 cannot read it",
        "torch.keras": "a file of PyTorch",
        "model.pth": "a file of PyTorch",
    }.items(),
)
def test_what_a_strange_file_is(file, told, strange):
    with pytest.raises(ValueError, match=f"{file} .*{told}") as error:
        zoo.load(strange / file)
    assert "safe_mode" not in str(error.value)


@pytest.mark.parametrize("read", [zoo.read_seen, zoo.read_card])
def test_a_damaged_member_of_a_file_without_a_digest_is_named(read, tmp_path):
    path = tmp_path / "mine.keras"
    data = bytearray(zoo.find("tiny").read_bytes())
    with zipfile.ZipFile(zoo.find("tiny")) as archive:
        for name in (zoo.CARD, "ferlib/seen.npy"):
            data[archive.getinfo(name).header_offset + 60] ^= 255
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"mine\.keras is damaged"):
        read(path)


def test_a_card_without_weights_says_how_to_make_them(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "PRETRAINED", tmp_path)
    (tmp_path / "large.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="large.json there.*ship.py large RUN"):
        zoo.load("large")


@pytest.mark.parametrize("name", zoo.shipped())
def test_shipped_models_load_and_carry_card_and_hashes(name, faces):
    with zipfile.ZipFile(zoo.find(name)) as archive:
        assert archive.testzip() is None
    model = zoo.load(name)
    answers = keras.ops.convert_to_numpy(model(faces.images[:2][..., None]))
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-4)
    card = zoo.read_card(name)
    assert card["data"]["fingerprint"]
    assert all(member["recipe"]["model"] for member in card.get("members", [card]))
    assert len(zoo.read_seen(name)) > 20000


@pytest.mark.parametrize(
    ("name", "recipe"),
    {
        "accurate": "accurate_any_size",
        "compact": "compact_any_size",
        "tiny": "tiny_any_size",
        "compact_ferplus": "compact_ferplus_any_size",
    }.items(),
)
def test_a_shipped_model_was_trained_by_its_recipe(name, recipe, monkeypatch):
    monkeypatch.chdir(ROOT)
    trained = recipes.Recipe(**zoo.read_card(name)["recipe"])
    assert recipes.find(f"experiments/recipes/{recipe}.json") == trained
    built = models.build(trained.model, **trained.options).get_weights()
    shapes = [w.shape for w in zoo.load(name).get_weights()]
    assert shapes == [w.shape for w in built]


def test_the_ensemble_is_made_of_shipped_models():
    card = json.loads((zoo.PRETRAINED / "ensemble.json").read_text())
    recipes_of = [member["recipe"] for member in card["members"]]
    assert recipes_of == [zoo.read_card(name)["recipe"] for name in ("accurate", "compact")]


def test_accurate_was_taught_by_the_five_members():
    taught = [str(ROOT / "runs" / f"member_{n}" / "model.keras") for n in range(1, 6)]
    assert list(experiment("accurate").teachers) == taught


def test_the_recipes_of_experiments_build_on_each_other_or_on_shipped_models():
    for path in OURS.glob("*.json"):
        recipe = recipes.find(path)
        for model in {recipe.init, *recipe.teachers} - {"", "ensemble"}:
            made_here = (OURS / f"{model.split('/')[-2:][0]}.json").exists()
            assert made_here or model in zoo.shipped(), (path, model)
