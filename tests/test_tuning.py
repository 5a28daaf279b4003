"""The search for hyperparameters: what is recorded, and what survives a kill."""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import pandas as pd
import psutil
import pytest
from conftest import ROOT

from ferlib import distributed, drawn, files, models, recipes, training, tuning

KILLED = "ended with status" if sys.platform == "win32" else "was killed by signal 9"


def space(hp, base):
    """A search space of two values, one of which alone decides the score of `fake`."""
    rate = hp.Float("learning_rate", 1e-4, 1e-2, sampling="log")
    optimizer = hp.Choice("optimizer", ["adamw", "sgd"])
    return base.replace(learning_rate=rate, optimizer=optimizer)


@pytest.fixture
def fake(monkeypatch):
    """Replaces training by a formula, and notes the recipes and folders that it was given."""

    class Fake(list):
        stops, fails = (), ()

        def train(self, recipe, data, out, **_):
            self.append((out.name, recipe))
            if len(self) in self.stops:
                raise KeyboardInterrupt
            if len(self) in self.fails:
                raise MemoryError("no room for\na tensor of shape [128, 9000]")
            recipe.to_json(out / "recipe.json")
            accuracy = 0.5 + 10 * recipe.learning_rate
            (out / "metrics.json").write_text(json.dumps({"val_accuracy": accuracy}))

    calls = Fake()
    monkeypatch.setattr(training, "train", calls.train)
    monkeypatch.setattr("keras.utils.clear_session", lambda: None)
    return calls


def search(out, faces, **options):
    options = {"trials": 5, "space": space, "verbose": False, **options}
    return tuning.tune(faces, out, **options)


@pytest.mark.parametrize("method", tuning.METHODS)
def test_each_method_finds_the_better_half(method, faces, fake, tmp_path):
    trials = 0 if method == "hyperband" else 10
    table = search(tmp_path, faces, method=method, trials=trials, epochs=9)
    assert (table.status == "completed").all() and table.number.is_unique
    assert len(table) == trials or (method == "hyperband" and len(table) > 10)
    best = tuning.best(tmp_path)
    assert best.learning_rate == pytest.approx(table.learning_rate[table.score.idxmax()])
    assert best.learning_rate > 5e-3 and best.init == ""


def test_hyperband_continues_with_the_weights_of_the_shorter_trial(faces, fake, tmp_path):
    table = search(tmp_path, faces, method="hyperband", trials=0, epochs=9)
    longer = [(folder, recipe) for folder, recipe in fake if recipe.init]
    assert longer and all(recipe.epochs < 9 for _, recipe in longer)
    assert all(recipe.init.endswith("model.keras") for _, recipe in longer)
    assert table.epochs.max() == 9


def test_a_killed_search_keeps_what_is_finished_and_runs_the_rest_once(faces, fake, tmp_path):
    fake.stops = (3,)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, faces)
    assert len(pd.read_csv(tmp_path / "trials.csv")) == 2
    table = search(tmp_path, faces)
    assert list(table.number) == [0, 1, 2, 3, 4]
    assert [folder for folder, _ in fake] == [f"trial_{n}" for n in (0, 1, 2, 2, 3, 4)]
    assert fake[2] == fake[3]
    pd.testing.assert_frame_equal(search(tmp_path, faces), table)
    assert len(fake) == 6


@pytest.mark.parametrize("method", tuning.METHODS)
def test_a_kill_in_the_first_trial(method, faces, fake, tmp_path):
    fake.stops = (1,)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, faces, method=method)
    table = search(tmp_path, faces, method=method)
    assert list(table.number) == [0, 1, 2, 3, 4] and fake[0] == fake[1]


