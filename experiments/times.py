"""Writes profiles/times.json from a measured run: python experiments/times.py runs/quick.

`ferlib run` says at its start how long the notebooks will take: as long as in that run, at the
speed at which the machine trains. Run this on the machine of the run, with nothing beside it.
"""

import argparse
import json

from ferlib import cleaning, files, recipes, suite, training


def main() -> None:
    """Measures an epoch here, and writes it with the seconds of each notebook of a run."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("run", help="folder of a finished run of all notebooks")
    arguments.add_argument("--data", help="what it was run on")
    args = arguments.parse_args()
    manifest = suite.read_manifest(args.run)
    data = cleaning.prepare(args.data)
    if data.title != manifest["data"]["title"]:
        raise SystemExit(f"{args.run} was run on {manifest['data']['title']}, not on {data.title}.")
    path = files.project_folder() / "profiles" / "times.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    known[manifest["profile"]] = {
        "seconds_per_epoch": round(training.seconds_per_epoch(recipes.RECIPES["quick"], data), 1),
        "seconds": {stage: entry["seconds"] for stage, entry in manifest["stages"].items()},
    }
    files.write_json(path, known)
    print(path)


if __name__ == "__main__":
    main()
