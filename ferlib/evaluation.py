"""How good a model is and on which pictures it fails: numbers first.

Nothing here draws; `ferlib.plots` makes figures from what these functions return.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.optimize import minimize_scalar
from scipy.special import entr, softmax, xlogy
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import KFold
from tqdm.auto import tqdm

from ferlib import cleaning, files, runtimes, zoo
from ferlib.faces import FERData
from ferlib.labels import EMOTIONS, FERPLUS, canonical, ferplus_labels

METRICS = ("accuracy", "balanced_accuracy", "top2_accuracy", "macro_f1", "log_loss")
"""The metrics of a report."""

LOSSY = (".jpg", ".jpeg", ".webp")
"""Ends of the names of pictures that lose their exact pixels when they are saved."""

READINGS_ON = 500
"""The most pictures that the usual readings of a model without a card are compared on."""

CORRUPTIONS = {
    "blur": (0.5, 1.0, 1.5, 2.0, 3.0),
    "noise": (5, 10, 20, 35, 50),
    "brightness": (20, 40, 60, 80, 110),
    "occlusion": (8, 12, 16, 20, 24),
    "rotation": (5, 10, 15, 25, 40),
    "jpeg": (40, 25, 15, 10, 5),
}
"""Corruption -> its five strengths.

They are blur's sigma in pixels; noise's standard deviation and brightness's shift in grey levels;
the side of the covered square in pixels; degrees; JPEG quality."""

CROPS = {
    "scale": (0.8, 0.9, 1.1, 1.25),
    "shift": (0.1,),
    "rotation": (15,),
    "blur": (1.0,),
    "dark": (0.25,),
}
"""How faces that are found and cut out differ from FER2013's.

The face's size, 1 as it is; shift as a share of the side; degrees; blur's sigma in pixels; share of
the light that is left."""


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval.

    Args:
        value: The number on the pictures as they are.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Report:
    """What a model answers on one split, and how good that is.

    Args:
        model: The model's name or file.
        data: The pictures of the split that were compared, with their labels and votes.
        tta: The test-time augmentation that the answers were averaged over.
        probabilities: float [N, K], over the classes of `data`.
        seen: bool [N], which pictures the model was trained on; None where it does not say.
        metrics: Name (see `METRICS`) -> Estimate, on all pictures.
        unseen: The same on the pictures that the model has not seen; None where that is unknown
            or no picture is left.
        per_class: One row a class: precision, recall and f1, each with _low and _high, support.
        confusion: int [K, K], rows are labels, columns are answers.
        left_out: Classes that only one side has and that were not compared: "data" -> {class:
            number of its pictures}, "model" -> names.
        reading: How the model's input and output were read; empty where its card alone says it.
    """

    model: str
    data: FERData
    tta: str
    probabilities: np.ndarray
    seen: np.ndarray | None
    metrics: dict[str, Estimate]
    unseen: dict[str, Estimate] | None
    per_class: pd.DataFrame
    confusion: np.ndarray
    left_out: dict[str, Any]
    reading: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of labels and probabilities."""
        return self.data.classes

    @property
    def split(self) -> str:
        """The split, train, val or test; choices are made on the first two."""
        return str(self.data.split[0])

    @property
    def labels(self) -> np.ndarray:
        """The true labels, int64 [N]."""
        return self.data.labels

    @property
    def predicted(self) -> np.ndarray:
        """The answers, int64 [N]."""
        return self.probabilities.argmax(axis=1)

    def to_frame(self) -> pd.DataFrame:
        """Gives the metrics as a table: one row a set of pictures ("all", "unseen") and metric."""
        unseen = 0 if self.seen is None else int((~self.seen).sum())
        sets = (("all", len(self.labels), self.metrics), ("unseen", unseen, self.unseen or {}))
        rows = []
        for which, n, metrics in sets:
            about = {"model": self.model, "split": self.split, "pictures": which, "n": n}
            rows += [about | {"metric": key} | vars(metrics[key]) for key in metrics]
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """Gives the numbers of the report as JSON knows them; what is undefined is None."""
        keys = ("model", "split", "tta", "classes", "metrics", "unseen", "confusion")
        numbers = {key: getattr(self, key) for key in (*keys, "left_out", "reading")}
        numbers |= {
            "data": self.data.title,
            "choices_made_on_split": self.split != "test",
            "pictures": len(self.labels),
            "seen": None if self.seen is None else self.seen.sum(),
            "per_class": self.per_class.to_dict("index"),
        }
        return files.plain(numbers)

    def __str__(self) -> str:
        seen = "an unknown number" if self.seen is None else f"{self.seen.sum():,}"
        chosen = "" if self.split == "test" else ", which choices were made on"
        table = pd.DataFrame({"all": self.metrics})
        if self.unseen:
            table["unseen"] = self.unseen
        lines = [
            f"{self.model} on {self.split} of {self.data.title}{chosen}",
            str(table),
            f"{seen} of the {len(self.labels):,} pictures are in the model's training data",
        ]
        if self.reading:
            lines.append(f"Read as: {self.reading}")
        if self.left_out["data"]:
            names = ", ".join(f"{name} ({n:,})" for name, n in self.left_out["data"].items())
            lines.append(f"Left out of the data, as the model has no such class: {names}")
        if self.left_out["model"]:
            names = ", ".join(self.left_out["model"])
            lines.append(f"Left out of the model's answers, as the data has no such class: {names}")
        return "\n".join(lines)


