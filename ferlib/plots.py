"""Axes-level figures of the data and of results, with one fixed colour for each emotion.

Every function takes `ax=None` and returns the Axes; those that show several pictures return
the array of Axes of their figure.
"""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.ticker import LogLocator
from sklearn import metrics

from ferlib.labels import EMOTIONS, FERPLUS, PALETTE


def _axes(ax=None, *, size=(6.4, 4.0), title=None):
    """Returns `ax`, or the Axes of a new figure of `size` inches, with `title` set."""
    if ax is None:
        ax = plt.subplots(figsize=size, layout="constrained")[1]
    if title:
        ax.set_title(title)
    return ax


def _ends(value, low, high):
    """Gives the two parts of error bars; rounding may put an end on the wrong side of its value."""
    return np.maximum([value - low, high - value], 0)


# ---- the data ----------------------------------------------------------------------------


def gallery(images, labels=None, *, captions=(), columns=10, ax=None, title=None):
    """Shows pictures side by side; with labels, one row for each emotion.

    Args:
        images: uint8 [N, 48, 48], any square size.
        labels: int [N]; without labels the pictures follow each other row by row.
        captions: N texts, each to stand under its picture.
        columns: Most pictures in a row; of an emotion that has more, the first are shown.
        ax: Axes to draw on. None makes a figure.
        title: Title of the Axes.

    Returns:
        The Axes.
    """
    order = np.arange(len(images))
    if labels is None:
        rows = [("", order[start : start + columns]) for start in order[::columns]]
    else:
        rows = [(EMOTIONS[k], order[labels == k][:columns]) for k in np.unique(labels)]
    lines = max((caption.count("\n") + 1 for caption in captions), default=0)
    side, cell = images.shape[1], 1.0 if lines else 0.75
    across, down = side * 1.05, side * (1.08 + 0.17 * lines)
    size = (cell * columns + 0.8, cell * len(rows) * down / across + 0.4)
    ax = _axes(ax, size=size, title=title)
    for row, (_, members) in enumerate(rows):
        for column, i in enumerate(members):
            left, top = column * across, row * down
            extent = (left, left + side, top + side, top)
            ax.imshow(images[i], cmap="gray", vmin=0, vmax=255, extent=extent)
            if lines:
                at = (left + side / 2, top + side * 1.03)
                ax.text(*at, captions[i], ha="center", va="top", fontsize=8)
    width = across * min(columns, max(len(members) for _, members in rows))
    ax.set(xlim=(0, width), ylim=(len(rows) * down, 0), xticks=[])
    ax.set_yticks(np.arange(len(rows)) * down + side / 2, [name for name, _ in rows])
    ax.tick_params(length=0)
    sns.despine(ax=ax, left=True, bottom=True)
    return ax


def augmentations(variants, *, ax=None, title=None):
    """Shows the same pictures under several augmentations, one row for each.

    Args:
        variants: Name of each augmentation -> uint8 [N, 48, 48], the same N pictures.
        ax: Axes to draw on. None makes a figure.
        title: Title of the Axes.

    Returns:
        The Axes.
    """
    columns = len(next(iter(variants.values())))
    ax = gallery(np.concatenate(list(variants.values())), columns=columns, ax=ax, title=title)
    ax.set_yticks(ax.get_yticks(), list(variants))
    return ax


def counts(data, *, ax=None, title=None):
    """Draws how many pictures each emotion has in each split.

    Args:
        data: FERData.
        ax: Axes to draw on. None makes a figure.
        title: Title of the Axes; None takes the data's.

    Returns:
        The Axes.
    """
    ax = _axes(ax, size=(8, 3.6), title=title or data.title)
    groups = {split or "no split": data.split == split for split in data.splits or ("",)}
    _bars({name: np.bincount(data.labels[rows], minlength=7) for name, rows in groups.items()}, ax)
    ax.set(xlabel="label", ylabel="pictures")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return ax


def targets(variants, *, ax=None):
    """Draws the targets of one picture side by side.

    Args:
        variants: Name of each kind of target -> float [7].
        ax: Axes to draw on. None makes a figure.

    Returns:
        The Axes.
    """
    ax = _axes(ax, size=(4, 2.6))
    _bars(variants, ax)
    ax.tick_params(axis="x", rotation=90)
    ax.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    return ax


