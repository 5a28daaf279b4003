"""Makes a shipped model of finished trainings: `python experiments/ship.py NAME RUN [RUN ...]`.

    python experiments/ship.py accurate runs/accurate
    python experiments/ship.py ensemble accurate compact
    python experiments/ship.py compact compact runs/compact_any_size --weights

Writes NAME.keras (float16 weights, card and hashes inside) and NAME.json (the card, to be read)
into `ferlib/pretrained`. Several trainings make an ensemble: the mean of their probabilities. With
`--weights` they make one network, whose weights are the means of theirs: of a network and what came
of training it further, the mean is often as right as the better one, and robust (Wortsman et al.
2022, arXiv:2109.01903).
"""

import argparse
import io
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np

from ferlib import cleaning, evaluation, files, zoo

LIMITS = (
    "Names the expression that a 48x48 grey face resembles, as {labels}. It does not know what a "
    "person feels, and FER2013 is no fair sample of people; do not judge anybody by it."
)
FER2013 = (
    "FER2013's labels have it: one search word a picture, which most of FER+'s taggers confirm "
    "for 62 % of them"
)
FERPLUS = (
    "the ten taggers of FER+ see it, who confirm 62 % of FER2013's labels: against "
    "those its accuracy is low, and `ferplus` is what it is to be judged by"
)


def halve(path: Path) -> None:
    """Stores the weights of a `.keras` file as float16, in half the space."""
    unfinished = path.with_suffix(".half")
    with (
        zipfile.ZipFile(path) as whole,
        zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as half,
    ):
        for member in whole.namelist():
            data = whole.read(member)
            half.writestr(member, _halved(data) if member.endswith(".h5") else data)
    files.replace(unfinished, path)


def _halved(data: bytes) -> bytes:
    """Gives the bytes of an HDF5 file with its float32 arrays cast to float16."""
    buffer = io.BytesIO()
    with h5py.File(io.BytesIO(data)) as source, h5py.File(buffer, "w") as copy:

        def add(name, item):
            if isinstance(item, h5py.Dataset):
                value = item[()]
                if value.dtype == "float32":
                    value = value.astype("float16")
                made = copy.create_dataset(name, data=value)
            else:
                made = copy.require_group(name)
            made.attrs.update(item.attrs)

        source.visititems(add)
        copy.attrs.update(source.attrs)
    return buffer.getvalue()


def mean_of_weights(models: list):
    """Gives the last of some models of one form, with the means of all their weights."""
    arrays = [model.get_weights() for model in models]
    models[-1].set_weights([np.mean(same, axis=0) for same in zip(*arrays, strict=True)])
    return models[-1]


def ship(name: str, runs: list, source: str | None = None, *, weights: bool = False) -> Path:
    """Ships the model of a run, or of several runs together, under a name.

    Args:
        name: Name that the model is to be found by.
        runs: Folders of trainings, trained models, or names of shipped ones.
        source: The data they were trained on, as in `sources.load`, with FER+'s votes.
        weights: Whether to average the weights of several runs, of which the last builds on the
            others, in place of their probabilities.

    Returns:
        The path of the shipped model.
    """
    data = cleaning.prepare(source)
    trained = [Path(run) / "model.keras" if Path(run).is_dir() else zoo.find(run) for run in runs]
    cards = [zoo.read_card(path) for path in trained]
    for file, card in zip(trained, cards, strict=True):
        if data.fingerprint != card["data"]["fingerprint"]:
            sys.exit(f"{file} was trained on other data than {data.origin}.")
    model, card = zoo.load(trained[0]), cards[0]
    if weights:
        model = mean_of_weights([zoo.load(file) for file in trained])
        others = ", ".join(map(str, runs[:-1]))
        card = cards[-1] | {"combined": f"mean of its weights and those of {others}, built on"}
    elif len(runs) > 1:
        model = zoo.average(trained)
        card = {"combined": "mean of the members' probabilities", "members": cards}
        card |= {key: cards[0][key] for key in ("data", "versions")}
    card["classes"] = list(data.classes)
    shares = zoo.read_shares(trained[0], data.classes)
    card["data"] = card["data"] | {"shares": dict(zip(data.classes, shares, strict=False))}
    seen = np.unique(np.concatenate([zoo.read_seen(file) for file in trained]))
    path = zoo.PRETRAINED / f"{name}.keras"
    zoo.save(model, path, card=card, seen=seen)
    halve(path)
    ways = ("none", "flip", "ten")
    views = {tta: evaluation.evaluate(path, data, split="val", tta=tta) for tta in ways}
    report = views["none"]
    by_votes = cards[0]["recipe"]["ferplus_weight"] == 1
    card |= {
        "name": name,
        "val": {
            "choices_were_made_on_it": True,
            "pictures": len(report.labels),
            "metrics": report.to_dict()["metrics"],
            "metrics_on_unseen": report.to_dict()["unseen"],
            "accuracy_with_flip": vars(views["flip"].metrics["accuracy"]),
            "accuracy_with_ten_views": vars(views["ten"].metrics["accuracy"]),
            "f1": report.per_class["f1"].to_dict(),
            "ferplus": None if data.votes is None else evaluation.ferplus_accuracy(report),
            "calibration_error": evaluation.calibration_error(report.probabilities, report.labels),
        },
        "test": "not measured yet",
        "use_and_limits": LIMITS.format(labels=FERPLUS if by_votes else FER2013),
    }
    card = files.plain(card)
    zoo.save(model, path, card=card, seen=seen)
    halve(path)
    files.write_json(path.with_suffix(".json"), card)
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser("ship.py", description=__doc__)
    parser.add_argument("name", metavar="NAME", help="name that the model is to be found by")
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", help="folder of a training, or a shipped model"
    )
    parser.add_argument("--data", metavar="SOURCE", help="the data of the trainings")
    parser.add_argument("--weights", action="store_true", help="average weights, not answers")
    args = parser.parse_args()
    print(ship(args.name, args.runs, args.data, weights=args.weights))
