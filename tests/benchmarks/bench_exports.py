"""Measures what exports lose on val, in every format, in float32 and in 8 bits, as a table.

python tests/benchmarks/bench_exports.py [--data CSV --models tiny compact accurate]

8-bit exports are calibrated on 500 pictures of train. `ferlib export MODEL --to FORMAT` with
`--data` does the same for one of them, and keeps the file.
"""

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from ferlib import cleaning, exports, runtimes


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("FERLIB_DATA"))
    parser.add_argument("--models", nargs="*", default=["tiny", "compact", "accurate"])
    args = parser.parse_args()
    data = cleaning.prepare(args.data)
    calibration = data.of("train").sample(500).images
    print("| model | format | bytes | accuracy | lost | answered alike | probabilities apart by |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for model in args.models:
            for to in exports.SUFFIXES:
                for int8 in (False, True):
                    path = Path(folder, f"{model}-{int8}{exports.SUFFIXES[to]}")
                    options = {"to": to, "int8": int8, "calibration": calibration}
                    exports.export(model, path, data=data, **options)
                    val, size = runtimes.open_model(path).card["val"], path.stat().st_size
                    form = f"{to}, {'8 bits' if int8 else 'float32'}"
                    told = "{accuracy:.2%} | {lost:.2%} | {same:.2%} | {difference:g} |"
                    print(f"| `{model}` | {form} | {size:,} |", told.format(**val), flush=True)


if __name__ == "__main__":
    main()
