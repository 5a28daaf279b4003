"""Kills commands and processes of theirs at random moments, continues, and compares the ends.

    python tests/kills.py --kills 100 --seed 0

A chain is a folder in which one command is started, killed and started again until it has ended;
what it made must then be what an undisturbed one makes. What is still running 20 seconds after
its command was killed is a fault, as is a command that cannot be continued. Two commands are
tried at once: one that starts uses a single core for most of its time.
"""

import argparse
import collections
import filecmp
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

ROOT = Path(__file__).resolve().parent.parent
MOST = 900
"""Seconds after which a command counts as one that hangs."""


def write_notebook(path, *code):
    import nbformat

    about = 'data: str = ""  # data\nout: str = ""  # folder\nseed: int = 0  # seed\n'
    about += "pictures: int = 0  # at most"
    cells = [nbformat.v4.new_code_cell(about, metadata={"tags": ["parameters"]})]
    cells += map(nbformat.v4.new_code_cell, code)
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "3", "language": "python"}
    notebook.metadata["ferlib"] = {"reads": [], "makes": ["metrics.json"]}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


class Job:
    """A command that is killed: how it is started, and how its ends are compared."""

    def __init__(self, root):
        self.root = root

    def command(self, out):
        raise NotImplementedError

    def folder(self, out):
        """Where the command is started."""
        return ROOT

    def same(self, whole, out):
        raise NotImplementedError


class Train(Job):
    def command(self, out):
        from ferlib.recipes import Recipe

        path = self.root / "recipe.json"
        if not path.exists():
            Recipe("residual", {"widths": [8, 12], "blocks": 1}, epochs=8, ema=0.9).to_json(path)
        return ["train", path, "--data", "drawn:280", "--out", out]

    def same(self, whole, out):
        from ferlib import zoo

        models = [zoo.load(folder / "model.keras").get_weights() for folder in (whole, out)]
        for left, right in zip(*models, strict=True):
            np.testing.assert_array_equal(left, right)
        tables = [pd.read_csv(folder / "history.csv") for folder in (whole, out)]
        pd.testing.assert_frame_equal(*(table.drop(columns="seconds") for table in tables))


class Tune(Job):
    def command(self, out):
        return ["tune", "--workers", 2, "--method", "random", "--trials", 3, "--epochs", 1,
                "--data", "drawn:70", "--out", out]  # fmt: skip

    def same(self, whole, out):
        left, right = (pd.read_csv(folder / "trials.csv") for folder in (whole, out))
        measured = ["seconds", "memory_mb"]
        pd.testing.assert_frame_equal(left.drop(columns=measured), right.drop(columns=measured))


class Run(Job):
    def folder(self, out):
        if not out.exists():
            for name in ("01_one", "02_two"):
                write_notebook(
                    out / "notebooks" / f"{name}.ipynb",
                    "from pathlib import Path\nPath(out).mkdir(exist_ok=True)",
                    "import time\nfor i in range(15):\n    time.sleep(0.1)",
                    f"Path(out, 'metrics.json').write_text('{{\"{name}\": 1}}')",
                )
            (out / "pyproject.toml").touch()
            (out / "ferlib").symlink_to(ROOT / "ferlib")
        return out

    def command(self, out):
        return ["run", "--data", "drawn:70"]

    def same(self, whole, out):
        for folder in (whole, out):
            told = json.loads((folder / "runs/quick/manifest.json").read_text())
            assert told["status"] == "done"
            assert {entry["status"] for entry in told["stages"].values()} == {"done"}
        for name in ("01_one", "02_two"):
            paths = [folder / "runs/quick" / name / "metrics.json" for folder in (whole, out)]
            assert filecmp.cmp(*paths, shallow=False)


class Predict(Job):
    def command(self, out):
        from PIL import Image

        from ferlib import drawn

        pictures = self.root / "pictures"
        if not pictures.exists():
            pictures.mkdir()
            for number, image in enumerate(drawn.draw(400).images):
                Image.fromarray(image).resize((240, 240)).save(pictures / f"{number:03}.png")
        out.mkdir(exist_ok=True)
        return ["predict", pictures, "--model", "tiny", "--detect", "no", "--out", out / "x.csv"]

    def same(self, whole, out):
        assert filecmp.cmp(whole / "x.csv", out / "x.csv", shallow=False)


class Export(Job):
    def command(self, out):
        out.mkdir(exist_ok=True)
        return ["export", "tiny", "--out", out / "tiny.onnx"]

    def same(self, whole, out):
        from ferlib import runtimes

        faces = np.random.default_rng(0).integers(0, 256, (4, 48, 48, 1), "uint8")
        answers = [runtimes.open_model(folder / "tiny.onnx")(faces) for folder in (whole, out)]
        np.testing.assert_array_equal(*answers)


JOBS = (Tune, Train, Run, Predict, Export)


