"""How good a model is, on which pictures it fails, and what it looks at: numbers first.

Nothing here draws; `ferlib.plots` makes figures from what these functions return.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ferlib.labels import EMOTIONS, FERPLUS, FERPLUS_TO_LABEL

if TYPE_CHECKING:
    import pandas as pd

    from ferlib.faces import FERData

METRICS = ("accuracy", "balanced_accuracy", "top2_accuracy", "macro_f1", "log_loss")
"""The metrics of a report."""

LOSSY = (".jpg", ".jpeg", ".webp")
"""Ends of the names of pictures that lose their exact pixels when they are saved."""

CORRUPTIONS = {
    "blur": (0.5, 1.0, 1.5, 2.0, 3.0),
    "noise": (5, 10, 20, 35, 50),
    "brightness": (20, 40, 60, 80, 110),
    "occlusion": (8, 12, 16, 20, 24),
    "rotation": (5, 10, 15, 25, 40),
    "jpeg": (40, 25, 15, 10, 5),
}
"""Corruption -> its five strengths: blur's sigma in pixels; noise's standard deviation and
brightness's shift in grey levels; side of the covered square in pixels; degrees; JPEG quality."""


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
        data: The pictures of the split, with their labels and votes.
        tta: The test-time augmentation that the answers were averaged over.
        probabilities: float [N, 7].
        seen: bool [N], which pictures the model was trained on; None where it does not say.
        metrics: Name (see `METRICS`) -> Estimate, on all pictures.
        unseen: The same on the pictures that the model has not seen; None where that is unknown
            or no picture is left.
        per_class: One row an emotion: precision, recall and f1, each with _low and _high, support.
        confusion: int [7, 7], rows are labels, columns are answers.
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
        import pandas as pd

        new = 0 if self.seen is None else int((~self.seen).sum())
        sets = ("all", len(self.labels), self.metrics), ("unseen", new, self.unseen or {})
        rows = [
            {"model": self.model, "split": self.split, "pictures": name, "n": n, "metric": key}
            | vars(estimate)
            for name, n, metrics in sets
            for key, estimate in metrics.items()
        ]
        return pd.DataFrame(rows)

    def to_dict(self) -> dict:
        """Gives the numbers of the report as JSON knows them; what is undefined is None."""
        keys = ("model", "split", "tta", "metrics", "unseen", "confusion")
        numbers = {key: getattr(self, key) for key in keys} | {
            "data": self.data.title,
            "choices_made_on_split": self.split != "test",
            "pictures": len(self.labels),
            "seen": None if self.seen is None else self.seen.sum(),
            "per_class": self.per_class.to_dict("index"),
        }
        return plain(numbers)

    def __str__(self) -> str:
        import pandas as pd

        seen = "an unknown number" if self.seen is None else f"{self.seen.sum():,}"
        chosen = "" if self.split == "test" else ", which choices were made on"
        sets = {"all": self.metrics} | ({"unseen": self.unseen} if self.unseen else {})
        return (
            f"{self.model} on {self.split} of {self.data.title}{chosen}\n{pd.DataFrame(sets)}\n"
            f"{seen} of the {len(self.labels):,} pictures are in the model's training data"
        )


def plain(value):
    """Turns numpy's numbers and arrays, dataclasses and NaN (None) into what JSON knows."""
    if is_dataclass(value):
        value = vars(value)
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


# ---- answers and numbers --------------------------------------------------------------------


