import json
import time
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers
from scipy.special import softmax
from sklearn import metrics

from ferlib import evaluation, explain, models, runtimes, zoo
from ferlib.labels import EMOTIONS


@pytest.fixture
def answers(faces):
    """Labels and answers of an imagined model that is right about half the time."""
    rng = np.random.default_rng(1)
    labels = faces.labels
    logits = rng.normal(size=(len(labels), 7))
    logits[np.arange(len(labels)), labels] += 1.5
    return softmax(logits, axis=1).astype("float32"), labels


@pytest.fixture
def val(faces):
    return faces.of("val")


def always(data, right=1.0):
    """Probabilities that give the label `right`, the rest shared."""
    p = np.full((len(data), 7), (1 - right) / 6, "float32")
    p[np.arange(len(data)), data.labels] = right
    return p


def looks_at_corner():
    """A CNN whose answer depends on the upper left corner alone: bright is happy, dark is sad."""
    inputs = keras.Input((48, 48, 1), dtype="uint8")
    mask = np.zeros((1, 48, 48, 1), "float32")
    mask[:, :12, :12] = 1
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="eyes")(x)
    body_input = keras.Input((48, 48, 8))
    y = layers.Conv2D(8, 3, padding="same", activation="relu")(body_input)
    y = layers.AveragePooling2D(4)(y)
    body = keras.Model(body_input, keras.Sequential([layers.Activation("linear")])(y), name="body")
    x = layers.Flatten()(body(x))
    logits = layers.Dense(7, name="logits")(x)
    model = keras.Model(inputs, layers.Softmax()(logits))
    kernel = np.zeros((12, 12, 8, 7), "float32")
    kernel[:3, :3, :, EMOTIONS.index("happy")] = 1
    kernel[:3, :3, :, EMOTIONS.index("sad")] = -1
    for layer in (model.get_layer("eyes"), *body.layers):
        if layer.weights:
            layer.set_weights([np.abs(layer.get_weights()[0]), layer.get_weights()[1]])
    model.get_layer("logits").set_weights([kernel.reshape(-1, 7), np.zeros(7)])
    return model


def test_metrics_are_those_of_scikit_learn(faces, answers):
    p, labels = answers
    report = evaluation.report_on(p, faces, "imagined", resamples=20)
    value = {name: estimate.value for name, estimate in report.metrics.items()}
    predicted = p.argmax(axis=1)
    assert value == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(labels, predicted),
            "balanced_accuracy": metrics.balanced_accuracy_score(labels, predicted),
            "top2_accuracy": metrics.top_k_accuracy_score(labels, p, k=2),
            "macro_f1": metrics.f1_score(labels, predicted, average="macro"),
            "log_loss": metrics.log_loss(labels, p),
        },
        abs=1e-5,
    )
    table = metrics.precision_recall_fscore_support(labels, predicted)
    assert (
        pytest.approx(np.array(table))
        == report.per_class[["precision", "recall", "f1", "support"]].to_numpy().T
    )
    assert (report.confusion == metrics.confusion_matrix(labels, predicted)).all()


def test_intervals_are_those_of_the_plain_bootstrap(faces, answers):
    p, labels = answers
    report = evaluation.report_on(p, faces, "imagined", resamples=1000)
    rng = np.random.default_rng(5)
    scores = []
    for _ in range(400):
        picks = rng.integers(len(labels), size=len(labels))
        scores.append(metrics.f1_score(labels[picks], p[picks].argmax(axis=1), average="macro"))
    found = report.metrics["macro_f1"]
    assert (found.low, found.high) == pytest.approx(np.percentile(scores, (2.5, 97.5)), abs=0.008)
    accuracy = report.metrics["accuracy"]
    half = 1.96 * np.sqrt(accuracy.value * (1 - accuracy.value) / len(labels))
    assert accuracy.high - accuracy.value == pytest.approx(half, rel=0.2)


