from dataclasses import replace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import colors
from matplotlib import pyplot as plt

from ferlib import evaluation, plots, prediction
from ferlib.labels import EMOTIONS, PALETTE, colours

matplotlib.use("agg")


@pytest.fixture(scope="module")
def report(faces):
    """A report on imagined answers, right about two times in three."""
    data, rng = faces.of("train"), np.random.default_rng(0)
    logits = rng.normal(size=(len(data), 7))
    logits[np.arange(len(data)), data.labels] += 2
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    seen = rng.random(len(data)) < 0.1
    return evaluation.report_on(p, data, "imagined", seen=seen, resamples=50)


@pytest.fixture(scope="module", params=[2, 12])
def own(request, faces):
    """Data of 2 or 12 classes with long names, and a report on it."""
    count = request.param
    names = tuple(f"a rather long name of state {i}" for i in range(count))
    data = replace(faces.of("train"), labels=faces.of("train").labels % count, classes=names)
    if count > 7:
        data = replace(data, labels=np.arange(len(data)) % count)
    p = np.random.default_rng(0).dirichlet(np.ones(count), len(data))
    return evaluation.report_on(p, data, "imagined", resamples=20)


def texts(ax):
    return [text.get_text() for text in ax.texts]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_every_emotion_has_its_own_colour():
    assert tuple(PALETTE) == EMOTIONS
    assert len({colors.to_hex(colour) for colour in PALETTE.values()}) == 7
    twelve = (*EMOTIONS, "contempt", "bored", "focused", "tired", "proud")
    assert len(set(colours(twelve).values())) == 12


def test_learning_curves_draw_into_the_same_axes_again():
    history = {"loss": [1.8, 1.5], "accuracy": [0.3, 0.4], "val_loss": [1.7, 1.6]}
    history["val_accuracy"] = [0.35, 0.38]
    axes = plots.learning_curves(pd.DataFrame(history).assign(epoch=[1, 2]), title="compact")
    longer = {key: [*values, values[-1]] for key, values in history.items()}
    again = plots.learning_curves(longer, axes=axes, title="compact")
    assert again[0] is axes[0]
    train, val = axes[1].get_lines()
    assert train.get_ydata().tolist() == longer["accuracy"]
    assert val.get_xdata().tolist() == [1, 2, 3] and legend(axes[1]) == ["train", "val"]


def test_learning_curves_without_validation():
    axes = plots.learning_curves({"loss": [1.8], "accuracy": [0.3]})
    assert legend(axes[0]) == ["train"]


def test_live_curves_redraw_one_figure(monkeypatch):
    import IPython
    from IPython import display

    shown, updates = [], []

    def show(figure, display_id=None):
        shown.append(figure)
        return type("Handle", (), {"update": staticmethod(updates.append)})

    monkeypatch.setattr(display, "display", show)
    monkeypatch.setattr(IPython, "get_ipython", lambda: "a notebook")
    curves = plots.live_curves(title="compact")
    for epoch in range(3):
        curves.on_epoch_end(epoch, {"loss": 2 - epoch / 2, "accuracy": epoch / 4})
    assert len(shown) == 1 and updates == [shown[0]] * 2
    line = shown[0].axes[1].get_lines()[0]
    assert line.get_xdata().tolist() == [1, 2, 3] and line.get_ydata().tolist() == [0, 0.25, 0.5]
    assert not plt.get_fignums()  # the cell does not show it a second time


def test_live_curves_are_a_callback_of_keras():
    import keras

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["accuracy"])
    curves = plots.live_curves()
    model.fit(np.ones((4, 2)), np.ones(4), epochs=2, verbose=0, callbacks=[curves])
    assert len(curves.rows) == 2


def test_axes_level_functions_draw_into_the_current_axes(report):
    figure, (left, right) = plt.subplots(1, 2)
    plt.sca(left)
    assert plots.confusion_matrix(report.confusion) is left
    assert plots.confusion_matrix(report.confusion, ax=right) is right
    assert plt.get_fignums() == [figure.number]


def test_confusion_matrix_writes_counts_or_rates(report):
    counts = np.zeros((7, 7), int)
    counts[0, :2] = 30, 10
    ax = plots.confusion_matrix(counts)
    assert texts(ax)[:3] == ["30", "10", "0"]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(EMOTIONS)
    plt.close("all")
    assert texts(plots.confusion_matrix(counts, rates=True))[:3] == ["75", "25", "0"]
    given = plt.subplots()[1]
    assert plots.confusion_matrix(report.confusion, ax=given, title="mine") is given
    assert given.get_title() == "mine"


@pytest.mark.parametrize("kind", ["roc", "pr"])
def test_one_vs_rest_of_perfect_answers_has_area_one(faces, kind):
    some = faces.select(faces.labels < 3)
    report = evaluation.report_on(np.eye(7)[some.labels], some, "perfect", resamples=5)
    ax = plots.one_vs_rest(report, kind=kind)
    assert [name.split()[0] for name in legend(ax)] == ["angry", "disgust", "fear"]
    assert all("= 1.00" in name for name in legend(ax))
    drawn = [colors.to_hex(line.get_color()) for line in ax.get_lines()[:3]]
    assert drawn == [PALETTE[name] for name in EMOTIONS[:3]]


def test_accuracy_by_names_its_groups(report):
    table = evaluation.accuracy_by(evaluation.picture_table(report), "brightness")
    ax = plots.accuracy_by(table, overall=0.5)
    assert ax.get_xlabel() == "brightness"
    assert ax.get_lines()[0].get_xdata().tolist() == table.index.tolist()


