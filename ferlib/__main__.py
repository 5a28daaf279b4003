"""The program `ferlib`, also `python -m ferlib`: each command a few lines over the library."""

import argparse
import contextlib
import json
import os
import platform
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ferlib


def data(args: argparse.Namespace) -> dict:
    """Show what is there: pictures by split and label, copies, faults."""
    import pandas as pd

    from ferlib import cleaning, sources

    found = sources.load(args.source, labels=args.labels, partial=args.partial)
    about = cleaning.overview(found)
    print(sources.describe(found).to_string())
    listed = ("splits", "faults", "left_out")
    rest = {key: value for key, value in about.items() if key not in listed}
    for key, value in pd.json_normalize(rest, sep=" ").iloc[0].items():
        print(f"{key}: {value}")
    print(f"faults: {len(found.faults)}", *found.faults, sep="\n  ")
    print(f"left out on purpose: {len(found.left_out)}", *found.left_out, sep="\n  ")
    return about


def _faces(args: argparse.Namespace, **options: Any):
    """Reads and cleans the data that a command names."""
    from ferlib import cleaning

    return cleaning.prepare(args.data, **{"labels": args.labels, "partial": args.partial} | options)


def _opened(args: argparse.Namespace):
    """Opens the model that a command names, read as its options say."""
    from ferlib import runtimes

    reading = {"scaling": args.input, "classes": args.classes, "prior": args.prior}
    return runtimes.open_model(args.model, device=args.device, **reading)


def _changes(texts: list[str], example: str):
    """Takes `-p NAME=VALUE` apart."""
    if wrong := [text for text in texts if "=" not in text]:
        raise ValueError(f"-p {wrong[0]}: write a change of a parameter as -p {example}.")
    return dict(text.split("=", 1) for text in texts)


def run(args: argparse.Namespace) -> dict:
    """Run the notebooks in order; skip those that would make the same again."""
    from ferlib import suite

    if args.labels:
        os.environ["FERLIB_LABELS"] = args.labels  # kernels inherit it
    if args.partial:
        os.environ["FERLIB_PARTIAL"] = "1"
    made = suite.run(
        args.profile,
        args.data,
        name=args.name,
        seed=args.seed,
        only=tuple(filter(None, args.only.split(","))),
        parameters=_changes(args.p, "03.epochs=5"),
        timeout=args.timeout,
    )
    _print_results(made, suite.results(made["folder"]))
    if made["data"]["is_drawn"]:
        print(suite.DRAWN)
    print(f"Report:    {made['folder']}/report.html\nNotebooks: {made['folder']}/*.ipynb")
    if made["problem"]:
        raise RuntimeError(made["problem"])
    return made


def _print_results(made: dict, table: Any):
    """Prints how the stages of a run went, and the accuracies that they measured."""
    import pandas as pd

    from ferlib import suite

    stages = pd.DataFrame(made["stages"]).T
    stages["files"] = stages["outputs"].map(len)
    print(f"\n{stages[['status', 'seconds', 'files', 'data']].to_string()}")
    if len(table):
        for column in ("accuracy", "low", "high"):
            table[column] = table[column].map("{:.1%}".format, na_action="ignore")
        print(f"\n{table.to_string(index=False, na_rep='')}")
        print(suite.ON_VAL if "val" in set(table["split"]) else "")


def train(args: argparse.Namespace) -> dict:
    """Train a recipe, or continue a training that stopped in that folder."""
    from ferlib import recipes, training

    recipe = recipes.find(args.recipe).changed(_changes(args.p, "epochs=20"))
    training.train(recipe, _faces(args), args.out, devices=args.devices)
    metrics = json.loads(Path(args.out, "metrics.json").read_text(encoding="utf-8"))
    print(f"{args.out}/model.keras: {', '.join(f'{k} {v:g}' for k, v in metrics.items())}")
    return metrics


def tune(args: argparse.Namespace) -> Any:
    """Search for good values of the recipe `residual`, or continue a search that stopped."""
    if args.workers != 1 or args.address or args.join:
        return _tune_in_several(args)
    from ferlib import files, tuning

    options = {name: getattr(args, name) for name in ("method", "trials", "epochs", "seed")}
    table = tuning.tune(_faces(args), args.out, **options)
    print(table.to_string(index=False))
    return files.plain(table.to_dict("records"))