def test_bootstrap_of_fer2013s_test_split_is_quick(val):
    rng = np.random.default_rng(0)
    data = val.select(np.arange(3589) % len(val))
    p = rng.dirichlet(np.ones(7), 3589)
    start = time.process_time()
    evaluation.report_on(p, data, "imagined")
    assert time.process_time() - start < 6  # about 0.5 s; processes share the cores here


def test_emotions_without_pictures_are_undefined_not_wrong(faces):
    some = faces.select(faces.labels < 2)
    report = evaluation.report_on(always(some), some, "perfect", resamples=50)
    assert report.metrics["balanced_accuracy"].value == pytest.approx(1)
    assert np.isnan(report.per_class.loc["happy", "recall"])
    assert report.to_dict()["per_class"]["happy"]["recall"] is None


def test_evaluate_separates_seen_pictures(faces, tmp_path):
    from ferlib import cleaning, zoo

    model = models.build("residual", widths=(16, 32, 64))
    held_out = faces.of("test")
    known = cleaning.picture_hashes(held_out.images[:30])
    path = zoo.save(model, tmp_path / "model.keras", card={}, seen=known)
    report = evaluation.evaluate(path, faces, resamples=50)
    assert report.split == "test"
    assert report.seen.sum() == 30
    right = (report.predicted == held_out.labels)[30:]
    assert report.unseen["accuracy"].value == pytest.approx(right.mean())
    assert "30 of the" in str(report)
    written = report.to_dict()
    assert written == json.loads(json.dumps(written))
    assert written["seen"] == 30 and written["choices_made_on_split"] is False

    unknown = evaluation.evaluate(model, faces, split="val", resamples=50)
    assert unknown.seen is None and unknown.unseen is None
    assert "unknown" in str(unknown) and "choices were made on" in str(unknown)


@pytest.mark.parametrize(("suffix", "counted"), [(".png", True), (".jpg", False)])
def test_copies_saved_with_loss_are_not_called_unseen(faces, tmp_path, suffix, counted):
    from PIL import Image

    from ferlib import cleaning, sources

    for row in range(0, len(faces), 5):
        emotion = EMOTIONS[faces.labels[row]]
        path = tmp_path / "set" / str(faces.split[row]) / emotion / f"{row}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(faces.images[row]).save(path)
    saved = sources.load(tmp_path / "set", cache=False)
    model = models.build("residual", widths=(8,))
    known = cleaning.picture_hashes(faces.images)
    report = evaluation.evaluate(model, saved, seen=known, resamples=10)
    assert report.unseen is None
    assert (report.seen is not None and report.seen.all()) == counted
    assert ("an unknown number" in str(report)) != counted
    own = cleaning.picture_hashes(saved.of("train").images)  # trained on these very files
    report = evaluation.evaluate(model, saved, seen=own, resamples=10)
    assert report.seen is not None and not report.seen.any()


def test_a_missing_split_is_named(faces):
    with pytest.raises(ValueError, match="no test split .*train"):
        evaluation.evaluate(models.build("vgg"), faces.of("train"), split="test")


def test_flipping_pictures_does_not_change_what_tta_answers(val):
    model = models.build("residual", widths=(16, 32, 64))
    mirrored = val.images[:, :, ::-1]
    for tta in ("flip", "ten"):
        p = evaluation.probabilities(model, val.images, tta=tta)
        assert p.sum(axis=1) == pytest.approx(1, abs=1e-5)
        assert p == pytest.approx(evaluation.probabilities(model, mirrored, tta=tta), abs=1e-5)
    plain = evaluation.probabilities(model, val.images)
    assert np.abs(plain - evaluation.probabilities(model, mirrored)).max() > 1e-4
    with pytest.raises(ValueError, match="flip"):
        evaluation.probabilities(model, val.images, tta="flop")