def _bars(groups, ax):
    """Draws a bar for each emotion in each group, name -> [7], later groups paler."""
    width = 0.8 / len(groups)
    for i, (name, heights) in enumerate(groups.items()):
        at = np.arange(len(EMOTIONS)) + (i - (len(groups) - 1) / 2) * width
        ax.bar(at, heights, width, color=PALETTE.values(), alpha=1 - 0.33 * i)
        ax.bar(0, 0, color="black", alpha=1 - 0.33 * i, label=name)
    ax.set_xticks(range(len(EMOTIONS)), EMOTIONS)


def mean_faces(data, *, title=None):
    """Shows each emotion's mean picture, and how it differs from the mean of all seven.

    Args:
        data: FERData.
        title: Title of the figure; None takes the data's.

    Returns:
        Axes [2, 7]: means above, differences below (red is brighter, on one scale).
    """
    figure, axes = plt.subplots(2, len(EMOTIONS), figsize=(9, 3.2), layout="constrained")
    means = np.full((len(EMOTIONS), *data.images.shape[1:]), np.nan)
    for label in np.unique(data.labels):
        means[label] = data.images[data.labels == label].mean(axis=0)
    apart = means - np.nanmean(means, axis=0)
    limit = np.nanmax(np.abs(apart))
    for label, (above, below) in enumerate(axes.T):
        above.imshow(means[label], cmap="gray")
        above.set_title(EMOTIONS[label], fontsize=10)
        shown = below.imshow(apart[label], cmap="RdBu_r", vmin=-limit, vmax=limit)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    figure.colorbar(shown, ax=axes[1], label="grey levels")
    figure.suptitle(title or data.title)
    return axes


def pixel_statistics(data, *, title=None):
    """Draws the spread of the pictures' brightness and contrast for each emotion.

    Args:
        data: FERData.
        title: Title of the figure; None takes the data's.

    Returns:
        The array of two Axes: mean and standard deviation of a picture's pixels.
    """
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    names = np.array(EMOTIONS)[data.labels]
    for ax, statistic, text in zip(axes, (np.mean, np.std), ("mean", "deviation"), strict=True):
        values = np.array([statistic(image) for image in data.images])
        sns.boxplot(
            x=names, y=values, hue=names, order=EMOTIONS, palette=PALETTE, fliersize=1, ax=ax
        )
        ax.set(xlabel="", ylabel=f"{text} of a picture's pixels")
    figure.suptitle(title or data.title)
    return axes


def votes_against_labels(data, *, ax=None, title=None):
    """Draws what FER+'s taggers saw in the pictures of each label.

    Args:
        data: FERData with votes.
        ax: Axes to draw on. None makes a figure.
        title: Title of the Axes; None takes the data's.

    Returns:
        The Axes: a row for each label, the share in percent of its pictures whose most voted
        FER+ emotion is the column's.
    """
    ax = _axes(ax, size=(7.5, 4.2), title=title or data.title)
    table = np.zeros((len(EMOTIONS), len(FERPLUS)))
    np.add.at(table, (data.labels, data.votes.argmax(axis=1)), 1)
    table *= 100 / np.maximum(table.sum(axis=1, keepdims=True), 1)
    sns.heatmap(
        table, annot=True, fmt=".0f", cmap="Blues", vmin=0, vmax=100, cbar=False,
        xticklabels=FERPLUS, yticklabels=EMOTIONS, linewidths=0.5, ax=ax,
    )  # fmt: skip
    ax.set(xlabel="most voted in FER+", ylabel="FER2013 label, % of the row")
    ax.tick_params(axis="x", rotation=45)
    ax.tick_params(axis="y", rotation=0)
    return ax


# ---- evaluation --------------------------------------------------------------------------


def learning_curves(history, *, axes=None, title=None):
    """Draws loss and accuracy on train and val against the epoch.

    Args:
        history: Table with one row an epoch (epoch, loss, accuracy, val_loss, val_accuracy), as
            `training.train` writes to history.csv, or a dict of such columns.
        axes: Two Axes (loss, accuracy), cleared first, so that a callback can draw into the same
            figure after each epoch. None makes a figure.
        title: Title of the figure.

    Returns:
        The array of the two Axes.
    """
    if axes is None:
        axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")[1]
    epochs = history.get("epoch", np.arange(1, len(history["loss"]) + 1))
    for ax, key in zip(axes, ("loss", "accuracy"), strict=True):
        ax.clear()
        for split, column, style in (("train", key, "--"), ("val", f"val_{key}", "-")):
            if column in history:
                ax.plot(epochs, history[column], style, marker=".", color="#333333", label=split)
        ax.set(xlabel="epoch", ylabel=key)
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        ax.grid(alpha=0.3)
        ax.legend()
    axes[0].figure.suptitle(title or "")
    return axes