def _tune_in_several(args: argparse.Namespace):
    """Searches in several processes, of which each runs `tune` and the chief prints the table."""
    import pandas as pd

    from ferlib import distributed, files

    names = ("out", "data", "labels", "method", "trials", "epochs", "seed")
    given = [f"--{x}={getattr(args, x)}" for x in names if getattr(args, x) is not None]
    if args.partial:
        given.append("--partial")
    command = [sys.executable, "-m", "ferlib", "tune", *given]
    where = {"address": args.address, "join": args.join, "name": args.name}
    distributed.run(command, args.out, workers=args.workers, **where)
    if args.join:
        print(f"The search at {args.join} has no more work for this machine.")
        return {"joined": args.join}
    table = pd.read_csv(Path(args.out, "trials.csv"), dtype={"reason": str}).fillna({"reason": ""})
    return files.plain(table.to_dict("records"))


def evaluate(args: argparse.Namespace) -> dict:
    """Measure a model on the test split, or on val where there is no test."""
    from ferlib import evaluation, files, zoo

    by_votes = args.labels == "ferplus"
    model, seen = _opened(args), zoo.read_seen(args.model)
    data = _faces(args, labels=None) if by_votes else _faces(args)
    report = evaluation.evaluate(model, data, split=args.split, tta=args.tta, seen=seen)
    print(report)
    answer = report.to_dict()
    if by_votes:
        found = evaluation.ferplus_accuracy(report)
        print("against FER+'s votes:", ", ".join(f"{key} {it}" for key, it in found.items()))
        answer["ferplus"] = files.plain(found)
    if args.crops:
        table = evaluation.robustness(model, report.data, corruptions=evaluation.CROPS)
        table = table[table["level"] > 0].drop(columns="level")
        print("\nOne view of faces that are cut out or lit in other ways:")
        print(table.to_string(index=False, float_format="{:.3f}".format))
        answer["crops"] = files.plain(table.to_dict("records"))
    return answer


def predict(args: argparse.Namespace) -> Any:
    """Say which emotion each face in pictures, clips or before the camera shows."""
    from ferlib import archives, files, prediction

    as_it_is = not (args.device or args.input or args.classes) and args.prior == "trained"
    model = args.model if as_it_is else _opened(args)
    detect = {"yes": True, "no": False}.get(args.detect, "auto")
    if args.picture == ["camera"]:
        return _camera(args, model)
    options: dict[str, Any] = {"model": model, "detect": detect, "every": args.every}
    source = args.picture if len(args.picture) > 1 else args.picture[0]
    if args.out and args.out.lower().endswith(".mp4"):
        if args.boxes or len(args.picture) > 1:
            raise ValueError(f"{args.out}: a clip is written of one clip, without --boxes.")
        found = prediction.predict_to_clip(source, args.out, **options)
        answer = vars(found)
    elif args.out:
        found = prediction.predict_to_csv(source, args.out, boxes=args.boxes, **options)
        answer = vars(found)
    else:
        found = prediction.predict(source, boxes=args.boxes, **options)
        table = found.to_frame()
        table["file"] = table["file"].map(archives.readable)
        if len(table):
            print(table.to_string(index=False))
        answer = files.plain(table.to_dict("records"))
    print(found, file=sys.stderr)
    named = {name for path in args.picture for name in (path, str(Path(path)))}
    has_answers = found.pictures + found.clips > len(found.unreadable)
    args.status = int(not has_answers or bool(named & set(found.unreadable | found.others)))
    return answer


def _camera(args: argparse.Namespace, model: Any):
    """Shows the camera in a window."""
    from ferlib import camera

    if Path("camera").exists():
        raise ValueError("There is a file or folder named camera here: write ./camera for it.")
    if args.out or args.boxes or args.every:
        raise ValueError("The camera is shown in a window: --out, --boxes, --every are for files.")
    return {"frames": camera.window(model=model)}


def export(args: argparse.Namespace) -> dict:
    """Write a model for onnxruntime or LiteRT, and measure what it loses on val."""
    from ferlib import exports, runtimes, sources

    options = {"to": args.to, "int8": args.int8}
    if args.int8 or args.data or sources.at_hand():
        options["data"] = _faces(args)
        options["calibration"] = options["data"].of("train").sample(500).images
    path = exports.export(args.model, args.out, **options)
    card = runtimes.open_model(path).card
    lost = "what it lost was not measured: name data with --data"
    if "val" in card:
        lost = (
            "{lost:.2%} of accuracy lost ({accuracy:.2%} on {pictures:,} pictures of {data}, val), "
            "{same:.2%} answered alike, probabilities at most {difference:g} apart"
        ).format(**card["val"])
    print(f"{path}: {path.stat().st_size:,} bytes, {lost}")
    return {"file": str(path)} | card


def compare(args: argparse.Namespace) -> dict:
    """Put two runs' parameters and results side by side."""
    from ferlib import suite

    table = suite.compare(*args.run)
    print(table.to_string(na_rep=""))
    return json.loads(table.to_json(orient="index") or "{}")