def test_a_kill_at_any_file_that_a_search_writes(faces, fake, tmp_path, monkeypatch):
    whole = search(tmp_path / "whole", faces, trials=3, method="random")
    columns = ["number", "learning_rate", "optimizer", "score", "status", "epochs"]
    write, written = files.write, []

    def write_or_die(path, text):
        written.append(path)
        if len(written) == kill_at:
            raise KeyboardInterrupt
        write(path, text)

    monkeypatch.setattr(files, "write", write_or_die)
    was_killed, kills = True, 0
    while was_killed:
        fake.clear()
        written.clear()
        kills, out = kills + 1, tmp_path / str(kills)
        kill_at = kills
        with contextlib.suppress(KeyboardInterrupt):
            search(out, faces, trials=3, method="random")
        was_killed, kill_at = len(written) >= kills, 0
        table = search(out, faces, trials=3, method="random")
        pd.testing.assert_frame_equal(table[columns], whole[columns])
        assert len(fake) <= 3 + was_killed
        assert len(pd.read_csv(out / "trials.csv")) == 3
    assert kills > 10


def test_a_failing_trial_is_recorded_and_the_search_continues(faces, fake, tmp_path, capsys):
    fake.fails, told = (2, 3, 4, 5), []
    table = search(tmp_path, faces, trials=7, on_trial=told.append, verbose=True)
    assert list(table.status == "failed") == [False, True, True, True, True, False, False]
    assert table.reason[1] == "MemoryError: no room for a tensor of shape [128, 9000]"
    assert [len(t) for t in told] == [1, 2, 3, 4, 5, 6, 7]
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("trial ")]
    assert len(lines) == 7 and "MemoryError" in lines[1] and "val accuracy" in lines[0]
    written = pd.read_csv(tmp_path / "trials.csv")
    assert list(written.columns) == list(table.columns) and len(written) == 7
    assert list(written.score) == pytest.approx(list(table.score), nan_ok=True)


def test_a_search_in_which_all_fails_says_why(faces, fake, tmp_path):
    fake.fails = (1, 2)
    search(tmp_path, faces, trials=2)
    with pytest.raises(ValueError, match="MemoryError"):
        tuning.best(tmp_path)


def test_another_search_is_refused_and_more_trials_are_not(faces, fake, tmp_path):
    search(tmp_path, faces, trials=2)
    assert len(search(tmp_path, faces, trials=4)) == 4 and len(fake) == 4
    with pytest.raises(FileExistsError, match="another search"):
        search(tmp_path, faces, trials=2, epochs=7)
    assert len(search(tmp_path, faces, trials=2, epochs=7, overwrite=True)) == 2
    assert len(fake) == 6
    with pytest.raises(ValueError, match="bayesian, hyperband, random"):
        search(tmp_path, faces, method="guess")


@pytest.mark.parametrize("model", ["residual", "vgg"])
def test_the_space_gives_recipes_of_the_base_network(model):
    from keras_tuner import HyperParameters

    base = recipes.Recipe(model=model, options={"crop": 40}, epochs=7)
    hp = HyperParameters()
    tuning.recipe_space(hp, base)
    made = []
    for seed in range(20):
        hp.values = {v.name: v.random_sample(20 * n + seed) for n, v in enumerate(hp.space)}
        made.append((hp.values, tuning.recipe_space(hp, base)))
    assert ("blocks" in hp.values) == (model == "residual")
    assert {recipe.optimizer for _, recipe in made} == {"adamw", "sgd"}
    for values, recipe in made:
        assert recipe.model == model and recipe.epochs == 7 and recipe.options["crop"] == 40
        assert recipe.augmentation.rotation == values["augmentation"] * base.augmentation.rotation
        assert recipe.augmentation.flip and recipe.augmentation.sharp == base.augmentation.sharp
        assert recipe.options["widths"][0] == 8 * round(4 * values["width"])
    smallest = min((recipe for _, recipe in made), key=lambda recipe: recipe.options["widths"])
    models.build(smallest.model, **smallest.options)


def test_a_search_without_end_is_refused(faces, tmp_path):
    for method in ("random", "bayesian"):
        with pytest.raises(ValueError, match=f"trials is 0; {method} needs 1 or more"):
            tuning.tune(faces, tmp_path, method=method, trials=0)


def test_a_loss_that_is_no_number_fails_the_trial(tmp_path):
    def wild(hp, base):
        return base.replace(learning_rate=hp.Choice("learning_rate", [1e30, 1e29]))

    few = drawn.draw(84, seed=1)
    base = recipes.Recipe(
        model="residual",
        options={"widths": (4,), "blocks": 1},
        batch_size=16,
        optimizer="sgd",
        augmentation=None,
    )
    table = search(tmp_path, few, trials=1, epochs=2, space=wild, base=base, method="random")
    assert table.status[0] == "failed" and "FloatingPointError: The loss is" in table.reason[0]