# ---- answers and numbers --------------------------------------------------------------------


def probabilities(
    model: runtimes.Model, images: np.ndarray, *, tta: str = "none", batch_size: int = 256
) -> np.ndarray:
    """Asks a model for the probabilities of its classes.

    Args:
        model: A Keras model, a file (.keras, .h5, .onnx, .tflite), a shipped model's name, or
            what `runtimes.open_model` gave.
        images: uint8 [N, 48, 48] or [N, 48, 48, 1].
        tta: Test-time augmentation whose answers are averaged: "none"; "flip", the picture and
            its mirror image; "ten", the picture and four shifted by 2 pixels, each with its
            mirror image.
        batch_size: Pictures in one batch.

    Returns:
        float32 [N, K], each row sums to 1.

    Raises:
        ValueError: If `tta` is none of the three, or the model cannot be read.

    Example:
        >>> from ferlib import drawn, evaluation
        >>> evaluation.probabilities("tiny", drawn.draw(21).images, tta="flip").shape
        (21, 7)
    """
    if tta not in ("none", "flip", "ten"):
        raise ValueError(f'tta is {tta!r}; it must be "none", "flip" or "ten".')
    opened = runtimes.open_model(model)
    images = np.asarray(images)
    images = images.reshape(images.shape[:3])
    height, width = images.shape[1:]
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2)), mode="edge")
    corners = [(2, 2)]
    if tta == "ten":
        corners += [(0, 0), (0, 4), (4, 0), (4, 4)]
    views = [padded[:, top : top + height, left : left + width] for top, left in corners]
    if tta != "none":
        views += [view[:, :, ::-1] for view in views]
    return np.mean([opened(view, batch_size=batch_size) for view in views], axis=0)


def evaluate(
    model: runtimes.Model,
    data: FERData,
    *,
    split: str | None = None,
    tta: str = "none",
    scaling: str | None = None,
    classes: str | tuple[str, ...] | None = None,
    prior: str | float = "trained",
    seen: str | np.ndarray | None = "auto",
    name: str = "",
    resamples: int = 1000,
    seed: int = 0,
) -> Report:
    """Evaluates a model on one split, with 95 % intervals, with and without seen pictures.

    A model and data with different classes are compared on those that they share. Of a file
    without ferlib's card, the usual readings of its input and outputs are tried on pictures of
    val, and where one of them does much better than the one in use, a warning names it.

    Args:
        model: A Keras model, a file (.keras, .h5, .onnx, .tflite), a shipped model's name, or
            what `runtimes.open_model` gave.
        data: The data; all splits of it or the one alone.
        split: "train", "val" or "test". None takes test, or val where there is no test.
        tta: Test-time augmentation, see `probabilities`.
        scaling: What the model expects of its pixels: "0-255", "0-1", "-1-1" or "imagenet". None
            takes what is known of the model, else "0-255".
        classes: Names of its outputs in their order, or "alphabetical". None takes the card's,
            else FER2013's where there are seven.
        prior: "uniform" answers as if all classes were equally frequent, see
            `runtimes.open_model`.
        seen: uint64 hashes of the pictures that the model was trained on (see
            `cleaning.picture_hashes`), or None for unknown. "auto" reads them from the model's
            file; a model in memory has none. Only exact copies are found: where pictures lie in
            files with loss (see `LOSSY`) and nearly none is known, that counts as unknown.
        name: What the report calls the model; empty takes its file or its own name.
        resamples: Bootstrap resamples of the pictures.
        seed: Seed of the resamples; with one seed, those of two models are paired.

    Returns:
        The Report.

    Raises:
        ValueError: If the data has no picture in that split, or shares no two classes with the
            model.

    Example:
        >>> from ferlib import drawn, evaluation
        >>> report = evaluation.evaluate("tiny", drawn.draw(120), split="val", resamples=20)
        >>> report.confusion.shape
        (7, 7)
    """
    split = split or data.held_out
    part = data.of(split)
    if not len(part):
        raise ValueError(
            f"{data.title} has no {split} split (it has: {', '.join(data.splits) or 'none'}); "
            "name one of these with split= (--split). Where there is train alone, "
            "ferlib.cleaning.prepare makes the others."
        )
    opened = runtimes.open_model(model, scaling=scaling, classes=classes, prior=prior)
    if opened.classes[0] == "class 0" and len(opened.classes) == len(data.classes):
        opened = replace(opened, classes=data.classes)
    _compare(part, opened.classes, opened.name)  # what cannot be compared is not computed
    reading = opened.reading if opened.prior else ""
    if not opened.has_card:
        reading = f"{opened.reading}; {_try_readings(opened, data, seed)}"
    report = report_on(
        probabilities(opened, part.images, tta=tta),
        part,
        name or opened.name,
        classes=opened.classes,
        tta=tta,
        seen=_seen(model, data, split, seen),
        resamples=resamples,
        seed=seed,
    )
    return replace(report, reading=reading)