def kernel(args: argparse.Namespace) -> dict:
    """Pack a notebook with ferlib inside it, for Kaggle or Colab."""
    from ferlib import kernels

    path = kernels.pack(args.notebook, to=args.to, out=args.out, user=args.user)
    print(f"{path}: {path.stat().st_size:,} bytes")
    if args.to == "kaggle":
        weights = path.parent / kernels.WEIGHTS
        if kernels.NOBODY in (path.parent / "kernel-metadata.json").read_text(encoding="utf-8"):
            print(f"First write your name on Kaggle for {kernels.NOBODY}, or pass --user NAME.")
        if weights.exists():
            print(f"Once: kaggle datasets create -p {weights}")
        print(f"Then: kaggle kernels push -p {path.parent}")
    return {"file": str(path)}


class _Version(argparse.Action):
    """Prints the versions that a report of a bug needs; looked up only when somebody asks."""

    def __call__(self, parser: Any, *_args: Any, **_options: Any):
        from ferlib import suite

        found = suite.versions(("keras", "tensorflow", "jax", "torch", "numpy", "pandas"))
        parts = [f"{name} {version}" for name, version in found.items() if version]
        python = f"Python {platform.python_version()} on {platform.platform()}"
        print(f"ferlib {ferlib.__version__}", python, *parts, sep=", ")
        parser.exit()


def _add_data(add: Callable, name: str = "--data", more: str = "", **options: Any):
    """Adds the options of data."""
    add(name, metavar="SOURCE", help="csv, folder, archive, Kaggle handle or drawn; without it "
        "$FERLIB_DATA, data/raw, a Kaggle or Colab mount, the public Kaggle download, and last "
        "drawn faces", **options)  # fmt: skip
    add("--labels", metavar="NAME|FILE", help="what labels mean: fer2013, rafdb, affectnet, "
        f"ferplus, ck, or a JSON file of old name to class (null leaves out){more}")  # fmt: skip
    add("--partial", action="store_true", help="take what is there of data that is cut off")


def _add_model(add: Callable, name: str, **options: Any):
    """Adds a model of any kind, and how it is read."""
    add(name, metavar="MODEL", **options,
        help="a .keras, .h5, .onnx or .tflite file, or the name of a shipped model")  # fmt: skip
    add("--input", choices=["0-255", "0-1", "-1-1", "imagenet"],
        help="pixels that a model from elsewhere expects")  # fmt: skip
    add("--classes", metavar="NAMES",
        help="its outputs in order, commas between; alphabetical for FER2013's")  # fmt: skip
    add("--prior", default="trained", metavar="uniform|STRENGTH",
        help="answer as if classes were equally frequent; 0.5 goes half the way")  # fmt: skip
    add("--device", choices=["cuda", "coreml", "directml", "cpu"],
        help="what runs an .onnx file; the quickest that is there without it")  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """Makes the parser of the command line."""
    top = argparse.ArgumentParser("ferlib", description="CNNs for facial expressions on FER2013.")
    top.add_argument("--version", action=_Version, nargs=0, help="print versions, as for a bug")
    top.set_defaults(status=0)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(function: Any) -> Callable:
        text = function.__doc__
        made = commands.add_parser(function.__name__, help=text, description=text)
        made.set_defaults(function=function)
        made.add_argument("--json", action="store_true", help="print one JSON value")
        return made.add_argument

    _add_runs(command)
    _add_trainings(command)
    _add_answers(command)
    return top


def _add_runs(command: Callable):
    """Adds the commands for data, notebooks and runs."""
    add = command(data)
    _add_data(add, "source", nargs="?")

    add = command(run)
    add("--profile", default="quick", help="smoke, quick, full or another of profiles/")
    _add_data(add)
    add("--name", help="name of the folder in runs/; the profile's without it")
    add("--seed", type=int, default=0, help="seed of every random choice (default 0)")
    add("--only", default="", metavar="03,06", help="only these notebooks")
    add("-p", action="append", default=[], metavar="03.epochs=5", help="change a parameter")
    add("--timeout", type=float, metavar="SECONDS", help="longest time for one notebook")

    add = command(compare)
    add("run", nargs=2, metavar="RUN", help="folder of a run, or its name in runs/")

    add = command(kernel)
    add("notebook", metavar="NOTEBOOK", help="a notebook, or the beginning of its name, as 03")
    add("--for", dest="to", required=True, choices=["kaggle", "colab"], help="where it will run")
    add("--out", required=True, metavar="DIR", help="folder to write")
    add("--user", metavar="NAME", help="your name on Kaggle; $KAGGLE_USERNAME without it")