SCRIPT = """
import sys
from ferlib import drawn, recipes, tuning
base = recipes.Recipe(model="residual", options={"widths": (4,), "blocks": 1}, batch_size=16)
def space(hp, base):
    return base.replace(learning_rate=hp.Float("learning_rate", 1e-3, 1e-1, sampling="log"))
tuning.tune(drawn.draw(140, seed=1), sys.argv[1], trials=3, epochs=4, base=base, space=space)
"""


@pytest.mark.slow
def test_sigkill_in_the_middle_of_a_trial(tmp_path):
    def start(out):
        command = [sys.executable, "-c", SCRIPT, str(tmp_path / out)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)

    killed = start("killed")
    history = tmp_path / "killed/trials/trial_1/history.csv"
    while not history.exists() and killed.poll() is None:
        time.sleep(0.02)
    killed.kill()
    killed.communicate()
    assert len(tuning.read_trials(tmp_path / "killed")) == 1
    for out in ("killed", "whole"):
        lines = start(out).communicate()[0].splitlines()
        ended = [line for line in lines if line.startswith("trial ")]
        assert len(ended) == (2 if out == "killed" else 3)
    tables = [tuning.read_trials(tmp_path / out) for out in ("killed", "whole")]
    columns = ["number", "learning_rate", "score", "epochs", "status"]
    pd.testing.assert_frame_equal(tables[0][columns], tables[1][columns])


def test_several_processes_and_one_share_their_books(faces, fake, tmp_path, monkeypatch):
    fake.stops = (3,)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, faces, method="random")
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", str(distributed._free_port()))
    served = []
    serve = "keras_tuner.src.distribute.oracle_chief.start_server"
    monkeypatch.setattr(serve, served.append)
    assert len(search(tmp_path, faces, method="random")) == 2
    (oracle,) = served
    assert sorted(oracle.trials) == ["0", "1", "2"]
    assert oracle.create_trial("worker-0").trial_id == "2"
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "worker-0")
    with pytest.raises(ValueError, match="not that of the chief's search"):
        search(tmp_path, faces, method="random", epochs=7)
    with pytest.raises(ValueError, match="all machines have to share"):
        search(tmp_path / "elsewhere", faces, method="random")


@pytest.fixture
def chief(faces, fake, tmp_path, monkeypatch):
    """Gives a function that starts a chief, or starts it again: its oracle, which nobody serves."""
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "1")
    monkeypatch.setattr(distributed, "BEAT", 0.02)
    served = []
    monkeypatch.setattr("keras_tuner.src.distribute.oracle_chief.start_server", served.append)

    def start(trials=3):
        search(tmp_path, faces, method="random", trials=trials)
        return served[-1]

    return start


def end(oracle, trial, out):
    """Ends a trial as a worker does."""
    oracle.update_trial(trial.trial_id, {"val_accuracy": 0.5})
    trial.status = "COMPLETED"
    files.write_json(out / f"trials/trial_{trial.trial_id}/end.json", {"seconds": 1})
    oracle.end_trial(trial)


def copy(trial):
    """Gives what a worker knows of a trial: no more than gRPC has brought."""
    return type(trial).from_proto(trial.to_proto())


def test_trials_of_a_lost_machine_go_to_others_and_count_once(chief, tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "LOST", 0.2)
    oracle = chief()
    lost = copy(oracle.create_trial("host-b-0"))
    for _ in range(2):
        end(oracle, copy(oracle.create_trial("worker-0")), tmp_path)
    assert oracle.create_trial("worker-0").status == "IDLE"  # it may be needed yet
    files.write(tmp_path / "workers/host-b/alive", "1 1")
    deadline = time.monotonic() + 60
    while oracle.ongoing_trials and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (tmp_path / "workers/host-b/lost").exists() and oracle.tuner_ids == {"worker-0"}
    again = copy(oracle.create_trial("worker-0"))
    assert (again.trial_id, again.status) == (lost.trial_id, "RUNNING")
    assert again.hyperparameters.values == lost.hyperparameters.values
    for trial in (again, lost):  # the lost machine comes back
        end(oracle, trial, tmp_path)
    assert sorted(oracle.end_order) == ["0", "1", "2"]
    assert oracle.create_trial("worker-0").status == "STOPPED"
    table = tuning.read_trials(tmp_path)
    assert list(table.number) == [0, 1, 2] and (table.status == "completed").all()