def test_a_uniform_prior_undoes_the_shares_of_the_training(faces, tmp_path):
    """Bayes: what was learned where a class is rare, asked where none is."""
    rng = np.random.default_rng(0)
    likelihood, shares = rng.dirichlet(np.ones(7), 500), rng.dirichlet(np.full(7, 5))
    learned = likelihood * shares
    learned /= learned.sum(axis=1, keepdims=True)
    found = runtimes.to_uniform_prior(learned, shares)
    assert found == pytest.approx(likelihood, abs=1e-6) and found.dtype == np.float32
    assert runtimes.to_uniform_prior(learned, shares, 0) == pytest.approx(learned, abs=1e-6)

    model = models.build("vgg", widths=(8,))
    card = {"classes": EMOTIONS, "data": {"shares": dict(zip(EMOTIONS, shares, strict=True))}}
    path = zoo.save(model, tmp_path / "model.keras", card=card)
    plain = evaluation.evaluate(path, faces, split="val", resamples=20)
    report = evaluation.evaluate(path, faces, split="val", prior="uniform", resamples=20)
    expected = runtimes.to_uniform_prior(plain.probabilities, shares)
    assert report.probabilities == pytest.approx(expected, abs=1e-6)
    assert "prior uniform (1)" in str(report) and not plain.reading
    half = runtimes.open_model(path, prior="0.5")(faces.of("val").images)
    assert half == pytest.approx(
        runtimes.to_uniform_prior(plain.probabilities, shares, 0.5), abs=1e-6
    )


@pytest.mark.parametrize("prior", ["flat", -1, "nan"])
def test_a_prior_that_cannot_be_is_refused(prior):
    with pytest.raises(ValueError, match='prior is .*"uniform"'):
        runtimes.open_model("tiny", prior=prior)


def test_a_prior_that_is_not_known_cannot_be_taken_out(val):
    with pytest.raises(ValueError, match="does not say how frequent"):
        evaluation.evaluate(models.build("vgg", widths=(8,)), val, split="val", prior="uniform")


@pytest.mark.parametrize("name", zoo.shipped())
def test_shipped_models_say_the_shares_of_their_training(name):
    shares = runtimes.open_model(name).shares
    assert sum(shares) == pytest.approx(1, abs=1e-4)
    assert min(shares) < 0.03 and max(shares) > 0.2


def test_mcnemar_counts_what_only_one_model_knows(val):
    good, bad = always(val), always(val)
    good[:2] = np.roll(good[:2], 1, axis=1)
    bad[:20] = np.roll(bad[:20], 2, axis=1)
    a, b = (evaluation.report_on(p, val, "x", resamples=20) for p in (good, bad))
    test = evaluation.mcnemar(a, b)
    assert (test["only_a"], test["only_b"], test["differ"]) == (18, 0, 20)
    assert test["p_value"] == pytest.approx(2 * 0.5**18)
    assert test["difference"].value == pytest.approx(18 / len(val))
    assert test["difference"].low > 0
    assert evaluation.mcnemar(a, a)["p_value"] == 1
    with pytest.raises(ValueError, match="different pictures"):
        evaluation.mcnemar(a, evaluation.report_on(bad[:50], val.select(np.arange(50)), "y"))


def test_temperature_undoes_overconfidence(faces):
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(len(faces), 7)) * 1.5
    honest = softmax(logits, axis=1)
    labels = np.array([rng.choice(7, p=row) for row in honest])
    bold = softmax(3 * logits, axis=1)
    data = replace(faces, labels=labels)
    report = evaluation.report_on(bold, data, "bold", resamples=20)
    scaled, temperature = evaluation.calibrate(report)
    assert temperature == pytest.approx(3, rel=0.15)
    before = evaluation.calibration_error(bold, labels)
    assert evaluation.calibration_error(scaled, labels) < before / 3
    assert (scaled.argmax(axis=1) == bold.argmax(axis=1)).all()

    on_val = evaluation.report_on(bold[:300], data.of("train").select(np.arange(300)), "bold")
    fitted = evaluation.calibrate(report, replace(on_val, data=on_val.data))[1]
    assert isinstance(fitted, float)


