"""Makes a shipped model of a finished training: `python -m ferlib.pretrained RUN NAME [SOURCE]`.

Writes NAME.keras (float16 weights, card and hashes inside) and NAME.json (the card, to be read)
into this folder.
"""

import sys
from pathlib import Path

from ferlib import cleaning, evaluation, files, models

LIMITS = (
    "Names the expression that a 48x48 grey face resembles, as FER2013's labels have it: one "
    "search word a picture, which FER+'s taggers confirm for about two thirds. It does not "
    "know what a person feels, and FER2013 is no fair sample of people; do not judge anybody by it."
)


def ship(run: str, name: str, source: str | None = None) -> Path:
    """Ships the model of a run under a name.

    Args:
        run: Folder of the training.
        name: Name that the model is to be found by.
        source: The data it was trained on, as in `sources.load`.

    Returns:
        The path of the shipped model.
    """
    trained = Path(run) / "model.keras"
    data = cleaning.prepare(source)
    card = models.read_card(trained)
    if data.fingerprint != card["data"]["fingerprint"]:
        sys.exit(f"{trained} was trained on other data than {data.origin}.")
    path = models.PRETRAINED / f"{name}.keras"
    seen = models.read_seen(trained)
    models.save(models.load(trained), path, card=card, seen=seen, half=True)
    views = {tta: evaluation.evaluate(path, data, split="val", tta=tta) for tta in ("none", "flip")}
    report = views["none"]
    card |= {
        "name": name,
        "val": {
            "choices_were_made_on_it": True,
            "pictures": len(report.labels),
            "metrics": report.to_dict()["metrics"],
            "metrics_on_unseen": report.to_dict()["unseen"],
            "accuracy_with_flip": vars(views["flip"].metrics["accuracy"]),
            "f1": report.per_class["f1"].to_dict(),
            "calibration_error": evaluation.calibration_error(report.probabilities, report.labels),
        },
        "test": "not measured yet",
        "use_and_limits": LIMITS,
    }
    card = evaluation.plain(card)
    models.save(models.load(trained), path, card=card, seen=seen, half=True)
    files.write_json(path.with_suffix(".json"), card)
    return path


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 4:
        sys.exit(__doc__)
    print(ship(*sys.argv[1:]))
