"""Trains a stage of the strongest nets side by side on one GPU, within so many minutes.

    python experiments/gpu.py members --data fer2013.csv --minutes 9 --out brought_back
    python experiments/gpu.py accurate --data fer2013.csv --minutes 9 --out brought_back

`gpu.json` beside this file lists the stages: each training's recipe in `recipes/` and what is
changed in it. Every training is a process of its own on `$KERAS_BACKEND`, jax where it is not set,
and all share the GPU. First they run for two epochs on drawn faces, so that what cannot run is seen
in the first minute. When the minutes are over, trainings are ended; a next call continues after
their last whole epoch.

Into the folder `--out` come pieces of a tar file, at most 15 MiB each: finished models with float16
weights, then histories, then what an unfinished training continues from. `--from` unpacks them
before a next call.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PART = 15 << 20  # bytes of a tar file
sys.path[:0] = [str(HERE), str(HERE.parent)]
os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])


def begin(name: str, recipe: str, changes: list[str], runs: Path, data: str) -> subprocess.Popen:
    """Begins or continues a training in the background; its output goes to NAME.log."""
    command = [sys.executable, "-m", "ferlib", "train", str(HERE / "recipes" / recipe)]
    command += ["--out", str(runs / name), "--data", data]
    for change in changes:
        command += ["-p", change]
    with (runs / f"{name}.log").open("a") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


def together(stage: dict, runs: Path, data: str, until: float) -> dict[str, int | None]:
    """Runs the trainings of a stage side by side until all have ended or time is over.

    Returns:
        The exit status of each by its name; None where time was over.
    """
    runs.mkdir(parents=True, exist_ok=True)
    running = {}
    for name, (recipe, *changes) in stage.items():
        running[name] = begin(name, recipe, changes, runs, data)
    while time.time() < until and any(one.poll() is None for one in running.values()):
        time.sleep(1)
    ended = {name: one.poll() for name, one in running.items()}
    for one in running.values():
        one.send_signal(signal.SIGTERM)
    for name, one in running.items():
        one.wait()
        last = (runs / f"{name}.log").read_text(encoding="utf-8").splitlines()[-1:]
        print(name, "time is over" if ended[name] is None else ended[name], *last, flush=True)
    return ended


def prove(stage: dict, runs: Path, minutes: float) -> None:
    """Runs each training for two epochs on drawn faces; ends the program where one fails."""
    short = {name: [*wanted, "epochs=2"] for name, wanted in stage.items()}
    ended = together(short, runs / "proof", "drawn:300", time.time() + 60 * minutes)
    if failed := [name for name, status in ended.items() if status != 0]:
        for name in failed:
            print((runs / "proof" / f"{name}.log").read_text(encoding="utf-8")[-2000:])
        sys.exit(f"These do not run: {', '.join(failed)}.")


def pack(names: list[str], runs: Path, out: Path) -> list[Path]:
    """Packs what trainings have made into tar files of at most 15 MiB, what matters most first."""
    import ship

    out.mkdir(parents=True, exist_ok=True)
    wanted = []
    for name in names:
        model = runs / name / "model.keras"
        if model.exists():
            ship.halve(model)
            wanted.append(model)
    for name in names:
        wanted += [runs / f"{name}.log", *sorted((runs / name).glob("*.csv"))]
        wanted += sorted((runs / name).glob("*.json"))
    for name in names:
        if not (runs / name / "model.keras").exists():
            wanted += sorted(path for path in (runs / name).rglob("state/*") if path.is_file())
    whole = out / "whole.tar"
    with tarfile.open(whole, "w") as archive:
        for path in wanted:
            archive.add(path, path.relative_to(runs).as_posix())
    parts = []
    with whole.open("rb") as stream:
        while piece := stream.read(PART):
            parts.append(out / f"part_{len(parts):02d}")
            parts[-1].write_bytes(piece)
    whole.unlink()
    return parts


def unpack(folder: Path, runs: Path) -> None:
    """Puts back what `pack` made."""
    whole = runs / "whole.tar"
    runs.mkdir(parents=True, exist_ok=True)
    with whole.open("wb") as stream:
        for part in sorted(folder.glob("part_*")):
            stream.write(part.read_bytes())
    with tarfile.open(whole) as archive:
        archive.extractall(runs, filter="data")
    whole.unlink()


def main() -> None:
    """Proves a stage, trains it, and packs what it made."""
    parser = argparse.ArgumentParser("gpu.py", description=__doc__.splitlines()[0])
    stages = json.loads((HERE / "gpu.json").read_text(encoding="utf-8"))
    parser.add_argument("stage", choices=sorted(stages))
    parser.add_argument("--data", required=True, help="fer2013.csv, with fer2013new.csv beside it")
    parser.add_argument("--minutes", type=float, default=9, help="for everything, the proof too")
    parser.add_argument("--runs", default=HERE.parent / "runs", type=Path, help="where to train")
    parser.add_argument("--out", required=True, type=Path, help="what is to be brought back")
    parser.add_argument("--from", dest="begun", type=Path, help="what an earlier call brought back")
    parser.add_argument("-p", dest="changes", action="append", default=[], metavar="FIELD=VALUE")
    args = parser.parse_args()
    until = time.time() + 60 * args.minutes
    stage = {name: [*wanted, *args.changes] for name, wanted in stages[args.stage].items()}
    if args.begun:
        unpack(args.begun, args.runs)
    prove(stage, args.runs, args.minutes / 3)
    print(f"all run, after {60 * args.minutes - (until - time.time()):.0f} s", flush=True)
    together(stage, args.runs, args.data, until)
    for part in pack(list(stage), args.runs, args.out):
        print(part, part.stat().st_size)


if __name__ == "__main__":
    main()