def live(draw, **options):
    """Makes a figure that is drawn anew in place, for a training that is still running.

    Args:
        draw: A function of this module that takes `axes`, such as `learning_curves`.
        **options: What else it takes.

    Returns:
        A function of the data to draw; call it after every epoch.
    """
    shown = {}

    def update(value):
        from IPython.display import display

        axes = draw(value, axes=shown.get("axes"), **options)
        if shown:
            shown["handle"].update(axes[0].figure)
        else:
            shown.update(axes=axes, handle=display(axes[0].figure, display_id=True))
            plt.close(axes[0].figure)

    return update


def confusion_matrix(counts, *, rates=False, ax=None, title=None):
    """Draws a confusion matrix: rows are labels, columns are answers.

    Args:
        counts: int [7, 7], as `Report.confusion`.
        rates: Write shares of each row in percent instead of counts; the colour is the share
            either way.
        ax: Axes to draw on. None makes a figure.
        title: Title of the Axes.

    Returns:
        The Axes.
    """
    ax = _axes(ax, size=(5.6, 5.0), title=title)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cells = 100 * share if rates else counts
    sns.heatmap(
        share, annot=cells, fmt=".0f", cmap="Blues", vmin=0, vmax=1, square=True, cbar=False,
        xticklabels=EMOTIONS, yticklabels=EMOTIONS, linewidths=0.5, ax=ax,
    )  # fmt: skip
    ax.set(xlabel="answer", ylabel="label, % of the row" if rates else "label, pictures")
    ax.tick_params(axis="x", rotation=45)
    ax.tick_params(axis="y", rotation=0)
    return ax


def estimates(table, *, ax=None, title=None):
    """Draws one metric of several models, each with its 95 % interval.

    Args:
        table: Rows of `Report.to_frame` for one metric: model, pictures, value, low, high.
        ax: Axes to draw on. None makes a figure.
        title: Title of the Axes.

    Returns:
        The Axes.
    """
    models = list(dict.fromkeys(table["model"]))
    ax = _axes(ax, size=(6.4, 1.2 + 0.5 * len(models)), title=title)
    for shift, (pictures, rows) in zip((0.12, -0.12), table.groupby("pictures"), strict=False):
        ends = _ends(rows["value"], rows["low"], rows["high"])
        at = np.array([models.index(model) for model in rows["model"]]) - shift
        colour, marker = {"all": ("#333333", "o")}.get(pictures, ("#2f6db5", "s"))
        ax.errorbar(
            rows["value"], at, xerr=ends, fmt=marker, color=colour, capsize=3, label=pictures
        )
    ax.set(xlabel=str(table["metric"].iloc[0]).replace("_", " "))
    ax.set_yticks(range(len(models)), models)
    ax.set_ylim(len(models) - 0.5, -0.5)
    ax.grid(axis="x", alpha=0.3)
    ax.legend(title="pictures", bbox_to_anchor=(1.02, 1), loc="upper left")
    return ax


def per_class(table, *, score="recall", ax=None, title=None):
    """Draws precision, recall or F1 of each emotion with its 95 % interval.

    Args:
        table: `Report.per_class`.
        score: "precision", "recall" or "f1".
        ax: Axes to draw on. None makes a figure.
        title: Title of the Axes; None takes the score.

    Returns:
        The Axes.
    """
    ax = _axes(ax, title=title or score)
    at, value = np.arange(len(table)), table[score]
    ends = _ends(value, table[f"{score}_low"], table[f"{score}_high"])
    ax.bar(at, value, color=[PALETTE[name] for name in table.index])
    ax.errorbar(at, value, yerr=ends, fmt="none", color="black", capsize=3)
    ax.set(ylim=(0, 1), xlim=(-0.6, len(table) - 0.4), ylabel=score)
    ax.set_xticks(at, table.index, rotation=45)
    return ax