def probabilities(
    model, images: np.ndarray, *, tta: str = "none", batch_size: int = 256
) -> np.ndarray:
    """Asks a model for the probabilities of the seven emotions.

    Args:
        model: A Keras model, a file (.keras, .h5) or a shipped model's name.
        images: uint8 [N, 48, 48] or [N, 48, 48, 1].
        tta: Test-time augmentation whose answers are averaged: "none"; "flip", the picture and
            its mirror image; "ten", the picture and four shifted by 2 pixels, each with its
            mirror image.
        batch_size: Pictures in one batch.

    Returns:
        float32 [N, 7], each row sums to 1.

    Raises:
        ValueError: If `tta` is none of the three.
    """
    from ferlib import zoo

    if tta not in ("none", "flip", "ten"):
        raise ValueError(f'tta is {tta!r}; it must be "none", "flip" or "ten".')
    model, images = zoo.load(model), np.asarray(images)
    height, width = images.shape[1:3]
    images = images.reshape(-1, height, width, 1)
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    shifts = ((2, 2), (0, 0), (0, 4), (4, 0), (4, 4)) if tta == "ten" else ((2, 2),)
    views = [padded[:, top : top + height, left : left + width] for top, left in shifts]
    views += [view[:, :, ::-1] for view in views if tta != "none"]
    answers = [model.predict(view, batch_size=batch_size, verbose=0) for view in views]
    return np.mean(answers, axis=0)


def evaluate(
    model, data: FERData, *, split=None, tta="none", seen="auto", name="", resamples=1000, seed=0
) -> Report:
    """Evaluates a model on one split, with 95 % intervals, with and without seen pictures.

    Args:
        model: A Keras model, a file (.keras, .h5) or a shipped model's name.
        data: The data; all splits of it or the one alone.
        split: "train", "val" or "test". None takes test, or val where there is no test.
        tta: Test-time augmentation, see `probabilities`.
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
        ValueError: If the data has no picture in that split.
    """
    from ferlib import cleaning, zoo

    split = split or data.held_out
    part = data.of(split)
    if not len(part):
        raise ValueError(
            f"{data.title} has no {split} split (it has: {', '.join(data.splits) or 'none'}); "
            "name another, or make the splits with ferlib.cleaning.prepare."
        )
    is_file = isinstance(model, str | Path)
    if isinstance(seen, str):
        seen = zoo.read_seen(model) if is_file else None
    if seen is not None:
        known = np.isin(cleaning.picture_hashes(data.images), seen)
        lossy = any(name.lower().endswith(LOSSY) for name in part.names)
        if lossy and known.mean() < 0.01:  # what was saved anew is no exact copy any more
            seen = None
        else:
            seen = known[data.split == split]
    name = name or (str(model) if is_file else model.name)
    answers = probabilities(model, part.images, tta=tta)
    return report_on(answers, part, name, tta=tta, seen=seen, resamples=resamples, seed=seed)


def report_on(
    probabilities, data: FERData, model: str, *, tta="none", seen=None, resamples=1000, seed=0
) -> Report:
    """Makes the report of answers that are already there (calibrated, averaged, from ONNX).

    Args:
        probabilities: float [N, 7].
        data: The N pictures, of one split.
        model: Name of what answered.
        tta: How it answered, see `probabilities`.
        seen: bool [N] or None, see `Report`.
        resamples: Bootstrap resamples of the pictures.
        seed: Seed of the resamples.

    Returns:
        The Report.
    """
    import pandas as pd

    def measure(p, labels):
        scores = _measure(p, labels, resamples, seed)
        return scores, {key: Estimate(*scores[key].tolist()) for key in METRICS}

    scores, metrics = measure(probabilities, data.labels)
    some_unseen = seen is not None and not seen.all()
    unseen = measure(probabilities[~seen], data.labels[~seen])[1] if some_unseen else None
    columns = {
        key + suffix: scores[key][row]
        for key in ("precision", "recall", "f1")
        for row, suffix in enumerate(("", "_low", "_high"))
    }
    cells = data.labels * 7 + probabilities.argmax(axis=1)
    confusion = np.bincount(cells, minlength=49).reshape(7, 7)
    columns["support"] = confusion.sum(axis=1)
    per_class = pd.DataFrame(columns, index=list(EMOTIONS))
    return Report(model, data, tta, probabilities, seen, metrics, unseen, per_class, confusion)


