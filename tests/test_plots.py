import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import colors
from matplotlib import pyplot as plt

from ferlib import evaluation, plots
from ferlib.labels import EMOTIONS, PALETTE

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def report(faces):
    """A report on imagined answers, right about two times in three."""
    data, rng = faces.of("train"), np.random.default_rng(0)
    logits = rng.normal(size=(len(data), 7))
    logits[np.arange(len(data)), data.labels] += 2
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    seen = rng.random(len(data)) < 0.1
    return evaluation.report_on(p, data, "imagined", seen=seen, resamples=50)


def texts(ax):
    return [text.get_text() for text in ax.texts]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_every_emotion_has_its_own_colour():
    assert tuple(PALETTE) == EMOTIONS
    assert len({colors.to_hex(colour) for colour in PALETTE.values()}) == 7


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


def test_confusion_matrix_writes_counts_or_rates(report):
    counts = np.zeros((7, 7), int)
    counts[0, :2] = 30, 10
    ax = plots.confusion_matrix(counts)
    assert texts(ax)[:3] == ["30", "10", "0"]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(EMOTIONS)
    assert texts(plots.confusion_matrix(counts, rates=True))[:3] == ["75", "25", "0"]
    given = plt.subplots()[1]
    assert plots.confusion_matrix(report.confusion, ax=given, title="mine") is given
    assert given.get_title() == "mine"


def test_estimates_show_intervals_of_all_and_unseen(report):
    table = report.to_frame()
    ax = plots.estimates(table[table["metric"] == "accuracy"])
    assert legend(ax) == ["all", "unseen"]
    low, high = ax.containers[0].lines[2][0].get_segments()[0][:, 0]
    accuracy = report.metrics["accuracy"]
    assert (low, high) == pytest.approx((accuracy.low, accuracy.high))


def test_per_class_bars_have_the_emotions_colours(report):
    table = report.per_class.copy()
    table.loc["disgust", ["f1", "f1_low", "f1_high"]] = np.nan
    ax = plots.per_class(table, score="f1")
    assert len(ax.get_xticklabels()) == 7
    bars = dict(zip(EMOTIONS, ax.patches, strict=True))
    assert bars["sad"].get_height() == table["f1"]["sad"]
    assert colors.to_hex(bars["sad"].get_facecolor()) == PALETTE["sad"]


@pytest.mark.parametrize("kind", ["roc", "pr"])
def test_one_vs_rest_of_perfect_answers_has_area_one(faces, kind):
    some = faces.select(faces.labels < 3)
    ax = plots.one_vs_rest(np.eye(7)[some.labels], some.labels, kind=kind)
    assert legend(ax) == ["angry 1.00", "disgust 1.00", "fear 1.00"]


def test_reliability_and_risk_coverage(report):
    p, labels = report.probabilities, report.labels
    table = evaluation.reliability(p, labels)
    ax = plots.reliability({"as trained": table})
    assert legend(ax) == ["as trained"]
    assert len(ax.get_lines()[1].get_xdata()) == (table["n"] >= 10).sum()
    ax = plots.risk_coverage({"imagined": evaluation.risk_coverage(p, labels)})
    assert ax.get_lines()[0].get_ydata()[-1] == pytest.approx(report.metrics["accuracy"].value)


def test_accuracy_by_names_its_groups(report):
    table = evaluation.accuracy_by(evaluation.picture_table(report), "brightness")
    ax = plots.accuracy_by(table, overall=0.5)
    assert ax.get_xlabel() == "brightness"
    assert ax.get_lines()[0].get_xdata().tolist() == table.index.tolist()


def test_mistakes_show_the_pictures_of_their_rows(report):
    table = evaluation.picture_table(report)
    wrong = table[~table["right"]].head(3)
    ax = plots.mistakes(report.data.images, wrong)
    assert len(ax.images) == 3
    row = wrong.iloc[1]
    assert (ax.images[1].get_array() == report.data.images[wrong.index[1]]).all()
    assert texts(ax)[1] == f"{row.label}\n\N{RIGHTWARDS ARROW} {row.answer} {row.confidence:.0%}"


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


def test_embedding_marks_labels_and_mistakes(report):
    points = np.random.default_rng(0).normal(size=(len(report.labels), 2))
    axes = plots.embedding(points, report)
    assert legend(axes[0]) == list(EMOTIONS) and legend(axes[1]) == ["right", "wrong"]
    wrong = (report.predicted != report.labels).sum()
    assert len(axes[1].collections[1].get_offsets()) == wrong


def test_robustness_draws_one_line_a_corruption():
    rows = [(name, level, 0.6 - level / 20) for name in ("blur", "noise") for level in range(6)]
    table = pd.DataFrame(rows, columns=["corruption", "level", "accuracy"])
    ax = plots.robustness(table)
    assert legend(ax) == ["blur", "noise"]
    assert ax.get_lines()[0].get_ydata()[-1] == pytest.approx(0.35)


def test_gallery_and_counts_of_the_data(faces):
    ax = plots.gallery(faces.images[:70], faces.labels[:70], columns=5)
    assert [label.get_text() for label in ax.get_yticklabels()] == list(EMOTIONS)
    ax = plots.counts(faces)
    heights = [bar.get_height() for bar in ax.patches]
    assert sum(heights) == len(faces)
