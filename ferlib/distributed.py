"""A search in several processes: one chief, some workers, and a supervisor.

keras-tuner's own distributed mode does the work. The chief keeps the books and chooses the values;
workers ask it for trials over gRPC, and train. Neither notices when the other dies: that is what
the supervisor is for. It imports neither Keras nor TensorFlow.
"""

import contextlib
import math
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time
from collections import Counter

from ferlib import files

DEATHS = 5
"""How often in a row a worker may die without having finished a trial."""

KEPT = "Finished trials are kept; the same command goes on."

_OF_ITS_OWN = {"start_new_session": True}
"""How a process is started so that Ctrl-C is for the supervisor alone."""
if sys.platform == "win32":
    _OF_ITS_OWN = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}


def run(command, out, *, workers: int, address: str = "", join: str = "") -> None:
    """Runs a search in several processes, until it ends.

    A worker that dies is started again under its own id, so that the chief gives it the same trial;
    one that is not needed any more ends where it called `tuning.tune`, and only the chief goes on.
    However this function or its process ends, the processes that it started end too. Workers share
    the cores of their machine evenly, unless $TF_NUM_INTRAOP_THREADS or $OMP_NUM_THREADS is set.

    On several machines, `out` has to be a folder that all of them share. Messages are neither
    encrypted nor checked for who sent them: use a network that you trust.

    Args:
        command: Arguments of a program that calls `tuning.tune`, the same in every process.
        out: The folder of the search, as that program gives it to `tuning.tune`.
        workers: How many workers.
        address: "host:port" at which the chief listens; "" is a free port that only this machine
            reaches.
        join: "host:port" of a chief that runs on another machine; only workers are started. Once on
            each machine.

    Raises:
        ValueError: If `workers` is below 1, or an address is not of the form "host:port".
        RuntimeError: If the chief or, `DEATHS` times in a row, a worker dies, or if another process
            runs a search in `out`. Finished trials are kept: the same call goes on.
    """
    host, _, port = (join or address or f"127.0.0.1:{_free_port()}").rpartition(":")
    if workers < 1 or not host or not port.isdigit():
        raise ValueError("A search needs 1 or more workers, and an address such as 10.0.0.5:8000.")
    machine = socket.gethostname().replace("chief", "") if join else "worker"
    share = str(max(1, (os.cpu_count() or 1) // workers))
    cores = {"TF_NUM_INTRAOP_THREADS": share, "OMP_NUM_THREADS": share}
    gpu = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    place = {"KERASTUNER_ORACLE_IP": host, "KERASTUNER_ORACLE_PORT": port, "no_grpc_proxy": host}
    common = {**cores, **gpu, **os.environ, **place, "FERLIB_SUPERVISED": "1"}
    held, deaths = files.hold(pathlib.Path(out) / "workers" / machine, wait=5), Counter()

    with held, contextlib.ExitStack() as processes:

        def start(name):
            process = subprocess.Popen(
                list(map(str, command)),
                env={**common, "KERASTUNER_TUNER_ID": name},
                stdin=subprocess.PIPE,
                stdout=sys.stdout if name == "chief" else subprocess.DEVNULL,
                **_OF_ITS_OWN,
            )
            processes.callback(process.wait)
            processes.callback(process.kill)
            return process

        if not join and _answers(host, port):
            raise RuntimeError(f"Something listens at {host}:{port} already; choose another port.")
        chief = None if join else start("chief")
        _await_chief(chief, host, port, seconds=600 if join else math.inf)
        running = {name: start(name) for name in [f"{machine}-{n}" for n in range(workers)]}
        # The chief ends when every worker knows that there is no more to do.
        while any(p.poll() != 0 for p in running.values()) and not (chief and chief.poll() == 0):
            time.sleep(0.5)
            _await_chief(chief, host, port, seconds=3)
            for name, process in running.items():
                if process.poll():
                    mark = pathlib.Path(out) / "trials" / f"{name}.json"  # new after each trial
                    state = name, mark.exists() and mark.stat().st_mtime
                    deaths[state] += 1
                    if deaths[state] == DEATHS:
                        often = f"{DEATHS} times without finishing a trial: given up"
                        raise RuntimeError(f"{name} {_ended(process)}, {often}. {KEPT}")
                    print(f"{name} {_ended(process)}; it is started again", flush=True)
                    running[name] = start(name)
        if chief:
            chief.wait()
            _await_chief(chief, host, port, seconds=0)


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


def _await_chief(chief, host, port, *, seconds):
    """Returns once the chief answers or has ended well; else raises RuntimeError."""
    end = time.monotonic() + seconds
    while (chief is None or chief.poll() is None) and not _answers(host, port):
        if time.monotonic() > end:
            why = "its search has ended, or it has died, or cannot be reached"
            raise RuntimeError(f"No chief answers at {host}:{port}: {why}. {KEPT}")
        time.sleep(0.5)
    if chief and chief.poll():
        raise RuntimeError(f"The chief {_ended(chief)}; the workers were stopped. {KEPT}")


def _answers(host, port):
    """Says whether a process listens at an address."""
    try:
        socket.create_connection((host, int(port)), 10).close()
    except OSError:
        return False
    return True


def _ended(process):
    """Says how a process ended."""
    code = process.returncode
    return f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"


def _free_port():
    """Gives a port that is free on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