def report_on(
    answers: np.ndarray,
    data: FERData,
    model: str,
    *,
    classes: tuple[str, ...] | None = None,
    tta: str = "none",
    seen: np.ndarray | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Report:
    """Makes the report of answers that are already there (calibrated, averaged, from elsewhere).

    Args:
        answers: Probabilities, float [N, K].
        data: The N pictures, of one split.
        model: Name of what answered.
        classes: Names of the K answers, in their order. None takes those of the data.
        tta: How it answered, see `probabilities`.
        seen: bool [N] or None, see `Report`.
        resamples: Bootstrap resamples of the pictures.
        seed: Seed of the resamples.

    Returns:
        The Report, on the classes that the answers and the data share.

    Raises:
        ValueError: If the answers do not fit the pictures or classes, or share no two classes
            with the data.

    Example:
        >>> import numpy as np
        >>> from ferlib import drawn, evaluation
        >>> val = drawn.draw(120).of("val")
        >>> perfect = np.eye(7)[val.labels]
        >>> report = evaluation.report_on(perfect, val, "perfect", resamples=20)
        >>> print(report.metrics["accuracy"])
        1.000 [1.000, 1.000]
    """
    classes = classes or data.classes
    if answers.shape != (len(data), len(classes)):
        raise ValueError(
            f"{model}: the answers are {list(answers.shape)}, but there are {len(data)} pictures "
            f"and {len(classes)} classes ({', '.join(classes)})."
        )
    compared, rows, columns = _compare(data, classes, model)
    answers = answers[rows][:, columns]
    if len(columns) < len(classes):  # each row sums to 1 again
        answers = answers / np.maximum(answers.sum(axis=1, keepdims=True), 1e-12)
    seen = None if seen is None else seen[rows]
    labels = compared.labels
    scores, metrics = _measure(answers, labels, resamples, seed)
    unseen = None
    if seen is not None and not seen.all():
        unseen = _measure(answers[~seen], labels[~seen], resamples, seed)[1]
    confusion = confusion_matrix(labels, answers.argmax(axis=1), labels=range(len(columns)))
    per_class = {}
    for key in ("precision", "recall", "f1"):
        per_class[key], per_class[f"{key}_low"], per_class[f"{key}_high"] = scores[key]
    per_class["support"] = confusion.sum(axis=1)
    missing = np.bincount(data.labels[~rows], minlength=len(data.classes))
    return Report(
        model=model,
        data=compared,
        tta=tta,
        probabilities=answers,
        seen=seen,
        metrics=metrics,
        unseen=unseen,
        per_class=pd.DataFrame(per_class, index=list(compared.classes)),
        confusion=confusion,
        left_out={
            "data": {name: int(n) for name, n in zip(data.classes, missing, strict=True) if n},
            "model": [name for i, name in enumerate(classes) if i not in columns],
        },
    )


def _compare(data: FERData, classes: tuple[str, ...], model: str):
    """Finds what of the data can be compared with a model's classes.

    Returns:
        The data of the shared classes; bool [N], its rows; and for each of its classes the
        column of the model's answers.
    """
    outputs = {canonical(name): column for column, name in enumerate(classes)}
    shared = tuple(name for name in data.classes if canonical(name) in outputs)
    if len(shared) < 2:
        raise ValueError(
            f"{model} answers {', '.join(classes)}; {data.title} has {', '.join(data.classes)}. "
            "They must share two classes to be compared. Where the model's outputs have other "
            'names, name them in their order with classes="...,...", or classes="alphabetical".'
        )
    columns = [outputs[canonical(name)] for name in shared]
    place = np.array([shared.index(name) if name in shared else -1 for name in data.classes])
    rows = place[data.labels] >= 0
    part = data.select(rows)
    return replace(part, labels=place[part.labels], classes=shared), rows, columns


def _seen(model: runtimes.Model, data: FERData, split: str, hashes: Any):
    """Gives which pictures of a split a model was trained on; None where that is not known."""
    if isinstance(hashes, str):
        hashes = zoo.read_seen(model) if isinstance(model, str | Path) else None
    if hashes is None:
        return None
    known = np.isin(cleaning.picture_hashes(data.images), hashes)
    rows = data.split == split
    lossy = any(name.lower().endswith(LOSSY) for name in data.names[rows])
    if lossy and known.mean() < 0.01:  # what was saved again is no exact copy any more
        return None
    return known[rows]


def _try_readings(opened: runtimes.Classifier, data: FERData, seed: int):
    """Scores the usual readings of a model without a card, and warns of a much better one.

    Returns:
        What was found, in words.
    """
    split = "val" if "val" in data.splits else "train"
    some = data.of(split).sample(READINGS_ON, seed=seed)
    if not len(some):
        return "other readings were not tried, as there are no pictures of val or train"
    accuracy = _readings(opened, some)
    used = accuracy[opened.scaling, opened.classes]
    best = max(accuracy.values())
    # Some networks hardly mind how pixels are scaled: name all that come close to the best.
    good = [
        f"pixels {scaling}, outputs {runtimes.order_name(order)} ({share:.1%})"
        for (scaling, order), share in accuracy.items()
        if share > best - 0.02
    ]
    found = (
        f"of {len(accuracy)} usual readings, best on {len(some)} pictures of {split}: "
        f"{'; '.join(good)}; this one {used:.1%}"
    )
    if best - used > 0.1:
        warnings.warn(
            f"{opened.name} does not say how it is to be read, and is read as {opened.reading}. "
            f"But {found}. Likely it expects pixels of another scaling (--input; in Python "
            "scaling=) or answers in another order (--classes, classes=).",
            stacklevel=3,
        )
    return found


def _readings(opened: runtimes.Classifier, data: FERData):
    """Gives the accuracy of the usual readings of a model: (scaling, order of outputs) -> share."""
    usual = dict.fromkeys([opened.classes, data.classes, EMOTIONS, tuple(sorted(opened.classes))])
    orders = [order for order in usual if sorted(order) == sorted(opened.classes)]
    accuracy = {}
    for scaling in [opened.scaling] if opened.takes_pixels else runtimes.SCALINGS:
        answers = replace(opened, scaling=scaling)(data.images)
        for order in orders:
            compared, rows, columns = _compare(data, order, opened.name)
            predicted = answers[rows][:, columns].argmax(axis=1)
            accuracy[scaling, order] = (predicted == compared.labels).mean()
    return accuracy


def _measure(answers: np.ndarray, labels: np.ndarray, resamples: int, seed: int):
    """Gives every score as [3, ...], value, low and high, and the metrics as Estimates.

    Every score follows from means over pictures: of the cells of the confusion matrix, top-2
    hits and losses. So resampling the pictures is one product of matrices.
    """
    rows, classes = np.arange(len(labels)), answers.shape[1]
    cells = np.zeros((len(labels), classes**2))
    cells[rows, labels * classes + answers.argmax(axis=1)] = 1
    first_two = np.argsort(-answers, axis=1, kind="stable")[:, :2]
    top2 = (first_two == labels[:, None]).any(axis=1)
    table = np.column_stack([cells, top2, _losses(answers, labels)])
    value = _scores(table.mean(axis=0), classes)
    drawn = _scores(_resampled_means(table, resamples, seed), classes)
    scores = {}
    for key in value:
        with warnings.catch_warnings(action="ignore"):  # classes without pictures stay NaN
            ends = np.nanpercentile(drawn[key], (2.5, 97.5), axis=0)
        scores[key] = np.concatenate([value[key][None], ends])
    return scores, {key: Estimate(*scores[key].tolist()) for key in METRICS}


def _losses(answers: np.ndarray, labels: np.ndarray):
    """Gives each picture's cross-entropy, float [N]."""
    return -np.log(np.maximum(answers[np.arange(len(labels)), labels], 1e-7))


def _scores(means: np.ndarray, classes: int):
    """Computes the scores from the means of the columns that `_measure` makes."""
    matrix = means[..., :-2].reshape(*means.shape[:-1], classes, classes)
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    support, answered = matrix.sum(axis=-1), matrix.sum(axis=-2)
    with np.errstate(invalid="ignore"):
        precision = hits / answered
        recall = hits / support
        f1 = 2 * hits / (answered + support)
    return {
        "accuracy": hits.sum(axis=-1),
        "balanced_accuracy": np.nanmean(recall, axis=-1),
        "top2_accuracy": means[..., -2],
        "macro_f1": np.nanmean(f1, axis=-1),
        "log_loss": means[..., -1],
        "precision": precision,
        "recall": recall,
        "f1": f1,
    }


def _resampled_means(table: np.ndarray, resamples: int, seed: int):
    """Means of the columns of [N, K] over bootstrap resamples of the rows: [resamples, K]."""
    rng = np.random.default_rng(seed)
    n = len(table)
    means = []
    for start in range(0, resamples, 100):
        rows = min(100, resamples - start)
        picks = rng.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        times = np.bincount(picks.ravel(), minlength=rows * n).reshape(rows, n)
        means.append(times @ table / n)
    return np.concatenate(means)


def _mean(values: Any, resamples: int, seed: int):
    """The mean of numbers [N], with the ends of its bootstrap interval."""
    column = np.asarray(values, dtype=float)[:, None]
    ends = np.percentile(_resampled_means(column, resamples, seed), (2.5, 97.5))
    return Estimate(float(column.mean()), *ends.tolist())


def mcnemar(a: Report, b: Report) -> dict[str, Any]:
    """Tests whether two models differ in accuracy on the same pictures.

    Args:
        a: Report of one model.
        b: Report of the other, on the same pictures.

    Returns:
        only_a and only_b (pictures that only one of them got right), differ (pictures with
        different answers), difference (accuracy of `a` minus that of `b`, an Estimate with
        Wald's interval for paired shares) and p_value (exact, two-sided).

    Raises:
        ValueError: If the reports are on different pictures.

    Example:
        >>> import numpy as np
        >>> from ferlib import drawn, evaluation
        >>> faces = drawn.draw(70).of("val")
        >>> right, wrong = np.eye(7)[faces.labels], np.eye(7)[faces.labels - 1]
        >>> one, two = (evaluation.report_on(p, faces, "x", resamples=20) for p in (right, wrong))
        >>> evaluation.mcnemar(one, two)["only_a"] == len(faces)
        True

    Source: McNemar, Note on the sampling error of the difference between correlated proportions,
    Psychometrika 12 (1947).
    """
    if a.data.fingerprint != b.data.fingerprint or a.classes != b.classes:
        raise ValueError(
            f"{a.model} ({a.split} of {a.data.title}) and {b.model} ({b.split} of {b.data.title}) "
            "were evaluated on different pictures: evaluate both on the same split and classes."
        )
    right_a, right_b = a.predicted == a.labels, b.predicted == b.labels
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    n, either = len(a.labels), only_a + only_b
    gap = (only_a - only_b) / n
    half = 1.96 * float(np.sqrt(either / n - gap**2) / np.sqrt(n))
    return {
        "only_a": only_a,
        "only_b": only_b,
        "differ": int((a.predicted != b.predicted).sum()),
        "difference": Estimate(gap, gap - half, gap + half),
        "p_value": float(binomtest(only_a, either).pvalue) if either else 1.0,
    }


# ---- calibration ----------------------------------------------------------------------------


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 15) -> float:
    """Gives the expected calibration error: how far confidence is from accuracy, 0 to 1.

    Args:
        probabilities: float [N, K].
        labels: int [N].
        bins: Bins of equal width between 0 and 1.

    Returns:
        The mean over the bins of `|accuracy - mean confidence|`, weighted by their pictures.

    Example:
        >>> import numpy as np
        >>> from ferlib import evaluation
        >>> sure = np.array([[0.9, 0.1], [0.9, 0.1]])
        >>> round(evaluation.calibration_error(sure, np.array([0, 1])), 2)
        0.4

    Source: Guo et al., On calibration of modern neural networks (2017).
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    place = np.ceil(confidence * bins).astype(int)
    gaps = np.bincount(place, weights=right - confidence)
    return float(np.abs(gaps).sum() / len(labels))


def with_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Divides the logarithms of probabilities by a temperature; the answers stay the same.

    Args:
        probabilities: float [N, K].
        temperature: Above 1, answers become less sure.

    Returns:
        float [N, K], each row sums to 1.

    Example:
        >>> import numpy as np
        >>> from ferlib import evaluation
        >>> evaluation.with_temperature(np.array([[0.9, 0.1]]), 2).round(2)
        array([[0.75, 0.25]])
    """
    return softmax(np.log(np.maximum(probabilities, 1e-7)) / temperature, axis=1)


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Finds the temperature with the least log loss; above 1, the model is too sure of itself."""

    def loss(log_temperature: float):
        scaled = with_temperature(probabilities, np.exp(log_temperature))
        return _losses(scaled, labels).mean()

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3)).x))


def calibrate(
    report: Report, fitted_on: Report | None = None, *, folds: int = 5, seed: int = 0
) -> tuple[np.ndarray, float]:
    """Scales a report's probabilities by a temperature that their own labels did not choose.

    Args:
        report: The report to calibrate.
        fitted_on: Report of the same model on val, which the temperature is fitted on. None, or
            a report on the same split, cross-fits: each fold gets the temperature of the others.
        folds: Folds of the cross-fit.
        seed: Seed of the folds.

    Returns:
        The scaled probabilities, float [N, K], and the temperature of `fitted_on` (where
        cross-fitted: of all of `report`).

    Example:
        >>> import numpy as np
        >>> from ferlib import drawn, evaluation
        >>> faces = drawn.draw(70).of("train")
        >>> report = evaluation.report_on(np.eye(7)[faces.labels], faces, "perfect", resamples=20)
        >>> scaled, temperature = evaluation.calibrate(report)
        >>> scaled.shape == report.probabilities.shape
        True
    """
    p, labels = report.probabilities, report.labels
    if fitted_on is not None and fitted_on.split != report.split:
        temperature = fit_temperature(fitted_on.probabilities, fitted_on.labels)
        return with_temperature(p, temperature), temperature
    scaled = np.empty(p.shape)
    for rest, fold in KFold(folds, shuffle=True, random_state=seed).split(p):
        scaled[fold] = with_temperature(p[fold], fit_temperature(p[rest], labels[rest]))
    return scaled, fit_temperature(p, labels)


# ---- pictures -------------------------------------------------------------------------------


def picture_table(report: Report) -> pd.DataFrame:
    """Gives one row a picture: what it is like, what the model says, what the taggers say.

    Args:
        report: The report.

    Returns:
        Columns name, label, answer, confidence (of the answer), own (probability of the label),
        right, seen; brightness (mean), contrast (standard deviation) and sharpness (standard
        deviation of the Laplacian) of grey values from 0 to 1; majority (the class with the most
        votes; "" for a tie or none of the classes, missing where it may be one of the classes
        that FER+ does not know) and agreeing (how many taggers chose the most frequent answer),
        both missing where there are no votes.

    Example:
        >>> import numpy as np
        >>> from ferlib import drawn, evaluation
        >>> faces = drawn.draw(70).of("val")
        >>> report = evaluation.report_on(np.eye(7)[faces.labels], faces, "perfect", resamples=20)
        >>> evaluation.picture_table(report).columns[:4].tolist()
        ['name', 'label', 'answer', 'confidence']
    """
    names = np.array([*report.classes, ""])
    grey = report.data.images.astype("float32") / 255
    rows = np.arange(len(grey))
    table = pd.DataFrame(
        {
            "name": report.data.names,
            "label": names[report.labels],
            "answer": names[report.predicted],
            "confidence": report.probabilities.max(axis=1),
            "own": report.probabilities[rows, report.labels],
            "right": report.predicted == report.labels,
            "seen": report.seen,
            "brightness": grey.mean(axis=(1, 2)),
            "contrast": grey.std(axis=(1, 2)),
            "sharpness": [ndimage.laplace(picture).std() for picture in grey],
        }
    )
    votes = report.data.votes
    if votes is None:
        return table.assign(majority=None, agreeing=pd.array([pd.NA] * len(table), "Int64"))
    most = votes.max(axis=1)
    tie = (votes == most[:, None]).sum(axis=1) > 1
    column = ferplus_labels(report.classes)
    winner = column[votes.argmax(axis=1)]
    majority = pd.Series(np.where(tie, "", names[winner]))
    if not _knows_all(column, report.classes):
        majority = majority.mask((winner < 0) & ~tie)
    return table.assign(majority=majority, agreeing=most.astype(int))


def _knows_all(column: np.ndarray, classes: tuple[str, ...]) -> bool:
    """Returns whether FER+'s taggers could choose each of the classes."""
    return set(range(len(classes))) <= set(column)