def test_a_lost_machine_that_ends_its_trial_first_is_believed(chief, tmp_path):
    oracle = chief(trials=2)
    lost, other = (copy(oracle.create_trial(name)) for name in ("host-b-0", "worker-0"))
    oracle.give_up("host-b", 0)
    end(oracle, lost, tmp_path)
    end(oracle, other, tmp_path)
    assert sorted(oracle.end_order) == ["0", "1"]
    assert oracle.create_trial("worker-0").status == "STOPPED"


def test_a_machine_that_comes_back_with_fewer_workers(chief, tmp_path):
    oracle = chief()
    trials = [copy(oracle.create_trial(f"host-b-{n}")) for n in range(3)]
    oracle.give_up("host-b", 1)
    assert list(oracle.ongoing_trials) == ["host-b-0"]
    retried = {oracle.create_trial(name).trial_id for name in ("host-b-1", "host-1")}
    assert retried == {trial.trial_id for trial in trials[1:]}
    oracle.give_up("host", 0)
    assert set(oracle.ongoing_trials) == {"host-b-0", "host-b-1"}


def test_a_chief_that_is_started_again_lets_other_machines_train_on(chief, tmp_path):
    oracle = chief()
    theirs = oracle.create_trial("host-b-0").trial_id
    ours = oracle.create_trial("worker-0").trial_id
    files.write(tmp_path / "workers/host-b/alive", "1 1")
    oracle = chief()
    assert oracle.create_trial("worker-1").trial_id == ours
    assert oracle.create_trial("host-b-0").trial_id == theirs
    (tmp_path / "workers/host-b/alive").unlink()
    oracle = chief()
    retried = {oracle.create_trial(f"worker-{n}").trial_id for n in range(2)}
    assert retried == {ours, theirs}


NOTE = """
import os, pathlib, socket, sys, time
from ferlib import distributed
distributed.end_with_supervisor()
out, name = pathlib.Path(sys.argv[1]), os.environ["KERASTUNER_TUNER_ID"]
(out / f"{name}.part").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
(out / f"{name}.part").replace(out / f"{name}.gpu")
if name == "chief":
    server = socket.create_server(("127.0.0.1", int(os.environ["KERASTUNER_ORACLE_PORT"])))
    while len(list(out.glob("*.gpu"))) < 4:
        time.sleep(0.02)
"""


@pytest.mark.parametrize(
    ("named", "listed", "expected"),
    [
        (None, 2, ["-1", "0", "1", "0"]),
        (None, 0, ["all"] * 4),
        ("3,GPU-8932f937", 0, ["-1", "3", "GPU-8932f937", "3"]),
        ("-1", 2, ["-1"] * 4),
    ],
)
def test_each_worker_has_a_gpu_of_its_own(named, listed, expected, tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    lines = "".join(f"GPU {n}: NVIDIA H100 (UUID: GPU-{n})\n  MIG 1g\n" for n in range(listed))

    def nvidia_smi(command, **_):
        assert command == ["nvidia-smi", "-L"]
        if not listed:
            raise FileNotFoundError(command[0])
        return subprocess.CompletedProcess(command, 0, lines)

    monkeypatch.setattr(subprocess, "run", nvidia_smi)
    distributed.run([sys.executable, "-c", NOTE, tmp_path], tmp_path, workers=3)
    names = ("chief", "worker-0", "worker-1", "worker-2")
    assert [(tmp_path / f"{name}.gpu").read_text() for name in names] == expected


def test_workers_share_the_cores_that_a_machine_has_allotted(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 4, 7}, raising=False)
    for workers, share in ((0, "4"), (1, "4"), (2, "2"), (9, "1")):
        assert distributed._environment("h", "1", workers)["OMP_NUM_THREADS"] == share


