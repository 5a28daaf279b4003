"""Measures how a search in several processes grows, and what limits it.

    python tests/benchmarks/bench_search.py [growth] [chief]

growth  Trials an hour with 1, 2 and 4 workers on this machine, and what a trial reads and writes in
        the folder of the search (Linux and Windows know that).
chief   How many trials a second one chief books, as its books grow: clients ask for trials and
        report them at once, as if training took no time. So nothing else limits it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pandas as pd

from ferlib import distributed, files

TRIAL = """
import sys
from pathlib import Path
import psutil
from ferlib import drawn, files, recipes, training, tuning
out = Path(sys.argv[1])
form = {"model": "residual", "options": {"widths": (8, 16), "blocks": 1}}
base = recipes.Recipe(**form, batch_size=32, augmentation=None)
train = training.train
def measured(recipe, data, folder, **options):
    before = psutil.Process().io_counters()
    train(recipe, data, folder, **options)
    after = psutil.Process().io_counters()
    read, written = (getattr(after, k) - getattr(before, k) for k in ("read_chars", "write_chars"))
    files.write_json(folder / "io.json", {"read": read, "written": written})
training.train = measured
def space(hp, base):
    return base.replace(learning_rate=hp.Float("learning_rate", 1e-4, 1e-2, sampling="log"))
faces = drawn.draw(1400, seed=1)
tuning.tune(faces, out, trials=12, epochs=8, base=base, space=space, method="random")
"""
BOOKED = """
import sys
from ferlib import drawn, tuning
out, method, trials = sys.argv[1:]
tuning.tune(drawn.draw(140, seed=1), out, method=method, trials=int(trials), verbose=False)
"""
CLIENTS = 8


def growth(folder: Path) -> None:
    """Prints trials an hour by number of workers, and bytes a trial."""
    program = folder / "trial.py"
    program.write_text(TRIAL, encoding="utf-8")
    rows = []
    for workers in (1, 2, 4):
        out = folder / str(workers)
        distributed.run([sys.executable, program, out], out, workers=workers)
        table = pd.read_csv(out / "trials.csv")
        ends = sorted(path.stat().st_mtime for path in out.glob("trials/trial_*/end.json"))
        # The first trials of all workers also start TensorFlow: count from when they have ended.
        hours = (ends[-1] - ends[workers - 1]) / 3600
        io = [json.loads(path.read_text()) for path in out.glob("trials/trial_*/io.json")]
        kept = sum(path.stat().st_size for path in out.rglob("trial_*/**/*") if path.is_file())
        rows.append(
            {
                "workers": workers,
                "trials an hour": (len(ends) - workers) / hours,
                "seconds a trial": table.seconds.median(),
                "MB written a trial": pd.DataFrame(io).written.median() / 1e6,
                "MB read a trial": pd.DataFrame(io).read.median() / 1e6,
                "MB kept a trial": kept / len(ends) / 1e6,
            }
        )
    print(pd.DataFrame(rows).round(2).to_string(index=False))


def booked(folder: Path, method: str, trials: int) -> list[float]:
    """Gives when each trial was booked, in seconds."""
    port = str(distributed._free_port())
    place = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": port}
    os.environ |= place | {"KERASTUNER_TUNER_ID": "client"}
    from keras_tuner.src.distribute.oracle_client import OracleClient

    chief = subprocess.Popen(
        [sys.executable, "-c", BOOKED, folder, method, str(trials)],
        env=os.environ | {"KERASTUNER_TUNER_ID": "chief"},
        stdout=subprocess.DEVNULL,
    )
    times: list[float] = []

    def work(name: str) -> None:
        client = OracleClient(None)
        while (trial := client.create_trial(name)).status != "STOPPED":
            if trial.status == "IDLE":
                time.sleep(1)
                continue
            client.get_trial(trial.trial_id)
            client.update_trial(trial.trial_id, {"val_accuracy": 1 / (1 + len(times))})
            end = {"epochs": 1, "reason": "", "seconds": 1.0, "memory_mb": 1.0}
            files.write_json(folder / f"trials/trial_{trial.trial_id}/end.json", end)
            trial.status = "COMPLETED"
            client.end_trial(trial)
            times.append(time.perf_counter())

    threads = [threading.Thread(target=work, args=(f"at-x-{n}",)) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    chief.kill()
    chief.wait()
    return times


def chief(folder: Path) -> None:
    """Prints how many trials a second a chief books, by how many there are."""
    rows = []
    for method, trials in (("random", 4000), ("bayesian", 300)):
        times = pd.Series(booked(folder / method, method, trials))
        for size in (50, 100, 250, 500, 1000, 2000, 4000):
            if size <= trials:
                some = times[size * 3 // 4 : size]
                rate = (len(some) - 1) / (some.iloc[-1] - some.iloc[0])
                rows.append(
                    {"method": method, "trials in the books": size, "booked a second": rate}
                )
    print(pd.DataFrame(rows).round(2).to_string(index=False))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", default=["growth", "chief"])
    with tempfile.TemporaryDirectory() as temporary:
        for what in parser.parse_args().what:
            {"growth": growth, "chief": chief}[what](Path(temporary))