def accuracy_by(table: pd.DataFrame, column: str, *, bins: int = 5) -> pd.DataFrame:
    """Gives the accuracy in groups of pictures.

    Args:
        table: What `picture_table` gave.
        column: The column to group by; real numbers are cut into groups of equal size.
        bins: How many groups for real numbers.

    Returns:
        One row a group, named by its value (real numbers: its mean): n, accuracy, and low and
        high of its 95 % interval.

    Example:
        >>> import numpy as np
        >>> from ferlib import drawn, evaluation
        >>> faces = drawn.draw(210).of("val")
        >>> report = evaluation.report_on(np.eye(7)[faces.labels], faces, "perfect", resamples=20)
        >>> table = evaluation.picture_table(report)
        >>> len(evaluation.accuracy_by(table, "brightness", bins=3))
        3
    """
    by = table[column]
    if by.dtype.kind == "f":
        by = by.groupby(pd.qcut(by, bins, labels=False, duplicates="drop")).transform("mean")
    groups = table.groupby(by.rename(column))["right"]
    return _shares(groups.sum().to_frame("hits"), groups.size())


def _shares(table: pd.DataFrame, n: Any) -> pd.DataFrame:
    """Replaces the column "hits" by n, accuracy and Wilson's 95 % interval (1927)."""
    z = 1.96
    hits = table.pop("hits")
    centre = (hits + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * np.sqrt(hits * (n - hits) / n + z**2 / 4)
    return table.assign(n=n, accuracy=hits / n, low=centre - half, high=centre + half)


def label_noise(report: Report, *, resamples: int = 1000, seed: int = 0) -> dict[str, Estimate]:
    """Sets a model's accuracy beside how far the ten taggers of FER+ agree.

    Args:
        report: The report.
        resamples: Bootstrap resamples of the pictures.
        seed: Seed of the resamples.

    Returns:
        all_agree and not_all_agree, the accuracy where all taggers chose one answer and where
        not (left out where there are no such pictures); majority, how often the label is the
        majority's emotion; ceiling, the accuracy of a perfect model if each label were one
        tagger's opinion: the mean of the largest share of the votes for the report's classes.
        These two are left out where FER+ does not know all classes. Empty where there are no
        votes.

    Example:
        >>> import numpy as np
        >>> from ferlib import drawn, evaluation
        >>> faces = drawn.draw(210).of("val")
        >>> report = evaluation.report_on(np.eye(7)[faces.labels], faces, "perfect", resamples=20)
        >>> "ceiling" in evaluation.label_noise(report, resamples=20)
        True

    Source: the votes are by Barsoum et al., Training deep networks for facial expression
    recognition with crowd-sourced label distribution (2016).
    """
    votes = report.data.votes
    if votes is None:
        return {}
    table = picture_table(report)
    agree = votes.max(axis=1) == votes.sum(axis=1)
    values = {"all_agree": table["right"][agree], "not_all_agree": table["right"][~agree]}
    column = ferplus_labels(report.classes)
    if _knows_all(column, report.classes):
        emotions = votes[:, column >= 0]
        emotions = emotions[emotions.any(axis=1)]
        values["majority"] = table["majority"] == table["label"]
        values["ceiling"] = emotions.max(axis=1, initial=0) / emotions.sum(axis=1)
    return {key: _mean(one, resamples, seed) for key, one in values.items() if len(one)}


def ferplus_accuracy(report: Report, *, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Judges a model by the votes of FER+'s taggers, by the rules of its authors.

    An answer that one tagger alone gave is struck out. What more than half of the rest chose is
    the label; pictures without such a label, or whose label is unknown or no face, are left out.
    A picture of a class that the report does not have, such as contempt, counts as a mistake; the
    cross-entropy asks about the report's classes alone.

    Args:
        report: A report on pictures with votes.
        resamples: Bootstrap resamples of the pictures.
        seed: Seed of the resamples.

    Returns:
        accuracy (an Estimate), unseen (the same on the pictures that the model has not seen; None
        where that is unknown or there are none), cross_entropy (an Estimate in nats, of the
        answers against the shares of the votes; None where all are for other classes), entropy
        (the votes' own, which answers equal to them would have), pictures, left_out and contempt
        (how many of the pictures).

    Raises:
        ValueError: If the pictures have no votes.

    Example:
        >>> import numpy as np
        >>> from ferlib import drawn, evaluation
        >>> faces = drawn.draw(210).of("val")
        >>> report = evaluation.report_on(np.eye(7)[faces.labels], faces, "perfect", resamples=20)
        >>> found = evaluation.ferplus_accuracy(report, resamples=20)
        >>> found["pictures"] + found["left_out"] == len(report.labels)
        True

    Source: Barsoum et al., Training deep networks for facial expression recognition with
    crowd-sourced label distribution (2016), and the code beside it (microsoft/FERPlus).
    """
    if report.data.votes is None:
        title = report.data.title
        raise ValueError(f"{title} has no votes; put fer2013new.csv beside the data.")
    votes = np.where(report.data.votes > 1, report.data.votes, 0)
    majority = votes.argmax(axis=1)
    is_emotion = majority < FERPLUS.index("unknown")
    kept = (votes.max(axis=1) > votes.sum(axis=1) / 2) & is_emotion
    column = ferplus_labels(report.classes)
    right = report.predicted == column[majority]
    unseen = kept & ~report.seen if report.seen is not None else np.zeros(len(kept), bool)
    ours = votes[:, column >= 0]
    told = kept & ours.any(axis=1)
    shares = ours[told] / ours[told].sum(axis=1, keepdims=True)
    answers = report.probabilities[:, column[column >= 0]][told]
    loss = -xlogy(shares, np.maximum(answers, 1e-7))
    return {
        "accuracy": _mean(right[kept], resamples, seed),
        "unseen": _mean(right[unseen], resamples, seed) if unseen.any() else None,
        "cross_entropy": _mean(loss.sum(axis=1), resamples, seed) if told.any() else None,
        "entropy": _mean(entr(shares).sum(axis=1), resamples, seed) if told.any() else None,
        "pictures": int(kept.sum()),
        "left_out": int((~kept).sum()),
        "contempt": int((majority[kept] == FERPLUS.index("contempt")).sum()),
    }


# ---- robustness -----------------------------------------------------------------------------


def corrupt(images: np.ndarray, corruption: str, strength: float, *, seed: int = 0) -> np.ndarray:
    """Spoils pictures in one of the ways of `CORRUPTIONS` and `CROPS`.

    What comes in from outside of a picture repeats its border.

    Args:
        images: uint8 [N, H, W].
        corruption: "blur", "noise", "brightness" (up or down), "dark", "occlusion" (a grey square
            somewhere), "scale" (of the face), "shift" (to one of four sides), "rotation" (to
            either side) or "jpeg".
        strength: See `CORRUPTIONS` and `CROPS`.
        seed: Seed of noise, sides and places.

    Returns:
        uint8 [N, H, W].

    Raises:
        ValueError: If `corruption` is unknown.

    Example:
        >>> from ferlib import drawn, evaluation
        >>> faces = drawn.draw(21).images
        >>> evaluation.corrupt(faces, "scale", 0.8).shape
        (21, 48, 48)
    """
    rng = np.random.default_rng(seed)
    n, height, width = images.shape
    side = rng.choice((-1, 1), n)

    if corruption == "blur":
        spoiled = ndimage.gaussian_filter(images, strength, axes=(1, 2))
    elif corruption == "noise":
        spoiled = images + strength * rng.standard_normal(images.shape, "float32")
    elif corruption == "brightness":
        spoiled = images + side[:, None, None] * float(strength)
    elif corruption == "dark":
        spoiled = images * float(strength)
    elif corruption == "occlusion":
        spoiled = images.copy()
        tops = rng.integers(height - strength + 1, size=n)
        lefts = rng.integers(width - strength + 1, size=n)
        for picture, top, left in zip(spoiled, tops, lefts, strict=True):
            picture[top : top + strength, left : left + strength] = 128
    elif corruption == "scale":
        spoiled = _moved(images, scale=strength)
    elif corruption == "shift":
        is_down = rng.integers(2, size=n)
        share = side * strength
        spoiled = _moved(images, right=share * width * (1 - is_down), down=share * height * is_down)
    elif corruption == "rotation":
        spoiled = _moved(images, degrees=side * strength)
    elif corruption == "jpeg":
        quality = (cv2.IMWRITE_JPEG_QUALITY, int(strength))
        jpegs = [cv2.imencode(".jpg", picture, quality)[1] for picture in images]
        spoiled = [cv2.imdecode(jpeg, cv2.IMREAD_GRAYSCALE) for jpeg in jpegs]
    else:
        known = ", ".join(CORRUPTIONS | CROPS)
        raise ValueError(f"{corruption!r} is no corruption; known are {known}.")
    return np.clip(np.asarray(spoiled), 0, 255).astype("uint8")


def _moved(images, *, scale=1.0, degrees=0.0, right=0.0, down=0.0):
    """Scales and turns pictures about their centre and shifts them, by a number or one for each."""
    n, height, width = images.shape
    centre = ((width - 1) / 2, (height - 1) / 2)
    each = [np.broadcast_to(value, n).tolist() for value in (scale, degrees, right, down)]
    moved = []
    for picture, size, angle, dx, dy in zip(images, *each, strict=True):
        matrix = cv2.getRotationMatrix2D(centre, angle, size)
        matrix[:, 2] += dx, dy
        moved.append(
            cv2.warpAffine(picture, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
        )
    return moved


def robustness(
    model: runtimes.Model,
    data: FERData,
    *,
    corruptions: dict[str, tuple] = CORRUPTIONS,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Gives the accuracy on spoiled pictures.

    Args:
        model: As for `evaluate`.
        data: The pictures; those of classes that the model does not have are left out.
        corruptions: Corruption -> its strengths, the weakest first. `CROPS` is how faces from
            elsewhere differ.
        seed: Seed of the corruptions.
        progress: Whether a bar is drawn.

    Returns:
        One row a corruption and level (1 is the weakest, 0 the pictures as they are): strength,
        n, accuracy, low and high of its 95 % interval, and lost, how much less the accuracy is
        than on the pictures as they are.

    Example:
        >>> from ferlib import drawn, evaluation
        >>> table = evaluation.robustness("tiny", drawn.draw(21), corruptions={"blur": (1, 2)})
        >>> table["level"].tolist()
        [0, 1, 2]
    """
    opened = runtimes.open_model(model)
    data, _, columns = _compare(data, opened.classes, opened.name)

    def hits(images: np.ndarray):
        predicted = opened(images)[:, columns].argmax(axis=1)
        return int((predicted == data.labels).sum())

    clean = hits(data.images)
    rows = []
    for name in tqdm(corruptions, desc="spoiled by", disable=not progress):
        rows.append((name, 0, None, clean))
        for level, strength in enumerate(corruptions[name], start=1):
            spoiled = corrupt(data.images, name, strength, seed=seed)
            rows.append((name, level, strength, hits(spoiled)))
    table = pd.DataFrame(rows, columns=["corruption", "level", "strength", "hits"])
    lost = (clean - table["hits"]) / len(data)
    return _shares(table, len(data)).assign(lost=lost)