def test_trials_csv_is_written_anew(faces, fake, tmp_path):
    search(tmp_path, faces)
    (tmp_path / "trials.csv").write_text("what a kill left behind")
    assert len(search(tmp_path, faces)) == len(pd.read_csv(tmp_path / "trials.csv")) == 5


SUPERVISOR = """
import signal, sys
from ferlib import distributed
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
out, workers, *command = sys.argv[1:]
distributed.run([sys.executable, "-c", *command], out, workers=int(workers))
"""

IDLE = """
import os, socket, time
from ferlib import distributed
distributed.end_with_supervisor()
if "chief" in os.environ["KERASTUNER_TUNER_ID"]:
    server = socket.create_server(("127.0.0.1", int(os.environ["KERASTUNER_ORACLE_PORT"])))
    while True:
        server.accept()[0].close()
elif {dies}:
    os._exit(3)
time.sleep(900)
"""

TRIAL = """
import pathlib, psutil, sys
from ferlib import drawn, recipes, tuning
from keras_tuner.engine.base_tuner import BaseTuner
out = pathlib.Path(sys.argv[1])
form = {"model": "residual", "options": {"widths": (4,), "blocks": 1}}
base = recipes.Recipe(**form, batch_size=16, augmentation=None)
def space(hp, base):
    rate = hp.Float("learning_rate", 1e-4, 1e-2, sampling="log")
    return base.replace(learning_rate=rate, optimizer=hp.Choice("optimizer", ["adamw", "sgd"]))
end = BaseTuner.on_trial_end
def end_and_die(self, trial):
    end(self, trial)
    if trial.trial_id == "1" and not (out / "died").exists():
        (out / "died").touch()
        psutil.Process().kill()
BaseTuner.on_trial_end = end_and_die
faces = drawn.draw(140, seed=1)
tuning.tune(faces, out, trials=5, epochs=6, base=base, space=space, method="random")
"""


def supervise(out, script, workers=2):
    command = [sys.executable, "-c", SUPERVISOR, str(out), str(workers), script, str(out)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, text=True, **pipes)


def children(supervisor):
    """Gives the processes that a supervisor started, by their id as tuners."""
    found = psutil.Process(supervisor.pid).children()
    return {p.environ().get("KERASTUNER_TUNER_ID", ""): p for p in found}


