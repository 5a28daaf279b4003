"""Figures of the data and of results, with one fixed colour for each class.

Most functions are axes-level, as seaborn's: with `ax=None` they draw into the current Axes, and
they return the Axes. Where no figure is open, they open one of a fitting size. The few that are
figure-level say so, always make a figure and return its Axes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import ConfusionMatrixDisplay, PrecisionRecallDisplay, RocCurveDisplay

from ferlib.labels import EMOTIONS, FERPLUS, answer_columns, colours

if TYPE_CHECKING:
    import keras

    from ferlib.evaluation import Report
    from ferlib.faces import FERData


def _axes(ax: Axes | None, title: str = "", *, size: tuple[float, float] = (6.4, 4.0)):
    """Returns `ax`, else the current Axes; `size` is that of a figure that has to be opened."""
    if ax is None:
        if not plt.get_fignums():
            plt.figure(figsize=size, layout="constrained")
        ax = plt.gca()
    if title:
        ax.set_title(title)
    return ax


def _plain(name: Any) -> str:
    """Has Matplotlib show a name as it is: it takes what stands between dollars for a formula."""
    return str(name).replace("$", r"\$") if plt.rcParams["text.parse_math"] else str(name)


def _say(ax: Axes, text: str):
    """Says in otherwise empty Axes why there is nothing to see."""
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes)
    ax.set_axis_off()
    return ax


def _slant(ax: Axes):
    """Turns the names under an axis, so that long ones do not cover each other."""
    ax.tick_params(axis="x", length=0)
    plt.setp(ax.get_xticklabels(), rotation=45, ha="right", rotation_mode="anchor")


# ---- the data ----------------------------------------------------------------------------


def gallery(
    images: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    classes: Sequence[str] = EMOTIONS,
    captions: Sequence[str] = (),
    columns: int = 10,
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    """Shows pictures side by side; with labels, one row for each class.

    Args:
        images: uint8 [N, 48, 48], or colour [N, 48, 48, 3]; any square size.
        labels: int [N]; without labels the pictures follow each other row by row.
        classes: Names of the labels.
        captions: N texts, each to stand under its picture.
        columns: Most pictures in a row; of a class that has more, the first are shown.
        ax: Axes to draw on. None takes the current ones.
        title: Title of the Axes.

    Returns:
        The Axes; they say so where there is no picture.

    Example:
        >>> from ferlib import drawn, plots
        >>> faces = drawn.draw(21)
        >>> ax = plots.gallery(faces.images, faces.labels, columns=3)
    """
    order = np.arange(len(images))
    if labels is None:
        rows = [("", order[start : start + columns]) for start in order[::columns]]
    else:
        found = [(label, order[labels == label][:columns]) for label in np.unique(labels)]
        rows = [(_plain(classes[label]), members) for label, members in found]
    if not rows:
        return _say(_axes(ax, title, size=(6, 1)), "there are no such pictures here")
    lines = max((caption.count("\n") + 1 for caption in captions), default=0)
    side = images.shape[1]
    across, down = side * 1.05, side * (1.08 + 0.17 * lines)
    cell = 1.0 if lines else 0.75
    size = (cell * columns + 0.8, cell * len(rows) * down / across + 0.4)
    ax = _axes(ax, title, size=size)
    for row, (_, members) in enumerate(rows):
        for column, i in enumerate(members):
            left, top = column * across, row * down
            extent = (left, left + side, top + side, top)
            ax.imshow(images[i], cmap="gray", vmin=0, vmax=255, extent=extent)
            if lines:
                middle = left + side / 2
                place = {"ha": "center", "va": "top", "fontsize": 8}
                ax.text(middle, top + side * 1.03, _plain(captions[i]), **place)
    longest = max(len(members) for _, members in rows)
    ax.set(xlim=(0, across * longest), ylim=(len(rows) * down, 0), xticks=[])
    ax.set_yticks(np.arange(len(rows)) * down + side / 2, [name for name, _ in rows])
    ax.tick_params(length=0)
    sns.despine(ax=ax, left=True, bottom=True)
    return ax


def augmentations(
    variants: Mapping[str, np.ndarray], *, ax: Axes | None = None, title: str = ""
) -> Axes:
    """Shows the same pictures under several augmentations, one row for each.

    Args:
        variants: Name of each augmentation -> uint8 [N, 48, 48], the same N pictures.
        ax: Axes to draw on. None takes the current ones.
        title: Title of the Axes.

    Returns:
        The Axes.

    Example:
        >>> from ferlib import drawn, plots
        >>> faces = drawn.draw(21)
        >>> mirrored = faces.images[:5, :, ::-1]
        >>> ax = plots.augmentations({"as they are": faces.images[:5], "mirrored": mirrored})
    """
    images = np.concatenate(list(variants.values()))
    ax = gallery(images, columns=len(images) // len(variants), ax=ax, title=title)
    ax.set_yticks(ax.get_yticks(), [*map(_plain, variants)])
    return ax


def votes_against_labels(data: FERData, *, ax: Axes | None = None, title: str = "") -> Axes:
    """Draws what FER+'s taggers saw in the pictures of each label.

    Args:
        data: The data.
        ax: Axes to draw on. None takes the current ones.
        title: Title of the Axes; without it the data's.

    Returns:
        The Axes: a row for each label, the share in percent of its pictures whose most voted
        FER+ emotion is the column's. They say so where there are no votes.

    Example:
        >>> from ferlib import drawn, plots
        >>> ax = plots.votes_against_labels(drawn.draw(70))
    """
    ax = _axes(ax, title or _plain(data.title), size=(7.5, 4.2))
    if data.votes is None:
        return _say(ax, "no votes here: put fer2013new.csv beside the data")
    label = np.array(data.classes)[data.labels]
    most = np.array(FERPLUS)[data.votes.argmax(axis=1)]
    share = 100 * pd.crosstab(label, most, normalize="index")
    share = share.reindex(index=data.classes, columns=FERPLUS, fill_value=0).rename(index=_plain)
    sns.heatmap(share, annot=True, fmt=".0f", cmap="Blues", vmax=100, cbar=False, ax=ax)
    ax.set(xlabel="most voted in FER+", ylabel="label, % of the row")
    _slant(ax)
    return ax


# ---- training ----------------------------------------------------------------------------


def learning_curves(
    history: pd.DataFrame | Mapping[str, Any],
    *,
    axes: Sequence[Axes] | None = None,
    title: str = "",
) -> Sequence[Axes]:
    """Draws loss and accuracy on train and val against the epoch. Figure-level.

    Args:
        history: Table with one row an epoch (epoch, loss, accuracy, val_loss, val_accuracy), as
            `training.train` writes to history.csv, or a dict of such columns, as Keras's
            `History.history`.
        axes: Two Axes (loss, accuracy), cleared first. None makes a figure.
        title: Title of the figure.

    Returns:
        The two Axes.

    Example:
        >>> from ferlib import plots
        >>> axes = plots.learning_curves({"loss": [1.8, 1.5], "accuracy": [0.3, 0.4]})
    """
    if axes is None:
        axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")[1]
    epochs = history.get("epoch", np.arange(1, len(history["loss"]) + 1))
    for ax, key in zip(axes, ("loss", "accuracy"), strict=True):
        ax.clear()
        ax.plot(epochs, history[key], "--", marker=".", color="#333333", label="train")
        if f"val_{key}" in history:
            ax.plot(epochs, history[f"val_{key}"], marker=".", color="#333333", label="val")
        ax.set(xlabel="epoch", ylabel=key)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        ax.grid(alpha=0.3)
        ax.legend()
    axes[0].figure.suptitle(title)
    return axes


def live_curves(*, title: str = "") -> keras.callbacks.Callback:
    """Makes a Keras callback that draws the learning curves anew, in place, after each epoch.

    Args:
        title: Title of the figure.

    Returns:
        The callback, for `fit` or `training.train`. Outside a notebook it shows nothing.

    Example:
        >>> from ferlib import plots
        >>> curves = plots.live_curves(title="compact")
        >>> curves.on_epoch_end(0, {"loss": 1.8, "accuracy": 0.3})
    """
    from IPython import get_ipython
    from IPython.display import display

    from ferlib.backend import keras

    class LiveCurves(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.rows, self.axes, self.shown = [], None, None

        def on_epoch_end(self, epoch, logs=None):
            self.rows.append({"epoch": epoch + 1} | (logs or {}))
            self.axes = learning_curves(pd.DataFrame(self.rows), axes=self.axes, title=title)
            figure = self.axes[0].figure
            plt.close(figure)  # ty: ignore[invalid-argument-type] # the cell would show it again
            if self.shown:
                self.shown.update(figure)
            elif get_ipython():
                self.shown = display(figure, display_id=True)

    return LiveCurves()


# ---- evaluation --------------------------------------------------------------------------


def confusion_matrix(
    counts: np.ndarray,
    *,
    classes: Sequence[str] = EMOTIONS,
    rates: bool = False,
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    """Draws a confusion matrix: rows are labels, columns are answers.

    Args:
        counts: int [K, K], as `Report.confusion`.
        classes: Names of the K classes.
        rates: Show shares of each row in percent instead of counts.
        ax: Axes to draw on. None takes the current ones.
        title: Title of the Axes.

    Returns:
        The Axes.

    Example:
        >>> import numpy as np
        >>> from ferlib import plots
        >>> ax = plots.confusion_matrix(np.diag([30, 12, 5]), classes=("calm", "glad", "cross"))
    """
    side = 1.5 + 0.5 * len(counts) + 0.06 * max(map(len, classes))
    ax = _axes(ax, title, size=(side, side))
    cells = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) if rates else counts
    ConfusionMatrixDisplay(cells, display_labels=[*map(_plain, classes)]).plot(
        ax=ax, cmap="Blues", colorbar=False, values_format=".0f", text_kw={"fontsize": 9}
    )
    ax.set(xlabel="answer", ylabel="label, % of the row" if rates else "label, pictures")
    _slant(ax)
    return ax


def one_vs_rest(
    report: Report, *, kind: str = "roc", ax: Axes | None = None, title: str = ""
) -> Axes:
    """Draws each class's curve against the rest, with the area under it.

    Args:
        report: The Report.
        kind: "roc", or "pr" for precision and recall.
        ax: Axes to draw on. None takes the current ones.
        title: Title of the Axes.

    Returns:
        The Axes.

    Example:
        >>> import numpy as np
        >>> from ferlib import drawn, evaluation, plots
        >>> faces = drawn.draw(70).of("val")
        >>> report = evaluation.report_on(np.eye(7)[faces.labels], faces, "perfect", resamples=20)
        >>> ax = plots.one_vs_rest(report, kind="pr")
    """
    ax = _axes(ax, title, size=(7, 5))
    curve = {"roc": RocCurveDisplay, "pr": PrecisionRecallDisplay}[kind]
    present = [report.classes[label] for label in np.unique(report.labels)]
    ax.set_prop_cycle(color=[colours(report.classes)[name] for name in present])
    for name in present:
        label = report.classes.index(name)
        score = report.probabilities[:, label]
        curve.from_predictions(report.labels == label, score, name=_plain(name), ax=ax)
    axis = ("false", "true") if kind == "roc" else ("recall", "precision")
    suffix = " positive rate" if kind == "roc" else ""
    ax.set(xlabel=axis[0] + suffix, ylabel=axis[1] + suffix)
    sns.move_legend(ax, "upper left", bbox_to_anchor=(1.02, 1), frameon=False, fontsize=8)
    return ax


def accuracy_by(
    table: pd.DataFrame, *, overall: float | None = None, ax: Axes | None = None, title: str = ""
) -> Axes:
    """Draws the accuracy in groups of pictures with its 95 % interval.

    Args:
        table: What `evaluation.accuracy_by` gave.
        overall: Accuracy on all pictures, drawn as a line.
        ax: Axes to draw on. None takes the current ones.
        title: Title of the Axes.

    Returns:
        The Axes; they say so where there is no group.

    Example:
        >>> import numpy as np
        >>> from ferlib import drawn, evaluation, plots
        >>> faces = drawn.draw(210).of("val")
        >>> report = evaluation.report_on(np.eye(7)[faces.labels], faces, "perfect", resamples=20)
        >>> table = evaluation.picture_table(report)
        >>> ax = plots.accuracy_by(evaluation.accuracy_by(table, "contrast", bins=3))
    """
    ax = _axes(ax, title, size=(4, 3.4))
    if table.empty:
        return _say(ax, f"nothing known of\n{table.index.name} here")
    ends = np.abs([table.accuracy - table.low, table.high - table.accuracy])
    ax.errorbar(table.index, table.accuracy, yerr=ends, capsize=3, marker="o", color="#333333")
    if overall is not None:
        ax.axhline(overall, linestyle=":", color="grey")
    ax.set(xlabel=table.index.name, ylabel="accuracy")
    ax.grid(axis="y", alpha=0.3)
    return ax


def paged(draw: Callable[[int], Axes], pages: int) -> Axes:
    """Shows the first of several figures, with a slider under it that turns the pages.

    Figure-level, for notebooks.

    Args:
        draw: Function from a page's number (0 is the first) to its Axes.
        pages: How many pages there are.

    Returns:
        The Axes of the first page.
    """
    import ipywidgets
    from IPython.display import display

    def page(number):
        ax = draw(number)
        plt.close(ax.figure)  # ty: ignore[invalid-argument-type]
        return ax

    first = page(0)
    handle = display(first.figure, display_id=True)
    if pages > 1:
        slider = ipywidgets.IntSlider(1, 1, pages, description="page", continuous_update=False)
        slider.observe(lambda change: handle.update(page(change.new - 1).figure), "value")
        display(slider)
    return first


def gradcam(
    images: np.ndarray,
    heat: np.ndarray,
    *,
    captions: Sequence[str] = (),
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    """Shows pictures above the same pictures under a map of what spoke for the answer.

    Args:
        images: uint8 [N, 48, 48].
        heat: float [N, 48, 48], as `explain.gradcam` gives.
        captions: N texts under the maps.
        ax: Axes to draw on. None takes the current ones.
        title: Title of the Axes.

    Returns:
        The Axes; they say so where there is no picture.

    Example:
        >>> from ferlib import drawn, explain, plots
        >>> images = drawn.draw(21).images[:3]
        >>> ax = plots.gradcam(images, explain.gradcam("tiny", images))
    """
    grey = np.repeat(images[..., None] / 255, 3, axis=-1)
    mixed = 0.55 * grey + 0.45 * plt.get_cmap("inferno")(heat)[..., :3]
    both = np.concatenate([grey, mixed])
    captions = [""] * len(images) + list(captions) if len(captions) else ()
    return gallery(both, captions=captions, columns=max(1, len(images)), ax=ax, title=title)


# ---- prediction --------------------------------------------------------------------------


def prediction(
    picture: Any,
    probabilities: np.ndarray,
    *,
    classes: Sequence[str] = EMOTIONS,
    label: int | None = None,
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    """Shows a picture beside a bar for the probability of each class.

    Args:
        picture: uint8 [H, W] or [H, W, 3], or a PIL picture.
        probabilities: float [K].
        classes: Names of the K classes.
        label: The true label, an index into `classes`, whose name is set in bold.
        ax: Axes to draw on. None takes the current ones.
        title: Title of the Axes.

    Returns:
        The Axes.

    Example:
        >>> from ferlib import drawn, evaluation, plots
        >>> images = drawn.draw(21).images[:1]
        >>> ax = plots.prediction(images[0], evaluation.probabilities("tiny", images)[0])
    """
    ax = _axes(ax, title, size=(4.6, 0.5 + 0.2 * len(classes)))
    bars = ax.barh([*map(_plain, classes)], probabilities, color=list(colours(classes).values()))
    ax.bar_label(bars, fmt="{:.0%}", padding=2, fontsize=8)
    ax.set(xlim=(0, 1.9), xticks=[])
    ax.invert_yaxis()
    ax.tick_params(length=0)
    sns.despine(ax=ax, bottom=True)
    if label is not None:
        ax.get_yticklabels()[label].set_fontweight("bold")
    face = ax.inset_axes((0.66, 0, 0.34, 1))
    face.imshow(np.asarray(picture), cmap="gray", vmin=0, vmax=255)
    face.set_axis_off()
    return ax


def emotions_over_time(
    table: pd.DataFrame,
    *,
    classes: Sequence[str] = EMOTIONS,
    window: float = 0.4,
    most: int = 6,
    title: str = "",
) -> np.ndarray:
    """Draws the probabilities of each person in a clip against time. Figure-level.

    A line is the median over the window around a frame; its band holds the middle 80 % of the
    single frames in the window. Where a person is away, the lines are broken.

    Args:
        table: One row a person and frame, as `prediction.predict_to_csv` writes: person, seconds,
            and a probability for each class (`labels.answer_columns`).
        classes: Names of the classes.
        window: Width of the window in seconds.
        most: Most persons that are drawn: those with the most frames.
        title: Title of the figure.

    Returns:
        The array of Axes, one a person; the only one says so where nobody was seen.

    Example:
        >>> import numpy as np
        >>> import pandas as pd
        >>> from ferlib import plots
        >>> table = pd.DataFrame(np.full((50, 7), 1 / 7), columns=list(plots.EMOTIONS))
        >>> axes = plots.emotions_over_time(table.assign(person=1, seconds=np.arange(50) / 25))
    """
    persons = sorted(table["person"].value_counts().index[:most])
    rows = max(1, len(persons))
    figure, axes = plt.subplots(
        rows, 1, figsize=(9, 0.8 + 1.8 * rows), sharex=True, squeeze=False, layout="constrained"
    )
    figure.suptitle(title)
    axes = axes[:, 0]
    if not persons:
        _say(axes[0], "nobody was seen here")
        return axes
    for ax, person in zip(axes, persons, strict=True):
        seen = table[table["person"] == person].sort_values("seconds")
        times = seen["seconds"].to_numpy()
        around = (
            seen[answer_columns(classes)]
            .set_axis(list(classes), axis=1)
            .set_axis(pd.to_timedelta(times, unit="s"))
            .rolling(pd.Timedelta(seconds=window), center=True)
        )
        middle, low, high = (around.quantile(share) for share in (0.5, 0.1, 0.9))
        steps = np.diff(times, prepend=times[0])
        middle[steps > max(window, 2 * np.median(steps))] = np.nan  # breaks the line
        for name, colour in colours(classes).items():
            ax.plot(times, middle[name], color=colour, label=_plain(name))
            known = middle[name].notna()
            ax.fill_between(times, low[name], high[name], known, color=colour, alpha=0.2, lw=0)
        ax.set(ylabel=f"person {person}", ylim=(0, 1))
        ax.grid(alpha=0.3)
    axes[-1].set(xlabel="seconds")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return axes