def _add_trainings(command: Callable):
    """Adds the commands that train."""
    add = command(train)
    add("recipe", metavar="RECIPE", help="name of a shipped recipe, or a JSON file")
    add("--out", required=True, metavar="DIR", help="folder of the training")
    _add_data(add)
    add("-p", action="append", default=[], metavar="epochs=20", help="change the recipe")
    add("--devices", default="one", choices=["one", "all"],
        help="all: share each batch among all GPUs, on JAX also of several machines")  # fmt: skip

    add = command(tune)
    add("--out", required=True, metavar="DIR", help="folder of the search")
    add("--method", default="bayesian", help="bayesian, hyperband or random")
    add("--trials", type=int, default=12, help="how many (default 12)")
    add("--epochs", type=int, default=3, help="epochs of a trial (default 3)")
    add("--seed", type=int, default=0, help="seed of every random choice (default 0)")
    _add_data(add)
    add("--workers", type=int, default=1, metavar="N", help="processes that train (default 1)")
    add("--address", default="", metavar="HOST:PORT", help="let other machines join here")
    add("--join", default="", metavar="HOST:PORT",
        help="work for another machine's search; DIR has to be shared with it")  # fmt: skip
    add("--name", default="", help="this machine's name among those that join; its host's without")


def _add_answers(command: Callable):
    """Adds the commands for trained models."""
    add = command(evaluate)
    _add_model(add, "model")
    _add_data(add, more="; ferplus: also the accuracy against the majority of FER+'s votes")
    add("--split", choices=["train", "val", "test"], help="test where there is one, else val")
    add("--tta", nargs="?", const="flip", default="none", choices=["none", "flip", "ten"],
        help="average the answers to changed pictures")  # fmt: skip
    add("--crops", action="store_true",
        help="also of faces larger, smaller, shifted, turned, blurred, dark")  # fmt: skip

    add = command(predict)
    add("picture", nargs="+", metavar="PICTURE|CLIP|FOLDER|CSV|ARCHIVE|URL|camera")
    _add_model(add, "--model", default="compact")
    add("--detect", default="auto", choices=["auto", "yes", "no"],
        help="search for faces: auto does in pictures larger than 64x64")  # fmt: skip
    add("--boxes", metavar="CSV", help="where faces are: file,left,top,width,height")
    add("--every", type=float, default=0, metavar="SECONDS",
        help="least time between two frames of a clip (default: all)")  # fmt: skip
    add("--out", metavar="CSV|MP4",
        help="a csv is written as it goes and, started again, continues; a clip as .mp4 is "
        "written anew with its faces framed")  # fmt: skip

    add = command(export)
    add("model", metavar="MODEL", help="a .keras or .h5 file, or the name of a shipped model")
    add("--to", choices=["onnx", "litert"], help="what --out ends in says it too (default: onnx)")
    add("--int8", action="store_true", help="in 8-bit integers, calibrated on train")
    add("--out", metavar="FILE", help="where to write; beside the model without it")
    _add_data(add)


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"ferlib: {message}", file=sys.stderr)


def _plainly(error: Exception) -> str:
    """Gives an error's text; of one of the system the file first, and no number."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}."
    return str(error)


def main(argv: list[str] | None = None) -> int:
    """Runs the program.

    Args:
        argv: The arguments; None takes those of the process.

    Returns:
        The exit status: 0 when it did all that was asked.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if "--input" in words:
        at = words.index("--input")
        words[at : at + 2] = ["=".join(words[at : at + 2])]  # else -1-1 would be an option
    args = parser().parse_args(words)
    warnings.showwarning = _warn  # ty: ignore[invalid-assignment]
    try:
        with contextlib.redirect_stdout(sys.stderr if args.json else sys.stdout):
            answer = args.function(args)
        if args.json:
            print(json.dumps(answer, indent=1))
        sys.stdout.flush()
    except BrokenPipeError:  # `ferlib ... | head` has read enough
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # takes what Python writes out as it ends
        return 141  # as shells say of a program that a closed pipe ended
    except KeyboardInterrupt:
        print("ferlib: stopped; the same command continues from here.", file=sys.stderr)
        return 130
    except (ValueError, ArithmeticError, OSError, RuntimeError, ImportError) as error:
        print(f"ferlib: {_plainly(error)}", file=sys.stderr, flush=True)
        if "KERAS_DISTRIBUTION_NUM_PROCESSES" in os.environ:
            os._exit(1)  # at the usual end JAX waits for the other processes, also for a dead one
        return 1
    return args.status


if __name__ == "__main__":
    sys.exit(main())