def one_vs_rest(probabilities, labels, *, kind="roc", ax=None, title=None):
    """Draws each emotion's curve against the rest, with the area under it.

    Args:
        probabilities: float [N, 7].
        labels: int [N].
        kind: "roc", or "pr" for precision and recall.
        ax: Axes to draw on. None makes a figure.
        title: Title of the Axes.

    Returns:
        The Axes.
    """
    ax = _axes(ax, size=(5, 5), title=title)
    for label in np.unique(labels):
        truth, score, name = labels == label, probabilities[:, label], EMOTIONS[label]
        if kind == "roc":
            x, y, _ = metrics.roc_curve(truth, score)
            area = metrics.auc(x, y)
        else:
            y, x, _ = metrics.precision_recall_curve(truth, score)
            area = metrics.average_precision_score(truth, score)
        ax.plot(x, y, color=PALETTE[name], label=f"{name} {area:.2f}")
    if kind == "roc":
        ax.plot((0, 1), (0, 1), ":", color="grey")
        ax.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
    else:
        ax.set(xlabel="recall", ylabel="precision", aspect="equal")
    area = "area" if kind == "roc" else "average precision"
    ax.legend(title=area, fontsize=8, bbox_to_anchor=(1.02, 1), loc="upper left")
    return ax


def reliability(tables, *, ax=None, title=None):
    """Draws accuracy against confidence; on the diagonal a model means what it says.

    Args:
        tables: Name -> what `evaluation.reliability` gave. The size of a point is the share of
            pictures in its bin; bins with less than ten are left out.
        ax: Axes to draw on. None makes a figure.
        title: Title of the Axes.

    Returns:
        The Axes.
    """
    ax = _axes(ax, size=(5, 5), title=title)
    ax.plot((0, 1), (0, 1), ":", color="grey")
    for (name, table), colour in zip(tables.items(), sns.color_palette("colorblind"), strict=False):
        table = table[table["n"] >= 10]
        x, y, size = table["confidence"], table["accuracy"], 8 + 400 * table["n"] / table["n"].sum()
        ax.plot(x, y, color=colour, label=name)
        ax.scatter(x, y, size, color=[colour], alpha=0.6)
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy", aspect="equal")
    ax.legend()
    return ax


def risk_coverage(tables, *, ax=None, title=None):
    """Draws the accuracy on the share of pictures that a model is surest of.

    Args:
        tables: Name -> what `evaluation.risk_coverage` gave.
        ax: Axes to draw on. None makes a figure.
        title: Title of the Axes.

    Returns:
        The Axes.
    """
    ax = _axes(ax, title=title)
    for (name, table), colour in zip(tables.items(), sns.color_palette("colorblind"), strict=False):
        enough = table[table.index >= 19]  # the first few pictures say little
        ax.plot(enough["coverage"], enough["accuracy"], color=colour, label=name)
    ax.set(xlim=(0, 1), xlabel="share of pictures answered, the surest first", ylabel="accuracy")
    ax.grid(alpha=0.3)
    ax.legend()
    return ax


def accuracy_by(table, *, overall=None, ax=None, title=None):
    """Draws the accuracy in groups of pictures with its 95 % interval.

    Args:
        table: What `evaluation.accuracy_by` gave.
        overall: Accuracy on all pictures, drawn as a line.
        ax: Axes to draw on. None makes a figure.
        title: Title of the Axes.

    Returns:
        The Axes.
    """
    ax = _axes(ax, size=(4, 3.4), title=title)
    ends = _ends(table["accuracy"], table["low"], table["high"])
    ax.errorbar(table.index, table["accuracy"], yerr=ends, marker="o", color="#333333", capsize=3)
    if overall is not None:
        ax.axhline(overall, linestyle=":", color="grey")
    ax.set(xlabel=table.index.name, ylabel="accuracy")
    ax.grid(axis="y", alpha=0.3)
    return ax


def mistakes(images, table, *, columns=8, ax=None, title=None):
    """Shows pictures with their label, the model's answer and its confidence.

    Args:
        images: uint8 [M, 48, 48], all pictures of the report.
        table: The rows of `evaluation.picture_table` to show.
        columns: Pictures in a row.
        ax: Axes to draw on. None makes a figure.
        title: Title of the Axes.

    Returns:
        The Axes.
    """
    captions = [
        f"{row.label}\n\N{RIGHTWARDS ARROW} {row.answer} {row.confidence:.0%}"
        for row in table.itertuples()
    ]
    return gallery(images[table.index], captions=captions, columns=columns, ax=ax, title=title)


