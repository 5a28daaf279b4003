"""A search in several processes: one chief, some workers, and a supervisor.

keras-tuner's own distributed mode does the work. The chief keeps the books and chooses the values;
workers ask it for trials over gRPC, and train. Neither notices when the other dies: that is what
the supervisor is for. It imports neither Keras nor TensorFlow.
"""

import os
import pathlib
import socket
import subprocess
import sys
import threading
import time

from ferlib import suite

DEATHS = 5
"""How often in a row a worker may die without having finished a trial."""


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
    names = [f"{machine}-{number}" for number in range(workers)]
    held = suite._hold(pathlib.Path(out) / "workers" / machine, wait=5)
    if not join and _answers(host, port):
        raise RuntimeError(f"Something listens at {host}:{port} already; choose another port.")
    share = str(max(1, (os.cpu_count() or 1) // workers))
    defaults = {
        "TF_NUM_INTRAOP_THREADS": share,
        "OMP_NUM_THREADS": share,
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    ours = {
        "FERLIB_SUPERVISED": "1",
        "KERASTUNER_ORACLE_IP": host,
        "KERASTUNER_ORACLE_PORT": port,
        "no_grpc_proxy": host,
    }
    started, deaths, finished = {}, dict.fromkeys(names, 0), {}

    def start(name):
        started[name] = subprocess.Popen(
            list(map(str, command)),
            env={**defaults, **os.environ, **ours, "KERASTUNER_TUNER_ID": name},
            stdin=subprocess.PIPE,
            stdout=sys.stdout if name == "chief" else subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the supervisor alone
        )

    try:
        if not join:
            start("chief")
        _await_chief(started.get("chief"), host, port, seconds=60 if join else 1e9)
        for name in names:
            start(name)
        while any(started[name].poll() != 0 for name in names):
            time.sleep(0.5)
            if not join and started["chief"].poll() == 0:
                break  # it waited until every worker knew that there is no more to do
            _await_chief(started.get("chief"), host, port, seconds=3)
            for name in (name for name in names if started[name].poll()):
                mark = pathlib.Path(out) / "trials" / f"{name}.json"
                before, finished[name] = finished.get(name), mark.exists() and mark.stat().st_mtime
                deaths[name] = deaths[name] + 1 if before == finished[name] else 1
                how = _ended(started[name])
                if deaths[name] == DEATHS:
                    raise RuntimeError(
                        f"{name} {how}, {DEATHS} times without finishing a trial: given up. "
                        f"Finished trials are kept in {out}; the same command goes on."
                    )
                print(f"{name} {how}; it is started again", flush=True)
                start(name)
        if not join and started["chief"].wait():
            _await_chief(started["chief"], host, port, seconds=0)
    finally:
        for process in started.values():
            process.stdin.close()
        for process in started.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        held.lock.release()


def end_with_supervisor() -> None:
    """Ends this process as soon as the supervisor that started it, if one did, is gone.

    The supervisor holds the other end of the standard input, which closes however it ends.
    """
    if is_supervised():
        threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()


def is_supervised() -> bool:
    """Says whether `run` started this process."""
    return "FERLIB_SUPERVISED" in os.environ


def _await_chief(chief, host, port, *, seconds):
    """Returns as soon as the chief answers, and raises RuntimeError if it does not or has died."""
    end = time.monotonic() + seconds
    while chief is None or not chief.poll():
        if (chief is not None and chief.poll() == 0) or _answers(host, port):
            return
        if time.monotonic() > end:
            raise RuntimeError(
                f"No chief answers at {host}:{port}: its search has ended, or it has died. "
                "Where it runs, and then here, the same command goes on."
            )
        time.sleep(0.5)
    raise RuntimeError(
        f"The chief {_ended(chief)}; the workers were stopped. "
        "Finished trials are kept; the same command goes on."
    )


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