def test_calibration_never_fits_on_the_pictures_it_scales(val):
    """Of a picture with an absurd label, its own temperature knows nothing."""
    p = always(val, 0.6)
    report = evaluation.report_on(p, val, "x", resamples=20)
    wrong = replace(val, labels=np.r_[(val.labels[0] + 1) % 7, val.labels[1:]])
    changed = evaluation.report_on(p, wrong, "x", resamples=20)
    first, second = evaluation.calibrate(report)[0], evaluation.calibrate(changed)[0]
    assert first[0] == pytest.approx(second[0], abs=1e-6)
    assert np.abs(first - second).max() > 1e-3


def test_calibration_error_by_hand():
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    labels = np.array([0, 1, 0, 0])
    assert evaluation.calibration_error(p, labels, bins=10) == pytest.approx(0.4)


def test_picture_table_and_its_groups(val):
    votes = np.zeros((len(val), 10), "float32")
    votes[:, 3] = 10  # all say sad ...
    votes[0, [3, 4]] = 5  # ... but for a tie
    votes[1, [3, 9]] = 4, 6  # ... and one that is no face
    data = replace(val, votes=votes)
    table = evaluation.picture_table(evaluation.report_on(always(data), data, "x", resamples=20))
    assert table["majority"].tolist()[:3] == ["", "", "sad"]
    assert table["agreeing"].tolist()[:3] == [5, 6, 10]
    assert table["brightness"][3] == pytest.approx(val.images[3].mean() / 255, abs=1e-4)

    table["right"] = table["brightness"] > table["brightness"].median()
    groups = evaluation.accuracy_by(table, "brightness", bins=4)
    assert groups["accuracy"].tolist() == [0, 0, 1, 1]
    assert groups["n"].sum() == len(val) and groups.index.is_monotonic_increasing
    assert ((groups["low"] >= 0) & (groups["low"] <= groups["accuracy"])).all()
    assert set(evaluation.accuracy_by(table, "label").index) == set(EMOTIONS)


def test_ferplus_accuracy_by_hand(val):
    data = val.select(np.arange(7))
    data = replace(data, labels=np.array([6, 3, 4, 0, 2, 1, 5]), votes=np.zeros((7, 10), "float32"))
    data.votes[0, [0, 3]] = 9, 1  # neutral; right
    data.votes[1, [1, 2]] = 4, 6  # surprise; wrong
    data.votes[2, [3, 4]] = 5, 5  # no majority
    data.votes[3, [4, 0, 1, 2, 3]] = 6, 1, 1, 1, 1  # anger, the single votes struck out; right
    data.votes[4, [7, 0]] = 8, 2  # contempt: wrong
    data.votes[5, 9] = 10  # no face
    data.votes[6, [2, 0, 1, 3]] = 4, 1, 3, 2  # surprise has 4 of 9: no majority
    seen = np.array([True, False, False, False, False, False, False])
    report = evaluation.report_on(always(data, right=0.4), data, "x", seen=seen, resamples=20)
    told = evaluation.ferplus_accuracy(report)
    losses = np.array([0.4, 0.1**0.6 * 0.4**0.4, 0.4, 0.1])  # of shares 1, 0.4 and 0.6, 1, 1
    assert told["cross_entropy"].value == pytest.approx(-np.log(losses).mean())
    assert told["entropy"].value == pytest.approx(-np.log(0.4**0.4 * 0.6**0.6) / 4)
    assert told["unseen"].value == pytest.approx(1 / 3)
    assert evaluation.ferplus_accuracy(replace(report, seen=None))["unseen"] is None
    assert told["accuracy"].value == 0.5 and told["accuracy"].low < 0.5 < told["accuracy"].high
    assert (told["pictures"], told["left_out"], told["contempt"]) == (4, 3, 1)
    with pytest.raises(ValueError, match="put fer2013new.csv beside"):
        evaluation.ferplus_accuracy(
            evaluation.report_on(always(val), replace(val, votes=None), "x", resamples=20)
        )