def paged(draw, pages):
    """Shows the first of several figures, with a slider under it that turns the pages.

    Args:
        draw: A function from a page's number (0 is the first) to its Axes.
        pages: How many pages there are.

    Returns:
        The Axes of the first page.
    """
    import ipywidgets
    from IPython.display import display

    def page(number):
        ax = draw(number)
        plt.close(ax.figure)
        return ax

    first = page(0)
    handle = display(first.figure, display_id=True)
    if pages > 1:
        slider = ipywidgets.IntSlider(1, 1, pages, description="page", continuous_update=False)
        slider.observe(lambda change: handle.update(page(change.new - 1).figure), "value")
        display(slider)
    return first


def gradcam(images, heat, *, captions=None, ax=None, title=None):
    """Shows pictures above the same pictures under a map of what spoke for the answer.

    Args:
        images: uint8 [N, 48, 48].
        heat: float [N, 48, 48], as `explain.gradcam` gives.
        captions: N texts under the maps.
        ax: Axes to draw on. None makes a figure.
        title: Title of the Axes.

    Returns:
        The Axes.
    """
    grey = np.repeat(images[..., None] / 255, 3, axis=-1)
    mixed = 0.55 * grey + 0.45 * plt.get_cmap("inferno")(heat)[..., :3]
    both = np.concatenate([grey, mixed])
    captions = captions and [""] * len(images) + list(captions)
    return gallery(both, captions=captions, columns=len(images), ax=ax, title=title)


def embedding(points, report, *, axes=None):
    """Draws the map of a model's penultimate layer: by label, and where its mistakes are.

    Args:
        points: float [N, 2], such as t-SNE makes of what `explain.embed` gives.
        report: The Report on the same N pictures.
        axes: Two Axes. None makes a figure.

    Returns:
        The array of the two Axes.
    """
    if axes is None:
        axes = plt.subplots(1, 2, figsize=(11, 5.2), layout="constrained")[1]
    names = np.array(EMOTIONS)[report.labels]
    wrong = report.predicted != report.labels
    x, y = points.T
    style = {"s": 9, "linewidth": 0}
    sns.scatterplot(x=x, y=y, hue=names, hue_order=EMOTIONS, palette=PALETTE, ax=axes[0], **style)
    axes[1].scatter(x[~wrong], y[~wrong], color="#cccccc", label="right", **style)
    axes[1].scatter(x[wrong], y[wrong], color="#c1272d", label="wrong", **style)
    axes[1].legend()
    for ax, title in zip(axes, ("label", "answer"), strict=True):
        ax.set(xticks=[], yticks=[], title=title)
    return axes


def robustness(table, *, ax=None, title=None):
    """Draws the accuracy on spoiled pictures against the strength of what spoils them.

    Args:
        table: What `evaluation.robustness` gave.
        ax: Axes to draw on. None makes a figure.
        title: Title of the Axes.

    Returns:
        The Axes.
    """
    ax = _axes(ax, title=title)
    sns.lineplot(
        table, x="level", y="accuracy", hue="corruption", style="corruption", markers=True,
        dashes=False, palette="colorblind", ax=ax,
    )  # fmt: skip
    ax.set(ylim=(0, None), xlabel="strength (0: as they are)")
    ax.grid(alpha=0.3)
    return ax


# ---- prediction --------------------------------------------------------------------------


def prediction(picture, probabilities, *, label=None, ax=None, title=None):
    """Shows a picture beside a bar for the probability of each emotion.

    Args:
        picture: uint8 [H, W] or [H, W, 3], or a PIL picture.
        probabilities: float [7], in the order of `labels.EMOTIONS`.
        label: The true label, 0 to 6, whose name is set in bold. None where it is not known.
        ax: Axes to draw on. None makes a figure.
        title: Title of the Axes.

    Returns:
        The Axes.
    """
    ax = _axes(ax, size=(4.2, 1.9), title=title)
    bars = ax.barh(EMOTIONS, probabilities, color=[PALETTE[emotion] for emotion in EMOTIONS])
    ax.bar_label(bars, fmt="{:.0%}", padding=2, fontsize=8)
    ax.set(xlim=(-1.2, 1.15), xticks=[], ylim=(len(EMOTIONS) - 0.5, -0.5))
    ax.tick_params(length=0)
    sns.despine(ax=ax, bottom=True)
    ax.spines.left.set_position(("data", 0))
    if label is not None:
        ax.get_yticklabels()[label].set_fontweight("bold")
    face = ax.inset_axes((0, 0, 0.3, 1))
    face.imshow(np.asarray(picture), cmap="gray", vmin=0, vmax=255)
    face.axis("off")
    return ax