def _measure(probabilities, labels, resamples, seed) -> dict[str, np.ndarray]:
    """Gives every score as [3, ...]: value, low and high.

    Every score follows from means over pictures (cells of the confusion matrix, top-2 hits,
    losses), so that resampling the pictures is one product of matrices.
    """
    rows = np.arange(len(labels))
    own = probabilities[rows, labels]
    table = np.zeros((len(labels), 51))
    table[rows, labels * 7 + probabilities.argmax(axis=1)] = 1
    first_two = np.argsort(-probabilities, axis=1, kind="stable")[:, :2]
    table[:, 49] = (first_two == labels[:, None]).any(axis=1)
    table[:, 50] = -np.log(np.maximum(own, 1e-7))
    value, drawn = _scores(table.mean(axis=0)), _scores(_resampled_means(table, resamples, seed))
    with warnings.catch_warnings(action="ignore"):  # emotions without pictures stay NaN
        ends = {key: np.nanpercentile(drawn[key], (2.5, 97.5), axis=0) for key in drawn}
    return {key: np.concatenate([value[key][None], ends[key]]) for key in value}


def _scores(means) -> dict[str, np.ndarray]:
    matrix = means[..., :49].reshape(*means.shape[:-1], 7, 7)
    hits, support, answered = np.diagonal(matrix, 0, -2, -1), matrix.sum(-1), matrix.sum(-2)
    with np.errstate(invalid="ignore"):
        precision, recall = hits / answered, hits / support
        f1 = 2 * hits / (answered + support)
    overall = hits.sum(-1), np.nanmean(recall, -1), means[..., 49], np.nanmean(f1, -1)
    scores = dict(zip(METRICS, (*overall, means[..., 50]), strict=True))
    return scores | {"precision": precision, "recall": recall, "f1": f1}


def _resampled_means(table, resamples, seed) -> np.ndarray:
    """Means of the columns of [N, K] over bootstrap resamples of the rows: [resamples, K]."""
    rng, n, means = np.random.default_rng(seed), len(table), []
    for start in range(0, resamples, 100):
        rows = min(100, resamples - start)
        picks = rng.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        means.append(np.bincount(picks.ravel(), minlength=rows * n).reshape(rows, n) @ table / n)
    return np.concatenate(means)


def _mean(values, resamples, seed) -> Estimate:
    """The mean of numbers [N], with the ends of its bootstrap interval."""
    column = np.asarray(values, dtype=float)[:, None]
    ends = np.percentile(_resampled_means(column, resamples, seed), (2.5, 97.5))
    return Estimate(float(column.mean()), *ends.tolist())