def wait_for(what, process, seconds=900):
    """Gives what a function gives as soon as that is something, while a process runs."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            if found := what():
                return found
        except (OSError, ValueError, psutil.NoSuchProcess):
            pass
        time.sleep(0.02)
    raise AssertionError(f"not seen; {process.poll()} {process.poll() and process.communicate()}")


def in_the_middle(out):
    """Gives the tuner and the folder of a trial that has trained an epoch and has not ended."""
    ongoing = json.loads((out / "trials/oracle.json").read_text())["ongoing_trials"]
    for tuner, number in ongoing.items():
        folder = out / f"trials/trial_{number}"
        if (folder / "history.csv").exists() and not (folder / "model.keras").exists():
            return tuner, folder


def check_trials(out, values, count=5):
    """Checks that each of `count` trials ended once, with the values that it ought to have."""
    table = tuning.read_trials(out)
    assert list(table.number) == list(range(count)) and (table.status == "completed").all()
    columns = ["number", "learning_rate", "optimizer"]
    pd.testing.assert_frame_equal(table[columns], values[columns])
    written = pd.read_csv(out / "trials.csv", keep_default_na=False)
    pd.testing.assert_frame_equal(written, table, check_dtype=False)
    books = json.loads((out / "trials/oracle.json").read_text())
    assert (
        sorted(books["end_order"]) == sorted(books["start_order"]) == list(map(str, range(count)))
    )
    for path in out.glob("trials/trial_*/trial.json"):
        (score,) = json.loads(path.read_text())["metrics"]["metrics"]["val_accuracy"][
            "observations"
        ]
        assert len(score["value"]) == 1


@pytest.mark.slow
def test_dead_workers_are_started_again_and_no_trial_is_lost(faces, fake, tmp_path):
    values = search(tmp_path / "one", faces, method="random")  # drawn alike in one process
    out = tmp_path / "several"
    supervisor = supervise(out, TRIAL)
    tuner, folder = wait_for(lambda: in_the_middle(out), supervisor)
    children(supervisor)[tuner].kill()
    told = supervisor.communicate(timeout=1800)[0]
    assert supervisor.returncode == 0, told
    assert (out / "died").exists()
    assert len(re.findall(f"{KILLED}.*; it is started again", told)) == 2
    assert f"{tuner} {KILLED}" in told and told.count("val accuracy") == 5
    check_trials(out, values)
    assert list(pd.read_csv(folder / "history.csv").epoch) == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_a_dead_supervisor_or_chief_stops_all_and_one_process_continues(faces, fake, tmp_path):
    values = search(tmp_path / "one", faces, method="random")
    out = tmp_path / "several"
    supervisor = supervise(out, TRIAL)
    wait_for(lambda: in_the_middle(out), supervisor)
    several = children(supervisor)
    chief = several["chief"]
    sockets = (getattr(chief, "net_connections", None) or chief.connections)()
    listens = [s.laddr.ip for s in sockets if s.status == psutil.CONN_LISTEN]
    assert [ip.removeprefix("::ffff:") for ip in listens] == ["127.0.0.1"]
    supervisor.kill()
    assert len(several) == 3 and not psutil.wait_procs(several.values(), timeout=120)[1]
    supervisor = supervise(out, TRIAL)
    table = out / "trials.csv"  # is written a moment after the trial of its last row has ended
    wait_for(lambda: table.exists() and len(pd.read_csv(table)) >= 2, supervisor)
    several = wait_for(lambda: len(children(supervisor)) == 3 and children(supervisor), supervisor)
    several["chief"].kill()
    told = supervisor.communicate(timeout=300)[0]
    assert supervisor.returncode == 1 and f"The chief {KILLED}" in told
    assert len(several) == 3 and not any(p.is_running() for p in several.values())
    kept = {p: p.stat().st_mtime_ns for p in out.glob("trials/trial_*/metrics.json")}
    assert len(kept) >= 2 and len(pd.read_csv(out / "trials.csv")) >= 2
    subprocess.run([sys.executable, "-c", TRIAL, str(out)], check=True, stdout=subprocess.DEVNULL)
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    check_trials(out, values)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_no_process_outlives_the_supervisor(name, tmp_path):
    if name == "SIGINT" and sys.platform == "win32":
        pytest.skip("Windows sends Ctrl-C to all processes of a console, not to one")
    supervisor = supervise(tmp_path, IDLE.format(dies=False), workers=3)
    several = wait_for(lambda: len(children(supervisor)) == 4 and children(supervisor), supervisor)
    second = supervise(tmp_path, IDLE.format(dies=False))
    assert "is in use by process" in second.communicate()[0] and second.returncode == 1
    supervisor.kill() if name == "SIGKILL" else supervisor.send_signal(getattr(signal, name))
    supervisor.communicate(timeout=120)
    _, left = psutil.wait_procs(several.values(), timeout=120)
    assert supervisor.returncode and not left


def test_a_worker_that_dies_again_and_again_is_given_up(tmp_path):
    supervisor = supervise(tmp_path, IDLE.format(dies=True), workers=1)
    told = supervisor.communicate(timeout=600)[0]
    assert supervisor.returncode == 1 and told.count("it is started again") == 4
    assert "worker-0 ended with status 3, 5 times without finishing a trial: given up" in told


def test_addresses(tmp_path):
    for wrong in ("nowhere", "host:", ":80"):
        with pytest.raises(ValueError, match="such as 10.0.0.5:8000"):
            distributed.run([], tmp_path, workers=1, address=wrong)
    for wrong in ("worker", "..", "a/b"):
        with pytest.raises(ValueError, match="give letters and digits"):
            distributed.run([], tmp_path, workers=1, join="127.0.0.1:80", name=wrong)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(RuntimeError, match="listens at .* already"):
            distributed.run([], tmp_path, workers=1, address=address)


FORMULA = """
import json, sys, time
from ferlib import drawn, training, tuning
def train(recipe, data, out, **_):
    time.sleep(0.05 * recipe.epochs)
    recipe.to_json(out / "recipe.json")
    accuracy = 0.5 + 10 * recipe.learning_rate
    (out / "metrics.json").write_text(json.dumps({"val_accuracy": accuracy}))