def test_what_is_not_there_is_said(report):
    without = replace(report.data, votes=None)
    table = evaluation.picture_table(replace(report, data=without))
    assert texts(plots.accuracy_by(evaluation.accuracy_by(table, "agreeing"))) == [
        "nothing known of\nagreeing here"
    ]
    plt.close("all")
    assert "no such pictures" in texts(plots.gallery(report.data.images[:0]))[0]
    plt.close("all")
    none = report.data.images[:0]
    assert "no such pictures" in texts(plots.gradcam(none, np.empty((0, 48, 48))))[0]


def test_pages_turn(report, monkeypatch):
    import ipywidgets
    from IPython import display

    shown, updates = [], []

    def show(thing, display_id=None):
        shown.append(thing)
        return type("Handle", (), {"update": staticmethod(updates.append)})

    monkeypatch.setattr(display, "display", show)
    drawn = []
    first = plots.paged(lambda number: drawn.append(number) or plt.subplots()[1], 3)
    assert shown[0] is first.figure and isinstance(shown[1], ipywidgets.IntSlider)
    shown[1].value = 3
    assert drawn == [0, 2] and len(updates) == 1
    shown.clear()
    plots.paged(lambda number: plt.subplots()[1], 1)
    assert len(shown) == 1  # nothing to turn


def test_gradcam_lays_heat_over_pictures(report):
    images = report.data.images[:2]
    heat = np.zeros((2, 48, 48))
    heat[:, :10] = 1
    ax = plots.gradcam(images, heat, captions=["a", "b"])
    plain, warm = (ax.images[i].get_array() for i in (0, 2))
    assert np.ptp(plain, axis=-1).max() == 0  # grey above
    assert np.ptp(warm[:10], axis=-1).min() > 0.1  # coloured where there is heat
    assert texts(ax)[-2:] == ["a", "b"]


def test_gallery_has_a_row_for_each_class(faces):
    ax = plots.gallery(faces.images[:70], faces.labels[:70], columns=5)
    assert [label.get_text() for label in ax.get_yticklabels()] == list(EMOTIONS)


def test_classes_of_any_number_and_name(own):
    """2 and 12 classes with long names: every name is there, and none is cut off."""
    names = list(own.classes)
    ax = plots.confusion_matrix(own.confusion, classes=own.classes)
    assert [label.get_text() for label in ax.get_xticklabels()] == names
    plt.close("all")
    assert len(legend(plots.one_vs_rest(own))) == len(names)
    plt.close("all")
    data = own.data
    ax = plots.gallery(data.images[:60], data.labels[:60], classes=names, columns=4)
    assert [label.get_text() for label in ax.get_yticklabels()] == names
    plt.close("all")
    ax = plots.prediction(data.images[0], own.probabilities[0], classes=names, label=1)
    bars = [colors.to_hex(bar.get_facecolor()) for bar in ax.patches]
    assert bars == list(colours(own.classes).values())
    figure = ax.figure
    figure.canvas.draw()
    for label in ax.get_yticklabels():
        assert label.get_window_extent().x0 >= 0


def clip_table(rate=25):
    """A clip of four seconds: two persons, happy and then sad; the second is away for one."""
    times = np.arange(4 * rate) / rate
    rows = pd.DataFrame(0.02, index=range(len(times)), columns=list(EMOTIONS))
    rows["happy"] = np.where(times < 2, 0.8, 0.1) + np.where(np.arange(len(times)) % 2, 0.05, -0.05)
    rows["sad"] = 0.9 - rows["happy"]
    one, two = (rows.assign(person=person, seconds=times) for person in (1, 2))
    return pd.concat([one, two[(times < 1) | (times >= 2)]])


def test_emotions_over_time_are_medians_with_bands():
    axes = plots.emotions_over_time(clip_table(), title="a clip")
    assert [ax.get_ylabel() for ax in axes] == ["person 1", "person 2"]
    assert axes[0].figure.legends and len(axes[0].figure.legends[0].get_texts()) == 7
    happy = dict(zip(EMOTIONS, axes[0].get_lines(), strict=True))["happy"]
    assert happy.get_color() == PALETTE["happy"]
    values = pd.Series(happy.get_ydata(), happy.get_xdata())
    assert values[1.0] == pytest.approx(0.8)  # five frames have 0.75 and five 0.85
    band = axes[0].collections[EMOTIONS.index("happy")].get_paths()[0].vertices
    at = band[np.isclose(band[:, 0], 1.0), 1]
    assert at.min() == pytest.approx(0.75) and at.max() == pytest.approx(0.85)
    gaps = [np.isnan(ax.get_lines()[0].get_ydata()).sum() for ax in axes]
    assert gaps == [0, 1]  # the line is broken where the second person is away


def test_emotions_over_time_of_few_frames_of_many_and_of_nobody():
    axes = plots.emotions_over_time(clip_table(rate=1))
    assert not np.isnan(axes[0].get_lines()[0].get_ydata()).any()  # a second is no gap here
    crowd = pd.concat([clip_table(rate=2).assign(person=n) for n in range(1, 10)])
    assert len(plots.emotions_over_time(crowd, most=4)) == 4
    (ax,) = plots.emotions_over_time(clip_table()[:0])
    assert "nobody" in texts(ax)[0]


def test_emotions_over_time_of_a_class_called_as_another_column():
    apart = prediction.columns(("left", "happy"))[-3:-1]
    table = clip_table(rate=2).rename(columns={"angry": apart[0]}).assign(left=7)
    ax = plots.emotions_over_time(table, classes=("left", "happy"))[0]
    drawn = {line.get_label(): line.get_ydata().max() for line in ax.get_lines()}
    assert drawn.keys() == {"left", "happy"} and drawn["left"] <= 1