# ---- tuning and transfer learning --------------------------------------------------------


def trials(table, *, noise=None, ax=None, title=None):
    """Draws the scores of a search in the order of its trials.

    Args:
        table: What `tuning.read_trials` gives.
        noise: Scores of one setting under several seeds; the band that they span is drawn.
        ax: Axes to draw on. None makes a figure.
        title: Title of the Axes.

    Returns:
        The Axes.
    """
    ax = _axes(ax, title=title)
    best = table.score.cummax().ffill()
    ax.step(table.number, best, where="post", color="#333333", label="best so far")
    ax.plot(table.number, table.score, "o", color="#2f6db5", label="trial")
    if noise is not None:
        ax.axhspan(min(noise), max(noise), color="#7a7a7a", alpha=0.3, label="seeds of one setting")
    for number in table.number[table.status == "failed"]:
        ax.axvline(number, color="#c1272d", linestyle=":", label="failed")
    ax.set(xlabel="trial", ylabel="accuracy on val")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(alpha=0.3)
    entries = dict(zip(*ax.get_legend_handles_labels()[::-1], strict=True))
    ax.legend(entries.values(), entries.keys())
    return ax


def trial_values(table, *, title=None):
    """Draws each parameter's values against the score of the trials.

    Args:
        table: What `tuning.read_trials` gives.
        title: Title of the figure.

    Returns:
        The array of Axes.
    """
    names = table.columns[1 : table.columns.get_loc("score")]
    rows = -(-len(names) // 3)
    figure, axes = plt.subplots(
        rows, 3, figsize=(9, 2.2 * rows), sharey=True, squeeze=False, layout="constrained"
    )
    for ax, name in zip(axes.flat, names, strict=False):
        values = table[name]
        numeric = values.dtype.kind in "if"
        values = values if numeric else values.astype(str)
        ax.plot(values, table.score, "o", color="#2f6db5", alpha=0.7)
        if numeric and values.min() > 0 and values.max() > 20 * values.min():
            ax.set_xscale("log")
            ax.xaxis.set_minor_formatter("")
        ax.set(xlabel=name.replace("_", " "))
        ax.grid(alpha=0.3)
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    for ax in axes[:, 0]:
        ax.set(ylabel="accuracy on val")
    figure.suptitle(title or "")
    return axes


def importance(table, *, ax=None, title=None):
    """Draws which parameters matter.

    Args:
        table: What `tuning.importance` gives.
        ax: Axes to draw on. None makes a figure.
        title: Title of the Axes.

    Returns:
        The Axes.
    """
    ax = _axes(ax, size=(6.4, 1 + 0.3 * len(table)), title=title)
    ax.barh(table.parameter, table.importance, xerr=table["std"], color="#2f6db5", capsize=2)
    ax.invert_yaxis()
    ax.set(xlabel="permutation importance (loss of R²)")
    ax.grid(axis="x", alpha=0.3)
    return ax


def accuracy_against_cost(table, *, cost="ms_per_picture", ax=None, title=None):
    """Draws the accuracy of models, with its 95 % interval, against what they cost.

    Args:
        table: One row a model, named by its index: accuracy, low, high, and the cost.
        cost: Column of the cost; its axis is logarithmic.
        ax: Axes to draw on. None makes a figure.
        title: Title of the Axes.

    Returns:
        The Axes.
    """
    ax = _axes(ax, size=(7.5, 4.5), title=title)
    table = table.dropna(subset=[cost, "accuracy"])
    ends = _ends(table.accuracy, table.low, table.high)
    ax.errorbar(table[cost], table.accuracy, yerr=ends, fmt="o", color="#2f6db5", capsize=3)
    for number, (name, row) in enumerate(table.sort_values(cost).iterrows()):
        beside = (6, -11 if number % 2 else 4)  # so that neighbours do not cover each other
        ax.annotate(name, (row[cost], row.accuracy), beside, textcoords="offset points", fontsize=8)
    ax.set(xscale="log", xlabel=cost.replace("_", " "), ylabel="accuracy")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter("")
    ax.margins(x=0.4)
    ax.grid(alpha=0.3)
    return ax
