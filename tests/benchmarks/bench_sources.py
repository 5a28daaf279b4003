"""Parses a fer2013.csv with pandas and with ferlib, side by side, and opens ferlib's cache.

    python tests/benchmarks/bench_sources.py [fer2013.csv] [--repeats 3]

Without a file it takes $FERLIB_DATA, or writes a csv of 35,887 pictures of noise. Each way runs
in a process of its own, in turns; the best time of each counts.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def parse_with_pandas(path, cache):
    import pandas as pd

    return np.stack([np.array(p.split(), "float32") for p in pd.read_csv(path)["pixels"]])


def read(path, cache):
    from ferlib import sources

    return sources.load(path, cache=False, votes=None)


def open_cache(path, cache):
    from ferlib import sources

    return sources.load(path, cache=cache, votes=None)


WAYS = {"pandas": parse_with_pandas, "ferlib": read, "cache": open_cache}


def measure(way: str, path: str, cache: str) -> dict:
    """Returns seconds, peak memory in MB and number of pictures of one way, in a new process."""
    command = [sys.executable, __file__, path, "--way", way, "--cache", cache]
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        command,
        capture_output=True,
        encoding="utf-8",
        check=True,
        env=os.environ | {"PYTHONPATH": root},
    )
    return json.loads(done.stdout)


def write_noise(path: Path, n: int = 35_887):
    """Writes a csv of the size of FER2013 (about 300 MB)."""
    rng, words = np.random.default_rng(0), [str(value) for value in range(256)]
    with open(path, "w", encoding="utf-8") as file:
        file.write("emotion,pixels,Usage\n")
        for i in range(n):
            pixels = " ".join([words[v] for v in rng.integers(60, 256, 2304).tolist()])
            file.write(f"{i % 7},{pixels},Training\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("csv", nargs="?", default=os.environ.get("FERLIB_DATA"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--cache", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        import pandas  # noqa: F401  not part of what is measured

        start, cpu = time.perf_counter(), time.process_time()
        n = len(WAYS[args.way](args.csv, args.cache))
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak, "pictures": n}))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(args.csv or folder + "/noise.csv")
        if not args.csv:
            write_noise(path)
        size = path.stat().st_size / 2**20
        measure("cache", str(path), folder)  # builds it
        runs = {way: [] for way in WAYS}
        for _ in range(args.repeats):
            for way in WAYS:
                runs[way].append(measure(way, str(path), folder))
    best = {way: min(run["seconds"] for run in runs[way]) for way in WAYS}
    cpu = {way: min(run["cpu"] for run in runs[way]) for way in WAYS}
    peak = {way: max(run["peak"] for run in runs[way]) for way in WAYS}
    print(f"{path.name}: {size:.0f} MB, {runs['ferlib'][0]['pictures']} pictures")
    for way in WAYS:
        print(
            f"  {way:8} {best[way]:8.3f} s ({cpu[way]:.3f} s of CPU), "
            f"peak {peak[way]:.0f} MB = {peak[way] / size:.2f} x file"
        )
    for what, times in (("time", best), ("CPU time", cpu)):
        parse = times["ferlib"] / times["pandas"]
        print(f"  {what}: parse {parse:.3f} of pandas' (wanted: at most 0.25), "
              f"open {times['cache']:.3f} s (wanted: at most 0.1 s)")  # fmt: skip


if __name__ == "__main__":
    main()