training.train = train
def space(hp, base):
    return base.replace(learning_rate=hp.Float("learning_rate", 1e-4, 1e-2, sampling="log"))
faces = drawn.draw(140, seed=1)
table = tuning.tune(faces, sys.argv[1], method="hyperband", trials=0, epochs=9, space=space)
print("ended", len(table))
"""


@pytest.mark.slow
def test_hyperband_in_several_processes(tmp_path):
    supervisor = supervise(tmp_path, FORMULA, workers=3)
    told = supervisor.communicate(timeout=1800)[0]
    table = tuning.read_trials(tmp_path)
    assert supervisor.returncode == 0 and f"ended {len(table)}" in told, told
    assert list(table.number) == list(range(len(table))) and len(table) > 10
    assert table.epochs.max() == 9 and (table.status == "completed").all()
    marks = list((tmp_path / "trials").glob("worker-*.json"))
    assert len(marks) == 3  # each worker ended a trial
    for path in tmp_path.glob("trials/trial_*/recipe.json"):
        init = json.loads(path.read_text())["init"]
        assert not init or tmp_path in (path.parent / init).resolve().parents


@pytest.mark.slow
def test_tune_on_several_machines(tmp_path):
    address = f"127.0.0.1:{distributed._free_port()}"
    options = "--data drawn:140 --method random --trials 3 --epochs 1 --json".split()
    command = [sys.executable, "-m", "ferlib", "tune", "--out", str(tmp_path), *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    first = subprocess.Popen([*command, "--workers", "1", "--address", address], **pipes)
    other = subprocess.Popen([*command, "--workers", "1", "--join", address], **pipes)
    answers = []
    for process in (first, other):
        answer, told = process.communicate(timeout=1800)
        assert process.returncode == 0, told
        answers.append(json.loads(answer))
    assert [row["number"] for row in answers[0]] == [0, 1, 2]
    assert answers[1] == {"joined": address}
    started = [path.stem for path in (tmp_path / "trials").glob("*-0.json")]
    assert len(started) == 2 and "worker-0" in started


def three_hosts():
    """Gives the experiment that makes hosts of network namespaces, or skips."""
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("needs Linux, root and `ip` (iproute2), to make hosts of its own")
    path = ROOT / "experiments" / "three_hosts.py"
    spec = importlib.util.spec_from_file_location("three_hosts", path)
    hosts = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hosts)
    return hosts


@pytest.mark.slow
def test_a_chief_listens_only_at_its_address(tmp_path):
    hosts = three_hosts()

    def answers(host, address, port):
        reach = f"import socket; socket.create_connection(({address!r}, {port}), 5)"
        return hosts.on(host, [sys.executable, "-c", reach], tmp_path / "reach.log").wait() == 0

    with hosts.network():
        for host, address in ((hosts.A, "10.78.0.1"), (hosts.B, "10.78.0.2")):
            hosts.sh(f"ip -n {host} address add {address}/24 dev eth0")  # a second network
        everywhere = [sys.executable, "-m", "http.server", "8001"]
        other = hosts.on(hosts.A, everywhere, tmp_path / "other.log")
        places = [(hosts.B, "10.77.0.1"), (hosts.B, "10.78.0.1"), (hosts.A, "127.0.0.1")]
        wait_for(lambda: all(answers(*place, 8001) for place in places), other)
        command = [sys.executable, "-m", "ferlib", "tune", "--out", tmp_path / "search"]
        command += "--data drawn:140 --trials 1 --workers 0 --address 10.77.0.1:8000".split()
        chief = hosts.on(hosts.A, command, tmp_path / "chief.log")
        wait_for(lambda: answers(*places[0], 8000), chief)
        assert [answers(*place, 8000) for place in places[1:]] == [False, False]
        assert chief.poll() is None
