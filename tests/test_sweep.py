"""`python -m cvlab sweep`: what a grid means, and that a table is whole whatever stopped the sweep before."""

import collections
import csv
import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from cvlab import __main__ as command
from cvlab import records, run, sweep

pytestmark = pytest.mark.house

PARAMETERS = "seed = 0\nlearning_rate = 0.1\nwait = 0.0\ntrace = ''\nsizes = [32]"
LESSON = """
import os, time
from cvlab.check import check
time.sleep(wait)
if trace:
    with open(trace, 'a') as file:
        file.write(f'{seed} {learning_rate}\\n')
check('product', learning_rate * (seed + 1), at_least=0)
check('seeds', seed, at_most=90)
if seed == 99:
    raise ValueError('seed is 99')
"""


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A book with one short lesson, where the commands of this process and of others find it."""
    cells = [new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}), new_code_cell(LESSON)]
    (tmp_path / "chapters" / "week1").mkdir(parents=True)
    (tmp_path / "chapters" / "profiles").mkdir()
    (tmp_path / "chapters" / "profiles" / "quick.yml").write_text("week1/small: {}\n")
    nbformat.write(new_notebook(cells=cells), tmp_path / "chapters" / "week1" / "small.ipynb")
    monkeypatch.setenv("CVLAB_BOOK", str(tmp_path))
    return tmp_path


# What a grid means


def test_a_grid_is_names_with_values_and_ranges():
    assert sweep.expand(["learning_rate=1e-3,1e-2", "seed=0..2,7"]) == {
        "learning_rate": ["1e-3", "1e-2"],
        "seed": ["0", "1", "2", "7"],
    }


def test_commas_in_brackets_and_quotes_separate_nothing():
    assert sweep.expand(["sizes=[32,64],[96]"]) == {"sizes": ["[32,64]", "[96]"]}
    assert sweep.split("{'a, b': 1},(2,3),'c,d'") == ["{'a, b': 1}", "(2,3)", "'c,d'"]


def test_every_combination_is_one_run_and_equal_ones_are_one(book):
    runs = sweep.plan("week1/small", "quick", sweep.expand(["seed=0..2", "learning_rate=0.1,1e-1,0.2"]))
    assert len(runs) == 6
    assert {"seed": 2, "learning_rate": 0.2} in runs.values() and {} in runs.values()


def test_a_runs_digest_changes_with_its_parameters_and_its_code(book):
    before = records.run_digest("week1/small", {"seed": 1})
    assert before == records.run_digest("week1/small", {"seed": 1, "learning_rate": 0.1})
    assert before != records.run_digest("week1/small", {"seed": 2})
    path = book / "chapters" / "week1" / "small.ipynb"
    path.write_text(path.read_text().replace("seed is 99", "seed is too large"))
    assert before != records.run_digest("week1/small", {"seed": 1})


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["none", "--grid", "seed=1"], ["none", "week1/small"]),
        (["small", "--grid", "sedes=1"], ["sedes", "seed"]),
        (["small", "--grid", "seed=1.5"], ["seed", "1.5", "int"]),
        (["small", "--grid", "seed=1,many"], ["many", "int"]),
        (["small", "--grid", "seed"], ["'seed'", "NAME=VALUE"]),
        (["small", "--grid", "seed=4..0"], ["4..0"]),
        (["small", "--grid", "seed=1", "seed=2"], ["seed twice"]),
        (["small", "--grid", "seed=1", "-p", "seed", "2"], ["seed", "-p"]),
        (["small", "--grid", "seed=0..9999", "learning_rate=1,2"], ["10,000"]),
    ],
)
def test_a_wrong_grid_gets_one_line_and_status_2_before_anything_runs(book, capsys, monkeypatch, arguments, told):
    monkeypatch.setattr(sweep, "check_installed", lambda: None)
    monkeypatch.setattr(sweep, "connected", lambda *_: pytest.fail("started a cluster"))
    assert command.main(["sweep", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1
    assert all(word in err for word in told), err


def test_without_dask_one_line_says_what_to_install(book, capsys, monkeypatch):
    monkeypatch.setattr(sweep.importlib.util, "find_spec", lambda name: None)
    assert command.main(["sweep", "small", "--grid", "seed=1"]) == 2
    err = capsys.readouterr().err
    assert "dask[distributed] and pyarrow" in err and "pip install -e '.[sweep]'" in err


# What is written


def result(seed=1, outcome="held"):
    claims = [
        {"name": "product", "value": 0.1 * seed},
        {"name": "labels", "value": [1, 2]},
        {"name": "seed", "value": 1},
    ]
    counts = {"held": 2, "failed": 0, "skipped": 0}
    ran_on = {"device": "CPU", "date": "2026-11-29T00:00:00Z", "commit": "abc", "error": None}
    times = {"seconds": 1.5, "cpu_seconds": 1}
    parameters = {"seed": seed, "sizes": [32]}
    metrics = {"parameters": parameters, "outcome": outcome, "claims": claims, "counts": counts, **ran_on, **times}
    return {"metrics": metrics, "notebook": b"{}"}


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_run_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    def full(path, value):
        path.write_text('{"half')
        raise OSError(28, "No space left on device")

    folder = sweep.Folder(tmp_path)
    with monkeypatch.context() as disk:
        disk.setattr(records, "write", full)
        with pytest.raises(OSError, match="No space left"):
            folder.put("abc", result())
    assert files(tmp_path) == [] and folder.measured("abc") is None
    folder.put("abc", result())
    assert files(tmp_path) == ["runs/abc/lesson.ipynb", "runs/abc/metrics.json"]
    assert folder.measured("abc")["parameters"] == {"seed": 1, "sizes": [32]}


def test_what_a_killed_sweep_left_half_written_is_taken_away(tmp_path):
    pytest.importorskip("filelock")
    (tmp_path / "runs" / ".abc.partial").mkdir(parents=True)
    (tmp_path / "runs" / ".abc.partial" / "metrics.json").write_text("{")
    (tmp_path / ".results.csv.partial").write_text("run,")
    with sweep.Folder(tmp_path).alone():
        assert files(tmp_path) == [".lock"]


def test_two_sweeps_do_not_write_into_one_folder(tmp_path):
    pytest.importorskip("filelock")
    with (
        sweep.Folder(tmp_path).alone(),
        pytest.raises(run.CommandError, match="another sweep is at work"),
        sweep.Folder(tmp_path).alone(),
    ):
        pass


def test_a_failed_run_is_kept_apart_until_it_succeeds(tmp_path):
    folder = sweep.Folder(tmp_path)
    folder.put("abc", result(outcome="cell failed"))
    assert files(tmp_path) == ["failed/abc/lesson.ipynb", "failed/abc/metrics.json"] and folder.measured("abc") is None
    folder.put("abc", result(outcome="claims failed"))
    assert files(tmp_path) == ["runs/abc/lesson.ipynb", "runs/abc/metrics.json"]


def test_the_table_is_the_same_as_parquet_and_as_csv(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [sweep.row_of(f"run{seed}", result(seed)["metrics"], ["seed", "sizes"]) for seed in range(3)]
    del rows[2]["product"]
    sweep.Folder(tmp_path).write_table(rows, ["seed", "sizes"])
    table = parquet.read_table(tmp_path / "results.parquet").to_pylist()
    assert [row["seed"] for row in table] == [0, 1, 2] and [row["product"] for row in table] == [0, 0.1, None]
    assert table[0]["sizes"] == "[32]" and "labels" not in table[0] and table[0]["seed (2)"] == 1
    with open(tmp_path / "results.csv", newline="") as file:
        listed = list(csv.DictReader(file))
    assert [{k: "" if v is None else str(v) for k, v in row.items()} for row in table] == listed
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


def test_without_nvidia_there_are_no_gpus_and_with_a_list_those_of_the_list(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert sweep.gpus_here() == ["2", "3"] and sweep.default_workers(["2", "3"]) == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert sweep.gpus_here() == []


# Sweeps, and what stops them


def start(book, *words, wait=0.0, scheduler=None):
    """Start a sweep as a user does, in a session of its own; its output comes as text."""
    pytest.importorskip("distributed")
    command = [sys.executable, "-m", "cvlab", "sweep", "small", "-o", str(book / "out")]
    command += ["-p", "trace", str(book / "trace"), "-p", "wait", str(wait), *words]
    command += ["--scheduler", scheduler] if scheduler else ["--workers", "2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=book, start_new_session=True, **pipes)


def finish(process):
    said = process.communicate(timeout=300)[0]
    return process.returncode, said


def wait_for(condition, what, seconds=60):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"no {what} within {seconds} s"
        time.sleep(0.05)
    return value


def complete(book):
    return len(list((book / "out" / "runs").glob("[!.]*/metrics.json")))


def kernels(process):
    """List the processes below one that are kernels, and the workers above them."""
    import psutil

    below = psutil.Process(process.pid).children(recursive=True)
    return [(child, child.parent()) for child in below if "ipykernel" in " ".join(child.cmdline())]


def assert_whole(book, seeds):
    """Make sure that the table has a row for each seed, none twice, and that nothing half-written is left."""
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = parquet.read_table(book / "out" / "results.parquet").to_pylist()
    assert sorted(row["seed"] for row in rows) == [*seeds]
    assert len({row["run"] for row in rows}) == len(rows) == complete(book)
    assert all(row["product"] == pytest.approx(0.1 * (row["seed"] + 1)) for row in rows)
    assert not [name for name in files(book / "out") if "partial" in name]


def test_a_sweep_runs_each_once_and_goes_on_where_values_are_added(book):
    status, said = finish(start(book, "--grid", "seed=0,1"))
    assert status == 0 and "Dask's dashboard: http://127.0.0.1:" in said, said
    assert_whole(book, range(2))
    status, said = finish(start(book, "--grid", "seed=0..2"))
    assert status == 0 and "3 runs of week1/small (quick), 2 of them complete" in said, said
    assert_whole(book, range(3))
    assert sorted((book / "trace").read_text().split("\n")) == ["", "0 0.1", "1 0.1", "2 0.1"]


def test_a_killed_worker_loses_only_its_run_which_is_tried_again(book):
    sweeping = start(book, "--grid", "seed=0..2", wait=1)
    _, worker = wait_for(lambda: kernels(sweeping), "kernel")[0]
    worker.send_signal(signal.SIGKILL)
    status, said = finish(sweeping)
    assert status == 0, said
    assert_whole(book, range(3))


@pytest.mark.weekly
def test_a_run_that_fails_has_a_row_and_is_tried_again_the_next_time(book):
    for _ in range(2):
        status, said = finish(start(book, "--grid", "seed=1,95,99"))
        assert status == 1 and "2 runs failed" not in said and "1 runs failed" in said, said
    counts = collections.Counter((book / "trace").read_text().split("\n"))
    assert counts == {"1 0.1": 1, "95 0.1": 1, "99 0.1": 2, "": 1}
    with open(book / "out" / "results.csv", newline="") as file:
        outcomes = {row["seed"]: (row["outcome"], row["error"]) for row in csv.DictReader(file)}
    assert outcomes["1"] == ("held", "") and outcomes["95"] == ("claims failed", "")
    assert outcomes["99"] == ("cell failed", "week1/small, cell 3 (In [3]): ValueError: seed is 99")


@pytest.mark.weekly
def test_after_ctrl_c_twice_a_killed_command_and_a_killed_worker_all_twelve_rows_are_there(book):
    def stopped_by(*signals, after):
        sweeping = start(book, "--grid", "seed=0..11", wait=1)
        wait_for(lambda: complete(book) >= after, f"{after} complete runs")
        left = [kernel for kernel, _ in kernels(sweeping)]
        for each in signals:
            os.killpg(sweeping.pid, each)  # as a terminal does: to the workers too
            time.sleep(0.2)
        status, _ = finish(sweeping)
        wait_for(lambda: not any(k.is_running() and k.status() != "zombie" for k in left), "end of the kernels", 20)
        return status

    assert stopped_by(signal.SIGINT, after=2) == command.STOPPED
    assert complete(book) < 12
    assert stopped_by(signal.SIGINT, signal.SIGINT, after=4) in (command.STOPPED, -signal.SIGINT, 1)
    assert stopped_by(signal.SIGKILL, after=6) == -signal.SIGKILL
    sweeping = start(book, "--grid", "seed=0..11", wait=1)
    _, worker = wait_for(lambda: kernels(sweeping), "kernel")[0]
    worker.send_signal(signal.SIGKILL)
    status, said = finish(sweeping)
    assert status == 0, said
    assert_whole(book, range(12))


@pytest.mark.weekly
def test_after_the_scheduler_was_killed_all_twelve_rows_are_there(book):
    pytest.importorskip("distributed")

    def cluster(number):
        file = book / f"scheduler{number}.json"
        dask, quiet = (
            [sys.executable, "-m", "distributed.cli"],
            {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL},
        )
        where = ["--scheduler-file", str(file)]
        options = ["--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"]
        scheduler = subprocess.Popen([*dask[:-1], f"{dask[-1]}.dask_scheduler", *where, *options], **quiet)
        address = json.loads(wait_for(lambda: file.exists() and file.read_text(), "scheduler"))["address"]
        options = ["--nthreads", "1", "--nworkers", "2", "--no-dashboard", "--death-timeout", "5"]
        workers = subprocess.Popen([*dask[:-1], f"{dask[-1]}.dask_worker", *where, *options], **quiet)
        return scheduler, workers, address

    scheduler, workers, address = cluster(1)
    sweeping = start(book, "--grid", "seed=0..11", wait=1, scheduler=address)
    wait_for(lambda: complete(book) >= 3, "three complete runs")
    scheduler.kill()
    status, said = finish(sweeping)
    workers.kill()
    assert status == 1 and "scheduler is gone" in said.splitlines()[-1], said
    assert complete(book) < 12
    scheduler, workers, address = cluster(2)
    status, said = finish(start(book, "--grid", "seed=0..11", scheduler=address, wait=1))
    scheduler.kill()
    workers.kill()
    assert status == 0, said
    assert_whole(book, range(12))


@pytest.mark.weekly
def test_after_the_disk_was_full_all_twelve_rows_are_there(book, monkeypatch, capsys):
    pytest.importorskip("distributed")
    whole = records.write

    def full(path, value):
        if complete(book) >= 4:
            path.write_text('{"half')
            raise OSError(28, "No space left on device")
        whole(path, value)

    arguments = ["sweep", "small", "--grid", "seed=0..11", "--workers", "2", "-o", str(book / "out")]
    with monkeypatch.context() as disk:
        disk.setattr(records, "write", full)
        assert command.main(arguments) == 1
    assert "No space left on device); make room" in capsys.readouterr().err
    assert complete(book) == 4
    assert command.main(arguments) == 0
    assert_whole(book, range(12))


@pytest.mark.weekly
def test_two_workers_take_at_most_0_6_of_the_time_of_one(book):
    """Twelve runs that wait and compute for a second each, one thread each; the start of the cluster counts too."""
    pytest.importorskip("distributed")
    if (os.cpu_count() or 1) < 2 or os.getloadavg()[0] > 1:
        pytest.skip("two idle cores are needed")
    seconds = {}
    for workers in (1, 2):
        began = time.monotonic()
        words = [
            "--grid",
            "seed=0..11",
            "--workers",
            str(workers),
            "-p",
            "wait",
            "2",
            "-o",
            str(book / f"out{workers}"),
        ]
        assert command.main(["sweep", "small", *words]) == 0
        seconds[workers] = time.monotonic() - began
    assert seconds[2] <= 0.6 * seconds[1], seconds