class Killer:
    """Kills commands, and keeps count.

    Args:
        seed: Seed of what is killed when, and how.
        root: A folder to work in.
    """

    def __init__(self, seed, root):
        self.seed, self.random = seed, {}
        self.root = Path(root)
        self.counts = collections.defaultdict(collections.Counter)
        self.faults = []
        self.longest = 0.0  # seconds from the start of a command to its end by itself

    def start(self, job, out):
        where, log = job.folder(out), (self.root / "log.txt").open("a")
        command = [sys.executable, "-m", "ferlib", *map(str, job.command(out))]
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"}
        with log:
            log.write(f"{' '.join(command)}\n")
            log.flush()
            return psutil.Popen(command, cwd=where, env=environment, stdout=log, stderr=log,
                                stdin=subprocess.DEVNULL)  # fmt: skip

    def fault(self, job, text):
        name = type(job).__name__.lower()
        self.counts[name]["faults"] += 1
        self.faults.append(f"{name}: {text}")
        print("FAULT", self.faults[-1], flush=True)

    def end(self, job, process):
        """Waits for the end of a command; says whether it did what was asked."""
        try:
            status = process.wait(MOST)
            self.longest = max(self.longest, time.time() - process.create_time())
            return status == 0
        except psutil.TimeoutExpired:
            self.fault(job, f"still at work after {MOST} s")
            for child in process.children(recursive=True):
                child.kill()
            process.kill()
            return False

    def kill(self, job, process):
        """Kills the command or a process of it; says whether the command itself was killed."""
        children = process.children(recursive=True)
        chance = self.random[type(job)]
        victim = chance.choice([process, *children[:1], chance.choice(children)]
                               if children else [process])  # fmt: skip
        how = chance.choice(["SIGKILL", "SIGTERM"])
        victim.send_signal(getattr(signal, how))
        count = self.counts[type(job).__name__.lower()]
        count[how] += 1
        count["of the command" if victim == process else "of a process of it"] += 1
        if victim != process:
            return False
        process.wait(20)
        _, left = psutil.wait_procs(children, timeout=20)
        if left:
            self.fault(job, f"after {how} there still run {left}")
            for child in left:
                child.kill()
        return True

    def chain(self, job, number, whole, seconds, kills):
        """Starts, kills and starts again until the command has ended; gives the number of kills."""
        out, done = self.root / f"{type(job).__name__}{number}", 0
        while True:
            process = self.start(job, out)
            if done < kills:
                deadline = time.monotonic() + self.random[type(job)].uniform(0.1, seconds)
                while time.monotonic() < deadline and process.is_running():
                    if process.status() == psutil.STATUS_ZOMBIE:
                        break
                    time.sleep(0.02)
                if process.poll() is None:
                    try:
                        was_command = self.kill(job, process)
                    except psutil.NoSuchProcess:  # it had just ended by itself
                        was_command = False
                    else:
                        done += 1
                    if was_command:
                        continue
            if self.end(job, process):
                break
            self.counts[type(job).__name__.lower()]["ended with an error"] += 1
            if done >= kills and self.end(job, self.start(job, out)):
                break
            if done >= kills:
                self.fault(job, "it cannot be continued; see log.txt")
                return done
        try:
            job.same(whole, out)
        except (AssertionError, OSError, ValueError) as error:
            self.fault(job, f"another end in {out}: {error}")
        shutil.rmtree(out) if not self.faults else None
        return done

    def run(self, kind, kills):
        """Kills one command so many times, at most five times in a folder."""
        job, whole = kind(self.root), self.root / f"{kind.__name__}-whole"
        name, began = kind.__name__.lower(), time.monotonic()
        self.random[kind] = random.Random(f"{self.seed} {name}")  # whatever goes on beside it
        assert self.end(job, self.start(job, whole)), f"{name} fails undisturbed; see log.txt"
        seconds, done, number = time.monotonic() - began, 0, 0
        while done < kills and len(self.faults) < 5:
            number += 1
            done += self.chain(job, number, whole, seconds, min(5, kills - done))
        self.counts[name] |= {"kills": done, "chains": number}
        self.counts[name]["seconds"] = round(time.monotonic() - began)
        print(name, dict(self.counts[name]), flush=True)


def main(seed, kills, jobs=JOBS):
    """Kills all commands so many times in all, and gives the killer with its counts."""
    import resource  # POSIX alone has it

    with tempfile.TemporaryDirectory(prefix="kills-") as root:
        killer = Killer(seed, root)
        each = [kills // len(jobs) + (number < kills % len(jobs)) for number in range(len(jobs))]
        with ThreadPoolExecutor(2) as two:
            list(two.map(killer.run, jobs, each))
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        print(f"longest command {killer.longest:.0f} s; largest process {peak / 1e6:.0f} MB")
        if killer.faults:
            print((Path(root) / "log.txt").read_text()[-4000:])
    return killer


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--jobs", default=",".join(kind.__name__ for kind in JOBS))
    told = parser.parse_args()
    chosen = [kind for kind in JOBS if kind.__name__ in told.jobs.split(",")]
    sys.exit(bool(main(told.seed, told.kills, chosen).faults))