def mcnemar(a: Report, b: Report) -> dict:
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

    Source: McNemar, Note on the sampling error of the difference between correlated proportions,
    Psychometrika 12 (1947).
    """
    from scipy.stats import binomtest

    if a.data.fingerprint != b.data.fingerprint:
        raise ValueError(
            f"{a.model} ({a.split} of {a.data.title}) and {b.model} ({b.split} of {b.data.title}) "
            "were evaluated on different pictures: evaluate both on the same split."
        )
    right_a, right_b, n = a.predicted == a.labels, b.predicted == b.labels, len(a.labels)
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    gap, either = (only_a - only_b) / n, only_a + only_b
    half = 1.96 * float(np.sqrt(either / n - gap**2) / np.sqrt(n))
    counts = {"only_a": only_a, "only_b": only_b, "differ": int((a.predicted != b.predicted).sum())}
    p_value = float(binomtest(only_a, either).pvalue) if either else 1.0
    return counts | {"difference": Estimate(gap, gap - half, gap + half), "p_value": p_value}


# ---- calibration ----------------------------------------------------------------------------


def reliability(probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 15) -> pd.DataFrame:
    """Compares confidence with accuracy in bins of equal width.

    The mean gap, weighted by n, is the expected calibration error (`calibration_error`).

    Args:
        probabilities: float [N, 7].
        labels: int [N].
        bins: Bins between 0 and 1; empty ones are left out.

    Returns:
        One row a bin: n, confidence (mean of the largest probability), accuracy.

    Source: Guo et al., On calibration of modern neural networks (2017).
    """
    import pandas as pd

    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    table = pd.DataFrame({"n": 1, "confidence": confidence, "accuracy": right})
    groups = table.groupby(np.ceil(confidence * bins))
    return groups.agg({"n": "size", "confidence": "mean", "accuracy": "mean"})


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 15) -> float:
    """Gives the expected calibration error, 0 to 1; see `reliability`."""
    table = reliability(probabilities, labels, bins=bins)
    return float(np.average((table["accuracy"] - table["confidence"]).abs(), weights=table["n"]))


def with_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Divides the logarithms of probabilities by a temperature; the answers stay the same."""
    from scipy.special import softmax

    return softmax(np.log(np.maximum(probabilities, 1e-7)) / temperature, axis=1)


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Finds the temperature with the least log loss; above 1, the model is too sure of itself."""
    from scipy.optimize import minimize_scalar
    from sklearn.metrics import log_loss

    def loss(log_temperature):
        scaled = with_temperature(probabilities, np.exp(log_temperature))
        return log_loss(labels, scaled, labels=range(7))

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
        The scaled probabilities, float [N, 7], and the temperature of `fitted_on` (where
        cross-fitted: of all of `report`).
    """
    from sklearn.model_selection import KFold

    p, labels = report.probabilities, report.labels
    if fitted_on is not None and fitted_on.split != report.split:
        temperature = fit_temperature(fitted_on.probabilities, fitted_on.labels)
        return with_temperature(p, temperature), temperature
    scaled = np.empty(p.shape)
    for rest, fold in KFold(folds, shuffle=True, random_state=seed).split(p):
        scaled[fold] = with_temperature(p[fold], fit_temperature(p[rest], labels[rest]))
    return scaled, fit_temperature(p, labels)


