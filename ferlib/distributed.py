"""A search in several processes: one chief, some workers, and a supervisor.

keras-tuner's own distributed mode does the work. The chief keeps the books and chooses the values;
workers ask it for trials over gRPC, and train. Neither notices when the other dies: that is what
the supervisor is for. It imports neither Keras nor TensorFlow.

A machine that joins a search of another one writes a beat into the shared folder. When that stops,
the chief gives the machine's trials to others; a machine that comes back begins anew. Beats are
compared with those before, never with a clock, so clocks may differ.
"""

import contextlib
import math
import os
import pathlib
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from ferlib import files

DEATHS = 5
"""How often in a row a worker may die without having finished a trial."""

BEAT = 5.0
"""Seconds between two beats of a machine that joined a search."""

LOST = 120.0
"""Seconds without a beat after which a machine counts as lost, longer than NFS keeps the locks of a
machine that it does not hear of."""

PATIENCE = 600.0
"""Seconds that a machine waits for a chief that does not answer."""

LOCAL = "worker"
"""Name of the chief's own machine in the ids of its workers."""

KEPT = "Finished trials are kept; the same command goes on."

_OF_ITS_OWN: dict[str, Any] = {"start_new_session": True}
"""How a process is started so that Ctrl-C is for the supervisor alone."""
if sys.platform == "win32":
    _OF_ITS_OWN = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}


def run(
    command: Sequence,
    out: str | pathlib.Path,
    *,
    workers: int,
    address: str = "",
    join: str = "",
    name: str = "",
) -> None:
    """Runs a search in several processes, until it ends.

    A worker that dies is started again under its own id, so that the chief gives it the same trial.
    However this function or its process ends, the processes that it started end too. Workers share
    the cores of their machine evenly, unless $TF_NUM_INTRAOP_THREADS or $OMP_NUM_THREADS is set,
    and worker n gets GPU n alone, counted over and over, of those in $CUDA_VISIBLE_DEVICES or else
    of all that nvidia-smi lists.

    On several machines, `out` has to be a folder that all of them share. One that is cut off from
    the chief trains on, and reports when it is back; one that is not heard of for `LOST` seconds is
    given up, and its trials go to others. Messages are neither encrypted nor checked for who sent
    them: use a network that you trust. The chief listens at `address` alone.

    Args:
        command: Arguments of a program that calls `tuning.tune`, the same in every process.
        out: The folder of the search, as that program gives it to `tuning.tune`.
        workers: How many workers; 0 for a chief alone, at an address where others join.
        address: "host:port" at which the chief listens; "" is a free port that only this machine
            reaches.
        join: "host:port" of a chief that runs on another machine; only workers are started. Once on
            each machine.
        name: Name of this machine among those that join; "" is its host's name. One that is started
            again under its name goes on with its trials.

    Raises:
        ValueError: If there are too few workers, an address is not of the form "host:port", or a
            name cannot be that of a folder.
        RuntimeError: If the chief or, `DEATHS` times in a row, a worker dies, if a chief on another
            machine does not answer for `PATIENCE` seconds, or if another process runs a search in
            `out`. Finished trials are kept: the same call goes on.
    """
    host, _, port = (join or address or f"127.0.0.1:{_free_port()}").rpartition(":")
    least = 0 if address and not join else 1
    if workers < least or not host or not port.isdigit():
        raise ValueError(
            "A search needs 1 or more workers (0 where others join it, with an address), and an "
            "address such as 10.0.0.5:8000."
        )
    machine = _machine(name) if join else LOCAL
    folder = pathlib.Path(out) / "workers" / machine
    environment = _environment(host, port, workers)
    with files.hold(folder, wait=5), _Processes(command, out, machine, environment) as processes:
        if not join and _answers(host, port):
            raise RuntimeError(f"Something listens at {host}:{port} already; choose another port.")
        chief = None if join else processes.start(None)
        _await_chief(chief, host, port, seconds=PATIENCE if join else math.inf)
        running = [processes.start(number) for number in range(workers)]
        beaten, heard = -math.inf, time.monotonic()
        # The chief ends when every worker knows that there is no more to do.
        while any(p.poll() != 0 for p in running) and not (chief and chief.poll() == 0):
            time.sleep(0.5)
            if chief:
                _check_chief(chief)
            elif time.monotonic() > beaten + BEAT:
                if (folder / "lost").exists():  # others have the trials of these workers
                    print(f"{machine} was given up meanwhile; its workers begin anew", flush=True)
                    running = [processes.replace(number, old) for number, old in enumerate(running)]
                    (folder / "lost").unlink()
                beaten = time.monotonic()
                files.write(folder / "alive", f"{time.time_ns()} {workers}")
                heard = beaten if _answers(host, port) else heard
                if beaten > heard + PATIENCE:
                    _await_chief(chief, host, port, seconds=0)
            for number, process in enumerate(running):
                if process.poll():
                    running[number] = processes.start_again(number, process)
        (folder / "alive").unlink(missing_ok=True)
        if chief:
            chief.wait()
            _check_chief(chief)


def _machine(name: str):
    """Gives the name of a machine that joins, in the ids of its workers."""
    machine = name or f"at-{socket.gethostname()}"
    machine = machine.replace("chief", "first")  # keras-tuner takes any "chief" for the chief
    if not re.fullmatch(r"\w[\w.-]*", machine) or machine == LOCAL:
        raise ValueError(f"name is {name!r}; give letters and digits, and not {LOCAL!r}.")
    return machine