def test_label_noise_by_hand(val):
    data = val.select(np.arange(4))
    data = replace(data, labels=np.array([6, 6, 3, 4]), votes=np.zeros((4, 10), "float32"))
    data.votes[0, 0] = 10  # neutral, all agree, model right
    data.votes[1, [0, 1]] = 6, 4  # neutral, not all
    data.votes[2, [0, 1]] = 8, 2  # says neutral, label happy
    data.votes[3, 9] = 10  # no face
    p = always(data)
    p[1] = p[2]
    noise = evaluation.label_noise(evaluation.report_on(p, data, "x", resamples=20))
    value = {name: estimate.value for name, estimate in noise.items()}
    assert value == pytest.approx(
        {"all_agree": 1.0, "not_all_agree": 0.5, "majority": 0.5, "ceiling": (1 + 0.6 + 0.8) / 3}
    )
    without = evaluation.report_on(always(val), replace(val, votes=None), "x", resamples=20)
    assert evaluation.label_noise(without) == {}
    table = evaluation.picture_table(without)
    assert table["majority"].isna().all() and table["agreeing"].isna().all()
    assert evaluation.accuracy_by(table, "agreeing").empty
    other = replace(val, labels=val.labels // 4, classes=("bored", "focused"))
    other = evaluation.report_on(np.eye(2)[other.labels], other, "x", resamples=20)
    assert "ceiling" not in evaluation.label_noise(other, resamples=20)
    assert evaluation.picture_table(other)["majority"].isna().all()


def test_votes_that_may_be_for_a_merged_class_say_nothing(val):
    data = val.select(np.arange(3))
    data = replace(data, labels=np.array([0, 1, 0]), classes=("neutral", "negative"))
    data = replace(data, votes=np.zeros((3, 10), "float32"))
    data.votes[0, [0, 3]] = 8, 2  # neutral
    data.votes[1, [3, 0]] = 9, 1  # sadness, which may be negative
    data.votes[2, [0, 3]] = 5, 5
    report = evaluation.report_on(np.eye(2)[data.labels], data, "x", resamples=20)
    table = evaluation.picture_table(report)
    assert table["majority"].fillna("?").tolist() == ["neutral", "?", ""]
    assert set(evaluation.label_noise(report, resamples=20)) == {"not_all_agree"}


@pytest.mark.parametrize("name", evaluation.CORRUPTIONS)
def test_stronger_corruptions_change_pictures_more(val, name):
    images = val.images[:40]
    change = []
    for strength in evaluation.CORRUPTIONS[name]:
        spoiled = evaluation.corrupt(images, name, strength, seed=3)
        assert spoiled.dtype == np.uint8 and spoiled.shape == images.shape
        change.append(np.abs(spoiled.astype(float) - images).mean())
    assert change == sorted(change) and change[0] > 0
    assert (spoiled == evaluation.corrupt(images, name, strength, seed=3)).all()


def test_crops_change_the_size_the_place_and_the_light_of_a_face():
    images = np.zeros((40, 48, 48), "uint8")
    images[:, 14:34, 14:34] = 200

    def spoiled(name):
        return evaluation.corrupt(images, name, evaluation.CROPS[name][-1]).astype(float)

    assert np.sqrt((spoiled("scale") > 100).sum(axis=(1, 2))) == pytest.approx(20 * 1.25, abs=1)
    small = evaluation.corrupt(images, "scale", 0.8)
    assert np.sqrt((small > 100).sum(axis=(1, 2))) == pytest.approx(20 * 0.8, abs=1)
    assert spoiled("dark").max() == 50
    moved = spoiled("shift")
    rows, columns = np.mgrid[:48, :48] - 23.5
    mass = moved.sum(axis=(1, 2))
    centres = np.stack([(moved * axis).sum(axis=(1, 2)) / mass for axis in (columns, rows)], axis=1)
    assert np.abs(centres).sum(axis=1) == pytest.approx(4.8, abs=0.1)
    assert len(np.unique(centres.round(1), axis=0)) == 4  # to all four sides


def test_a_border_is_repeated_where_a_face_gets_smaller():
    bright = np.full((3, 48, 48), 180, "uint8")
    for name, strengths in evaluation.CROPS.items():
        if name != "dark":
            assert (evaluation.corrupt(bright, name, strengths[0]) == 180).all()
    with pytest.raises(ValueError, match="known are .*scale"):
        evaluation.corrupt(bright, "squeeze", 1)


def test_robustness_table(val):
    model = looks_at_corner()
    table = evaluation.robustness(
        model, val, corruptions={"blur": (1.0,), "jpeg": (40, 5)}, progress=False
    )
    assert table["level"].tolist() == [0, 1, 0, 1, 2]
    clean = (evaluation.probabilities(model, val.images).argmax(axis=1) == val.labels).mean()
    assert table["accuracy"][[0, 2]].tolist() == [clean, clean]
    assert table["lost"].tolist() == pytest.approx((clean - table["accuracy"]).tolist())


def test_gradcam_finds_the_corner_that_the_answer_depends_on(val):
    model = looks_at_corner()
    weights = [w.copy() for w in model.get_weights()]
    happy = np.full(8, EMOTIONS.index("happy"))
    heat = explain.gradcam(model, val.images[:8], happy)
    assert heat.shape == (8, 48, 48) and heat.max() == pytest.approx(1)
    assert (heat[:, :14, :14].sum(axis=(1, 2)) > 0.5 * heat.sum(axis=(1, 2))).all()
    against = explain.gradcam(model, val.images[:8], happy + 1)
    assert against.max() == 0
    assert all((a == b).all() for a, b in zip(weights, model.get_weights(), strict=True))
    assert model.get_layer("logits").output is not None  # the model's own graph is untouched


def test_gradcam_follows_a_bright_patch_to_any_corner():
    inputs = keras.Input((48, 48, 1), dtype="uint8")
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.Conv2D(1, 5, padding="same", activation="relu", name="bright")(x)
    x = layers.GlobalAveragePooling2D()(layers.MaxPooling2D(4)(x))
    model = keras.Model(inputs, layers.Dense(7, activation="softmax", name="answer")(x))
    model.get_layer("bright").set_weights([np.ones((5, 5, 1, 1)) / 25, -np.full(1, 0.7)])
    model.get_layer("answer").set_weights([np.eye(7)[3:4], np.zeros(7)])
    images = np.random.default_rng(0).integers(0, 120, (4, 48, 48), "uint8")
    corners = [(0, 0), (0, 34), (34, 0), (34, 34)]
    for image, (top, left) in zip(images, corners, strict=True):
        image[top : top + 14, left : left + 14] = 255
    for heat, (top, left) in zip(explain.gradcam(model, images), corners, strict=True):
        assert heat[top : top + 14, left : left + 14].sum() > 0.6 * heat.sum() > 0


@pytest.mark.parametrize("name", ["classic", "vgg", "residual"])
def test_gradcam_and_embedding_of_our_models(val, name):
    model = models.build(name)
    heat = explain.gradcam(model, val.images[:4])
    assert heat.shape == (4, 48, 48) and heat.min() >= 0 and heat.max() <= 1
    features = explain.embed(model, val.images)
    logits = features @ model.get_layer("logits").get_weights()[0]
    logits += model.get_layer("logits").get_weights()[1]
    expected = evaluation.probabilities(model, val.images)
    assert softmax(logits, axis=1) == pytest.approx(expected, abs=1e-4)


def test_gradcam_and_embedding_of_an_ensemble_are_its_members(val):
    one, two = models.build("residual", widths=(8,)), models.build("vgg", widths=(8, 8))
    both, images = zoo.average([one, two]), val.images[:4]
    answers = evaluation.probabilities(both, images).argmax(axis=1)
    maps = [explain.gradcam(model, images, answers) for model in (one, two)]
    np.testing.assert_allclose(explain.gradcam(both, images), np.mean(maps, axis=0), atol=1e-4)
    assert explain.embed(both, images).shape == (4, 16)


def test_gradcam_and_embedding_of_a_network_of_another_form(val):
    model = keras.Sequential(
        [
            keras.Input((64, 64, 3)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5, activation="softmax"),
        ]
    )
    assert explain.gradcam(model, val.images[:3]).shape == (3, 48, 48)
    assert explain.embed(model, val.images[:3]).shape == (3, 4)


def test_gradcam_of_a_network_without_pictures_says_so(val):
    model = keras.Sequential([keras.Input((48, 48, 1)), layers.Flatten(), layers.Dense(7)])
    with pytest.raises(ValueError, match="no feature map"):
        explain.gradcam(model, val.images[:2])


def test_own_classes(val):
    """Three classes of other names: the report speaks of these alone."""
    rows = np.isin(val.labels, (0, 3, 4))
    names = ("bored", "focused", "a very long name of a state of mind")
    place = np.array([0, -1, -1, 1, 2, -1, -1])
    data = replace(val.select(rows), labels=place[val.labels[rows]], classes=names)
    p = np.eye(3)[data.labels]
    report = evaluation.report_on(p, data, "x", resamples=20)
    assert report.classes == names == tuple(report.per_class.index)
    assert report.confusion.shape == (3, 3) and report.left_out == {"data": {}, "model": []}
    assert report.metrics["balanced_accuracy"].value == pytest.approx(1)
    assert set(evaluation.picture_table(report)["answer"]) == set(names)
    assert report.to_dict()["classes"] == list(names)
    with pytest.raises(ValueError, match="There|answers are"):
        evaluation.report_on(np.eye(7)[data.labels], data, "x")


def test_a_model_and_data_with_different_classes(val):
    """CK+48's contempt is not in the model, its neutral not in the data."""
    names = ("anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise")
    rng = np.random.default_rng(0)
    data = replace(val, labels=rng.integers(7, size=len(val)), classes=names)
    mine = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    p = rng.dirichlet(np.ones(7), len(val))
    report = evaluation.report_on(p, data, "x", classes=mine, resamples=20)
    shared = ("anger", "disgust", "fear", "happy", "sadness", "surprise")
    assert report.classes == shared
    contempt = data.labels == 1
    assert report.left_out == {"data": {"contempt": contempt.sum()}, "model": ["neutral"]}
    assert len(report.labels) == (~contempt).sum()
    assert report.probabilities.sum(axis=1) == pytest.approx(1)
    kept = p[~contempt][:, :6]
    assert (report.predicted == kept.argmax(axis=1)).all()
    assert "no such class: contempt (" in str(report) and "neutral" in str(report)
    written = report.to_dict()
    assert written == json.loads(json.dumps(written))


def test_evaluate_and_robustness_on_some_classes_alone(val):
    some = val.select(val.labels != 6)
    place = np.array([0, 1, 2, 3, 4, 5])
    data = replace(some, labels=place[some.labels], classes=EMOTIONS[:6])
    model = looks_at_corner()
    report = evaluation.evaluate(model, data, resamples=20)
    assert report.confusion.shape == (6, 6) and report.left_out["model"] == ["neutral"]
    table = evaluation.robustness(model, data, corruptions={"blur": (1.0,)}, progress=False)
    assert table["accuracy"][0] == pytest.approx(report.metrics["accuracy"].value)


def test_too_few_shared_classes_are_an_error_that_says_what_to_do(val):
    data = replace(val, classes=tuple("abcdefg"))
    with pytest.raises(ValueError, match="share two classes.*classes="):
        evaluation.evaluate(looks_at_corner(), data)