def risk_coverage(probabilities: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Gives the accuracy of a model that answers only where it is sure enough.

    Args:
        probabilities: float [N, 7].
        labels: int [N].

    Returns:
        One row a picture, the surest first: coverage (share of the pictures up to it), accuracy
        on those, and its confidence.
    """
    import pandas as pd

    confidence, count = probabilities.max(axis=1), np.arange(1, len(labels) + 1)
    order = np.argsort(-confidence, kind="stable")
    right = (probabilities.argmax(axis=1) == labels)[order]
    table = {"coverage": count / len(labels), "accuracy": right.cumsum() / count}
    return pd.DataFrame(table | {"confidence": confidence[order]})


# ---- pictures -------------------------------------------------------------------------------


def picture_table(report: Report) -> pd.DataFrame:
    """Gives one row a picture: what it is like, what the model says, what the taggers say.

    Args:
        report: The report.

    Returns:
        Columns name, label, answer, confidence (of the answer), own (probability of the label),
        right, seen; brightness (mean), contrast (standard deviation) and sharpness (standard
        deviation of the Laplacian) of grey values from 0 to 1; where there are votes, majority
        (the emotion with the most votes; "" for a tie or none of the seven) and agreeing (how
        many taggers chose the most frequent answer).
    """
    import pandas as pd
    from scipy.ndimage import laplace

    names = np.array([*EMOTIONS, ""])
    grey = report.data.images.astype("float32") / 255
    table = pd.DataFrame({"name": report.data.names, "label": names[report.labels]})
    table["answer"] = names[report.predicted]
    table["confidence"] = report.probabilities.max(axis=1)
    table["own"] = report.probabilities[np.arange(len(table)), report.labels]
    table["right"] = report.predicted == report.labels
    table["seen"] = report.seen
    table["brightness"], table["contrast"] = grey.mean(axis=(1, 2)), grey.std(axis=(1, 2))
    table["sharpness"] = np.std([laplace(picture) for picture in grey], axis=(1, 2))
    if report.data.votes is not None:
        votes = report.data.votes
        most = votes.max(axis=1)
        winner = [FERPLUS_TO_LABEL.get(column, -1) for column in votes.argmax(axis=1)]
        tie = (votes == most[:, None]).sum(axis=1) > 1
        table["majority"], table["agreeing"] = np.where(tie, "", names[winner]), most.astype(int)
    return table


def accuracy_by(table: pd.DataFrame, column: str, *, bins: int = 5) -> pd.DataFrame:
    """Gives the accuracy in groups of pictures.

    Args:
        table: What `picture_table` gave.
        column: The column to group by; real numbers are cut into groups of equal size.
        bins: How many groups for real numbers.

    Returns:
        One row a group, named by its value (real numbers: its mean): n, accuracy, and low and
        high of its 95 % interval.
    """
    import pandas as pd

    by = table[column]
    if by.dtype.kind == "f":
        by = by.groupby(pd.qcut(by, bins, labels=False, duplicates="drop")).transform("mean")
    groups = table.groupby(by.rename(column))["right"]
    return _shares(groups.sum().to_frame("hits"), groups.size())


def _shares(table: pd.DataFrame, n) -> pd.DataFrame:
    """Replaces the column "hits" by n, accuracy and Wilson's 95 % interval (1927)."""
    hits, z = table.pop("hits"), 1.96
    centre = (hits + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * np.sqrt(hits * (n - hits) / n + z**2 / 4)
    return table.assign(n=n, accuracy=hits / n, low=centre - half, high=centre + half)


def label_noise(report: Report, *, resamples: int = 1000, seed: int = 0) -> dict[str, Estimate]:
    """Sets a model's accuracy beside how far the ten taggers of FER+ agree.

    Args:
        report: A report on pictures with votes.
        resamples: Bootstrap resamples of the pictures.
        seed: Seed of the resamples.

    Returns:
        all_agree and not_all_agree, the accuracy where all taggers chose one answer and where
        not (left out where there are no such pictures); majority, how often the label is the
        majority's emotion; ceiling, the accuracy of a perfect model if each label were one
        tagger's opinion: the mean of the largest share of the votes for the seven emotions.

    Raises:
        ValueError: If the pictures have no votes.

    Source: the votes are by Barsoum et al., Training deep networks for facial expression
    recognition with crowd-sourced label distribution (2016).
    """
    votes, table = _votes(report), picture_table(report)
    agree = votes.max(axis=1) == votes.sum(axis=1)
    emotions = votes[:, list(FERPLUS_TO_LABEL)]
    emotions = emotions[emotions.any(axis=1)]
    values = {
        "all_agree": table["right"][agree],
        "not_all_agree": table["right"][~agree],
        "majority": table["majority"] == table["label"],
        "ceiling": emotions.max(axis=1) / emotions.sum(axis=1),
    }
    return {key: _mean(one, resamples, seed) for key, one in values.items() if len(one)}


def ferplus_accuracy(report: Report, *, resamples: int = 1000, seed: int = 0) -> dict:
    """Gives the accuracy against FER+'s majority labels, by the rules of its authors.

    An answer that one tagger alone gave is struck out. What more than half of the rest chose is
    the label; pictures without such a label, or whose label is unknown or no face, are left out.
    Of FER+'s eight classes a model here has seven: a picture of contempt counts as a mistake.

    Args:
        report: A report on pictures with votes.
        resamples: Bootstrap resamples of the pictures.
        seed: Seed of the resamples.

    Returns:
        accuracy (an Estimate), unseen (the same on the pictures that the model has not seen; None
        where that is unknown or there are none), pictures, left_out and contempt (how many of
        the pictures).

    Raises:
        ValueError: If the pictures have no votes.

    Source: Barsoum et al., Training deep networks for facial expression recognition with
    crowd-sourced label distribution (2016), and the code beside it (microsoft/FERPlus).
    """
    votes = np.where(_votes(report) > 1, report.data.votes, 0)
    majority = votes.argmax(axis=1)
    kept = (votes.max(axis=1) > votes.sum(axis=1) / 2) & (majority < FERPLUS.index("unknown"))
    label = np.array([FERPLUS_TO_LABEL.get(column, -1) for column in range(len(FERPLUS))])[majority]
    right = report.predicted == label
    new = np.zeros(len(kept), bool) if report.seen is None else kept & ~report.seen
    found = {"accuracy": _mean(right[kept], resamples, seed)}
    found["unseen"] = _mean(right[new], resamples, seed) if new.any() else None
    counts = {"left_out": int((~kept).sum()), "contempt": int((label[kept] < 0).sum())}
    return found | {"pictures": int(kept.sum())} | counts


def _votes(report):
    """Gives the votes of a report's pictures, which must be there."""
    if report.data.votes is None:
        title = report.data.title
        raise ValueError(f"{title} has no votes; put fer2013new.csv beside the data.")
    return report.data.votes


# ---- robustness -----------------------------------------------------------------------------


def corrupt(images: np.ndarray, corruption: str, strength: float, *, seed: int = 0) -> np.ndarray:
    """Spoils pictures in one of the ways of `CORRUPTIONS`.

    Args:
        images: uint8 [N, H, W].
        corruption: "blur", "noise", "brightness" (up or down), "occlusion" (a grey square
            somewhere), "rotation" (to either side) or "jpeg".
        strength: See `CORRUPTIONS`.
        seed: Seed of noise, sides and places.

    Returns:
        uint8 [N, H, W].

    Raises:
        ValueError: If `corruption` is unknown.
    """
    import cv2
    from scipy import ndimage

    def inside(length):
        start = rng.integers(length - strength + 1, size=(len(images), 1))
        return (np.arange(length) >= start) & (np.arange(length) < start + strength)

    def turned(angle):
        return ndimage.rotate(images, angle, (1, 2), reshape=False, order=1, mode="nearest")

    rng, (_, height, width) = np.random.default_rng(seed), images.shape
    side, jpeg = rng.choice((-1, 1), (len(images), 1, 1)), (cv2.IMWRITE_JPEG_QUALITY, int(strength))
    ways = {
        "blur": lambda: ndimage.gaussian_filter(images, strength, axes=(1, 2)),
        "noise": lambda: images + strength * rng.standard_normal(images.shape, "float32"),
        "brightness": lambda: images + side * float(strength),
        "occlusion": lambda: np.where(
            inside(height)[..., None] & inside(width)[:, None], 128, images
        ),
        "rotation": lambda: np.where(side > 0, turned(strength), turned(-strength)),
        "jpeg": lambda: [cv2.imdecode(cv2.imencode(".jpg", x, jpeg)[1], 0) for x in images],
    }
    if corruption not in ways:
        raise ValueError(f"{corruption!r} is no corruption; known are {', '.join(ways)}.")
    return np.clip(ways[corruption](), 0, 255).astype("uint8")


def robustness(
    model, data: FERData, *, corruptions=CORRUPTIONS, seed: int = 0, progress=iter
) -> pd.DataFrame:
    """Gives the accuracy on spoiled pictures.

    Args:
        model: A Keras model, a file or a shipped model's name.
        data: The pictures.
        corruptions: Corruption -> its strengths, the weakest first.
        seed: Seed of the corruptions.
        progress: Wraps the corruptions to go through, for a progress bar (`tqdm.auto.tqdm`).

    Returns:
        One row a corruption and level (1 is the weakest, 0 the pictures as they are): strength,
        n, accuracy, and low and high of its 95 % interval.
    """
    import pandas as pd

    from ferlib import zoo

    def hits(images):
        return int((probabilities(model, images).argmax(axis=1) == data.labels).sum())

    model = zoo.load(model)
    clean, rows = hits(data.images), []
    for name in progress(list(corruptions)):
        rows.append((name, 0, None, clean))
        for level, strength in enumerate(corruptions[name], start=1):
            spoiled = corrupt(data.images, name, strength, seed=seed)
            rows.append((name, level, strength, hits(spoiled)))
    table = pd.DataFrame(rows, columns=["corruption", "level", "strength", "hits"])
    return _shares(table, len(data))