def _environment(host: str, port: str, workers: int):
    """Gives the environment of a machine's processes, which share the cores that this one has."""
    allotted = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))  # by Slurm
    share = str(max(1, len(allotted(0)) // max(1, workers)))
    cores = {"TF_NUM_INTRAOP_THREADS": share, "OMP_NUM_THREADS": share}
    gpu = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    place = {"KERASTUNER_ORACLE_IP": host, "KERASTUNER_ORACLE_PORT": port, "no_grpc_proxy": host}
    return {**cores, **gpu, **os.environ, **place, "FERLIB_SUPERVISED": "1"}


class _Processes(contextlib.ExitStack):
    """The processes of one machine, which end with this."""

    def __init__(self, command, out, machine, environment):
        super().__init__()
        self.command = list(map(str, command))
        self.trials = pathlib.Path(out) / "trials"
        self.machine = machine
        self.environment = environment
        self.gpus = _gpus()
        self.deaths = Counter()

    def start(self, number: int | None):
        """Starts a worker by its number, or the chief, whose number is None."""
        own = {"KERASTUNER_TUNER_ID": "chief" if number is None else f"{self.machine}-{number}"}
        if self.gpus:
            gpu = "-1" if number is None else self.gpus[number % len(self.gpus)]
            own["CUDA_VISIBLE_DEVICES"] = gpu
        process = subprocess.Popen(
            self.command,
            env=self.environment | own,
            stdin=subprocess.PIPE,
            stdout=sys.stdout if number is None else subprocess.DEVNULL,
            **_OF_ITS_OWN,
        )
        self.callback(process.wait)
        self.callback(process.kill)
        return process

    def replace(self, number: int, process: subprocess.Popen):
        """Ends a worker and starts it anew."""
        process.kill()
        process.wait()
        return self.start(number)

    def start_again(self, number: int, process: subprocess.Popen):
        """Starts a worker that has died again, unless it does so too often."""
        who = f"{self.machine}-{number}"
        mark = self.trials / f"{who}.json"  # new after each trial
        state = who, mark.exists() and mark.stat().st_mtime
        self.deaths[state] += 1
        if self.deaths[state] == DEATHS:
            often = f"{DEATHS} times without finishing a trial: given up"
            raise RuntimeError(f"{who} {_ended(process)}, {often}. {KEPT}")
        print(f"{who} {_ended(process)}; it is started again", flush=True)
        return self.start(number)


def has_joined(out: str | pathlib.Path, tuner: str) -> bool:
    """Says whether a tuner's machine joined a search and has not been given up."""
    machine = tuner.rpartition("-")[0]
    return bool(machine) and (pathlib.Path(out) / "workers" / machine / "alive").exists()


def lost(out: str | pathlib.Path) -> Iterator[tuple[str, int]]:
    """Yields machines that joined a search as soon as they have fewer workers; never ends.

    Args:
        out: The folder of the search.

    Yields:
        The machine's name, and how many workers it has: 0 where it is lost. It will see that it
        has been given up, and begin anew. Also each machine once when it is first heard of.
    """
    heard = {}
    while True:
        time.sleep(BEAT)
        now = time.monotonic()
        for path in pathlib.Path(out).glob("workers/*/alive"):
            machine = path.parent.name
            beat, since = heard.get(machine, ("", now))
            with contextlib.suppress(OSError):  # it ends this moment
                new = path.read_text(encoding="utf-8")
                heard[machine] = new, since if new == beat else now
                if now - heard[machine][1] > LOST:
                    del heard[machine]
                    files.write(path.with_name("lost"), "")
                    path.unlink()
                    yield machine, 0
                elif new.split()[1:] != beat.split()[1:]:
                    yield machine, int(new.split()[1])


def end_with_supervisor() -> bool:
    """Ends this process as soon as the supervisor that started it is gone.

    The supervisor holds the other end of the standard input, which closes however it ends.

    Returns:
        Whether there is a supervisor: whether `run` started this process.
    """
    if "FERLIB_SUPERVISED" not in os.environ:
        return False
    threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
    return True


def _await_chief(chief: subprocess.Popen | None, host: str, port: str, *, seconds: float):
    """Returns once the chief answers or has ended well; else raises RuntimeError."""
    end = time.monotonic() + seconds
    while (chief is None or chief.poll() is None) and not _answers(host, port):
        if time.monotonic() > end:
            why = "its search has ended, or it has died, or cannot be reached"
            raise RuntimeError(f"No chief answers at {host}:{port}: {why}. {KEPT}")
        time.sleep(0.5)
    if chief:
        _check_chief(chief)


def _check_chief(chief: subprocess.Popen):
    """Raises RuntimeError where the chief has died."""
    if chief.poll():
        raise RuntimeError(f"The chief {_ended(chief)}; the workers were stopped. {KEPT}")


def _gpus():
    """Names the GPUs that this process may use, as $CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        try:
            listed = subprocess.run(
                ["nvidia-smi", "-L"], capture_output=True, encoding="utf-8", timeout=60
            ).stdout
        except (OSError, subprocess.TimeoutExpired):  # there is no GPU of that kind
            return []
        return [str(n) for n in range(len(re.findall(r"^GPU \d+:", listed, re.M)))]
    return [name for name in map(str.strip, named.split(",")) if name not in ("", "-1")]


def _answers(host: str, port: str):
    """Says whether a process listens at an address."""
    try:
        socket.create_connection((host, int(port)), 5).close()
    except OSError:
        return False
    return True


def _ended(process: subprocess.Popen):
    """Says how a process ended."""
    code = process.returncode
    return f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"


def _free_port():
    """Gives a port that is free on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
