"""Tries a search on three hosts, and a training on two, while hosts and their network fail.

    sudo python experiments/three_hosts.py [search] [training] [--trials 10] [--keep DIR]

Linux only, as root. The hosts are network namespaces, each with a name and an address of its own,
joined by a bridge; the folder that they share is one of this machine's. The chief is on `ferlib-a`,
workers are on `ferlib-b` and `ferlib-c`. What happens to them:

search    b is cut off in the middle of a trial and comes back after that has ended; c is gone for
          good; a is started again, with its chief, in the middle of a trial of b.
training  (needs jax) b is cut off after an epoch, and later gone; then the same commands are given.

It ends with status 1 unless each trial ended once, with the values that one process draws, and each
epoch is there once, with the losses of one process. What is not cut off is never trained again.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

HOSTS = {"ferlib-a": "10.77.0.1", "ferlib-b": "10.77.0.2", "ferlib-c": "10.77.0.3"}
A, B, C = HOSTS
HUB = "ferlib-hub"
CHIEF = f"{HOSTS[A]}:8000"
LOST = 20
"""Seconds without a beat after which a host counts as lost here; ferlib's own are 120."""

TRIAL = """
import os, sys, time
from pathlib import Path
from ferlib import drawn, recipes, training, tuning
out, epochs, trials = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
form = {"model": "residual", "options": {"widths": (4,), "blocks": 1}}
base = recipes.Recipe(**form, batch_size=16, augmentation=None)
train = training.train
def note(recipe, data, folder, **options):
    with (out / "starts.txt").open("a") as file:
        file.write(os.environ.get("KERASTUNER_TUNER_ID", "alone") + " " + folder.name + "\\n")
    train(recipe, data, folder, **options)
training.train = note
def space(hp, base):
    rate = hp.Float("learning_rate", 1e-4, 1e-2, sampling="log")
    return base.replace(learning_rate=rate, optimizer=hp.Choice("optimizer", ["adamw", "sgd"]))
how = {"trials": trials, "epochs": epochs, "base": base, "space": space, "method": "random"}
from ferlib import distributed
distributed.LOST, distributed.BEAT = LOST, 1
tuning.tune(drawn.draw(700, seed=1), out, **how)
"""
SUPERVISOR = """
import json, sys
from ferlib import distributed
distributed.LOST, distributed.BEAT = LOST, 1
out, options, *command = sys.argv[1:]
distributed.run([sys.executable, *command], out, **json.loads(options))
"""
RECIPE = {
    "model": "residual",
    "options": {"widths": [8, 12], "dropout": 0.1},
    "epochs": 5,
    "batch_size": 32,
    "learning_rate": 1e-3,
}


def sh(command: str, check: bool = True) -> str:
    """Runs a line of `ip` and the like."""
    return subprocess.run(command.split(), check=check, capture_output=True, text=True).stdout


@contextlib.contextmanager
def network():
    """Makes three hosts and a bridge between them, and takes them away again."""
    remove()
    try:
        sh(f"ip netns add {HUB}")
        sh(f"ip -n {HUB} link add br0 type bridge")
        sh(f"ip -n {HUB} link set br0 up")
        names = "".join(f"{address} {host}\n" for host, address in HOSTS.items())
        for host, address in HOSTS.items():
            sh(f"ip netns add {host}")
            sh(f"ip link add eth0 netns {host} type veth peer name {host} netns {HUB}")
            sh(f"ip -n {HUB} link set {host} master br0")
            sh(f"ip -n {HUB} link set {host} up")
            sh(f"ip -n {host} address add {address}/24 dev eth0")
            sh(f"ip -n {host} link set lo up")
            sh(f"ip -n {host} link set eth0 up")
            etc = Path("/etc/netns", host)
            etc.mkdir(parents=True)
            (etc / "hosts").write_text(f"127.0.0.1 localhost\n{names}", encoding="utf-8")
        yield
    finally:
        remove()


def remove():
    """Takes the hosts away, with all that runs on them."""
    there = sh("ip netns list").split()
    for name in (*HOSTS, HUB):
        if name in there:
            kill(name)
            sh(f"ip netns delete {name}")
        shutil.rmtree(Path("/etc/netns", name), ignore_errors=True)


def kill(host: str):
    """Kills all processes of a host at once, as a power cut does."""
    for process in map(int, sh(f"ip netns pids {host}", check=False).split()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def link(host: str, state: str):
    """Cuts a host off ("down") or joins it again ("up")."""
    sh(f"ip -n {HUB} link set {host} {state}")
    say(f"link of {host} {state}")


def on(host: str, command: list, log: Path, **environment):
    """Starts a command on a host, which has a name of its own too."""
    inside = ["sh", "-c", 'hostname "$0" && exec "$@"', host, *map(str, command)]
    with log.open("a", encoding="utf-8") as file:
        return subprocess.Popen(
            ["ip", "netns", "exec", host, "unshare", "--uts", *inside],
            env={**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )


STARTED = time.monotonic()


def say(text: str):
    """Prints what happens, and when."""
    print(f"{time.monotonic() - STARTED:6.0f} s  {text}", flush=True)


def wait_for(what, processes, seconds: float = 600):
    """Gives what a function gives as soon as that is something, while all processes live."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        live = all(process.poll() is None for process in processes)
        with contextlib.suppress(OSError, ValueError, KeyError):
            if found := what():
                return found
        if not live:
            raise RuntimeError("A process ended before it was seen; the logs say why.")
        time.sleep(0.05)
    raise TimeoutError("It was not seen; the logs say why.")


# ---- a search ----------------------------------------------------------------------------


def training_on(out: Path, host: str):
    """Gives the folder of a trial that a host has trained an epoch of, and not the last one."""
    books = json.loads((out / "trials/oracle.json").read_text(encoding="utf-8"))
    for tuner, number in books["ongoing_trials"].items():
        folder = out / f"trials/trial_{number}"
        is_begun = (folder / "history.csv").exists() and not (folder / "metrics.json").exists()
        if host in tuner and is_begun:
            return folder
    return None


def traffic(host: str) -> int:
    """Gives how many bytes a host has sent and received."""
    (about,) = json.loads(sh(f"ip -j -s -n {host} link show eth0"))
    return sum(about["stats64"][way]["bytes"] for way in ("rx", "tx"))


def search(folder: Path, trials: int, epochs: int = 20) -> bool:
    """Searches on three hosts, and says whether each trial ended once as it ought to."""
    out, program = folder / "search", folder / "trial.py"
    program.write_text(TRIAL.replace("LOST, 1", f"{LOST}, 1"), encoding="utf-8")
    supervisor = folder / "supervisor.py"
    supervisor.write_text(SUPERVISOR.replace("LOST, 1", f"{LOST}, 1"), encoding="utf-8")
    out.mkdir()
    (folder / "alone").mkdir()

    def start(host):
        where = {"join": CHIEF, "workers": 1} if host != A else {"address": CHIEF, "workers": 0}
        command = [sys.executable, supervisor, out, json.dumps(where)]
        say(f"{host} starts")
        return on(host, [*command, program, out, epochs, trials], folder / f"{host}.log")

    processes = {host: start(host) for host in HOSTS}

    def seen(what, *hosts):
        return wait_for(what, [processes[host] for host in hosts])

    cut = seen(lambda: training_on(out, B), *HOSTS)
    link(B, "down")
    seen(lambda: (cut / "metrics.json").exists(), *HOSTS)
    say(f"{B}, cut off, has trained {cut.name} to its end")
    time.sleep(5)
    link(B, "up")
    seen(lambda: json.loads((cut / "trial.json").read_text())["status"] == "COMPLETED", *HOSTS)
    say(f"the chief has the answer of {cut.name}")

    gone = seen(lambda: training_on(out, C), *HOSTS)
    link(C, "down")
    kill(C)
    say(f"{C} is gone for good in the middle of {gone.name}")

    kept = seen(lambda: training_on(out, B), A, B)
    kill(A)
    processes[A].wait()
    say(f"{A} is killed while {B} trains {kept.name}")
    time.sleep(10)
    processes[A] = start(A)
    status = {host: processes[host].wait(1800) for host in (A, B)}
    say(f"the search has ended: {status}")
    print(f"bytes through the chief's host: {traffic(A) / trials / 1e3:.1f} kB a trial")

    # One process draws the same values, whoever trains them.
    subprocess.run(
        [sys.executable, program, folder / "alone", "1", str(trials)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    tables = [pd.read_csv(path / "trials.csv") for path in (out, folder / "alone")]
    values = [table.set_index("number")[["learning_rate", "optimizer"]] for table in tables]
    books = json.loads((out / "trials/oracle.json").read_text(encoding="utf-8"))
    starts = pd.read_csv(out / "starts.txt", sep=" ", names=["tuner", "trial"])
    epochs_of = [pd.read_csv(path).epoch for path in out.glob("trials/trial_*/history.csv")]
    again = starts[starts.duplicated("trial", keep=False)].groupby("trial").tuner.agg(list)
    print(f"started more than once: {again.to_dict()}")
    return verdict(
        {
            "all ended well": set(status.values()) == {0},
            "each trial ended": list(tables[0].number) == list(range(trials)),
            "none twice": sorted(books["end_order"]) == sorted(set(books["start_order"])),
            "none failed": (tables[0].status == "completed").all(),
            "the values that one process draws": values[0].equals(values[1]),
            "each epoch once": all(list(e) == list(range(1, epochs + 1)) for e in epochs_of),
            "the trial of the host that was cut off was trained once": cut.name not in again,
            "so was that of the chief's restart": kept.name not in again,
            "that of the lost host was continued by another": gone.name in again
            and again[gone.name][-1].startswith(f"at-{B}"),
        }
    )


def verdict(checks: dict) -> bool:
    """Prints what was checked, and says whether all is well."""
    for name, is_met in checks.items():
        print(f"{'yes' if is_met else 'NO '}  {name}")
    return all(checks.values())


# ---- a training --------------------------------------------------------------------------


def train(folder: Path) -> bool:
    """Trains on two hosts, and says whether the losses are those of one."""
    recipe, log = folder / "recipe.json", folder / "training.log"
    recipe.write_text(json.dumps(RECIPE), encoding="utf-8")
    program = [sys.executable, "-m", "ferlib", "train", recipe, "--data", "drawn:700"]
    jax = {"KERAS_BACKEND": "jax"}

    def start():
        return [
            on(
                host,
                [*program, "--out", folder / "two", "--devices", "all"],
                log,
                **jax,
                KERAS_DISTRIBUTION_JOB_ADDRESSES=f"{HOSTS[A]}:1234",
                KERAS_DISTRIBUTION_NUM_PROCESSES="2",
                KERAS_DISTRIBUTION_PROCESS_ID=str(number),
            )
            for number, host in enumerate((A, B))
        ]

    def epochs():
        path = folder / "two/history.csv"
        return len(pd.read_csv(path)) if path.exists() else 0

    def fail(how, epoch):
        processes = start()
        wait_for(lambda: epochs() >= epoch, processes)
        how()
        began = time.monotonic()
        ended = [process.wait(900) for process in processes]
        say(f"both have ended after {time.monotonic() - began:.0f} s, with {ended}")
        return ended

    say(f"{A} and {B} train")
    cut = fail(lambda: link(B, "down"), 1)
    link(B, "up")
    gone = fail(lambda: (say(f"{B} is gone after another epoch"), kill(B)), epochs() + 1)
    before = epochs()
    status = [process.wait(900) for process in start()]
    say(f"the same commands have ended: {status}")
    alone = on(A, [*program, "--out", folder / "one"], log, **jax).wait(900)
    one, two = (pd.read_csv(folder / name / "history.csv") for name in ("one", "two"))
    difference = (one.loss - two.loss).abs().max()
    print(f"losses differ by at most {difference:.1e}; {before} epochs were kept")
    return verdict(
        {
            "an error where the other is cut off": 0 not in cut,
            "an error where the other is gone": 0 not in gone,
            "the same commands end well": status == [0, 0] and alone == 0,
            "they continued": 0 < before < RECIPE["epochs"],
            "each epoch once": list(two.epoch) == list(range(1, RECIPE["epochs"] + 1)),
            "the losses of one host": difference < 1e-3,
        }
    )


def main() -> int:
    """Runs what was asked for; 0 where all is well."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", help="search, training (default: both)")
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--keep", type=Path, help="keep logs and results there")
    args = parser.parse_args()
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("ip"):
        sys.exit("This needs Linux, root and `ip` (iproute2), to make hosts of its own.")
    folder = args.keep or Path(tempfile.mkdtemp(prefix="three-hosts-"))
    folder.mkdir(parents=True, exist_ok=True)
    what = args.what or (["search", "training"] if find_spec("jax") else ["search"])
    print(f"logs: {folder}")
    with network():
        is_well = ("search" not in what or search(folder, args.trials)) & (
            "training" not in what or train(folder)
        )
    if is_well and not args.keep:
        shutil.rmtree(folder)
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
