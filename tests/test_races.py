"""Races against peers: ratios with their intervals, bars, budgets, and one machine a table."""

import importlib
import json
import sys
import time

import numpy as np
import pytest

from cvlab import run

sys.path.insert(0, str(run.book_root()))

import experiments._timing as timing

races = importlib.import_module("experiments.races.__main__")

pytestmark = pytest.mark.house
MACHINE = {"cpu": "A", "cores": 2, "system": "Linux", "date": "2026-11-29"}


@pytest.fixture
def results(monkeypatch, tmp_path):
    monkeypatch.setattr(timing, "RESULTS", tmp_path / "experiments" / "results")
    monkeypatch.setattr(timing, "machine", lambda *packages: MACHINE)
    timing.RESULTS.mkdir(parents=True)
    return timing.RESULTS / "races.json"


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["races", *arguments])
    return races.main()


def rows_of(ratio, holds="yes"):
    return [
        {
            "what": "x",
            "ours": "cvlab",
            "peer": "p",
            "ratio": ratio,
            "low": ratio,
            "high": ratio,
            "bar": 1,
            "holds": holds,
        }
    ]


def test_all_races_together_take_at_most_half_an_hour():
    assert sum(race.seconds + races.GRACE for race in races.RACES.values()) <= 1800


def test_the_interval_holds_the_ratio_and_grows_with_the_scatter():
    random = np.random.default_rng(0)
    narrow, wide = (races.interval(random.normal(50, s, 9), random.normal(100, s, 9)) for s in (0.5, 20))
    assert narrow[1] <= narrow[0] <= narrow[2] and narrow[0] == pytest.approx(0.5, abs=0.02)
    assert wide[2] - wide[1] > 5 * (narrow[2] - narrow[1])


def test_a_bar_holds_only_where_the_whole_interval_does():
    assert [races.verdict(*ends, 1.0, 9) for ends in ((0.5, 0.9), (0.9, 1.1), (1.05, 1.2))] == ["yes", "open", "no"]
    assert [races.verdict(ratio, ratio, 1.0, 1) for ratio in (0.5, 1.5)] == ["open", "open"]


def test_a_race_keeps_to_its_budget_and_every_peer_of_a_table_gets_a_row(monkeypatch):
    race = races.Race("boxes", 1, 1, bars=(("NMS", "cvlab", "peer", 0.6),))
    monkeypatch.setattr(timing, "recorder", recorder := races.Recorder(race, 1))
    slow = {"cvlab": lambda: time.sleep(0.05), "peer": lambda: time.sleep(0.1), "other": lambda: time.sleep(0.1)}
    began = time.perf_counter()
    timing.table("NMS, 20 boxes", timing.side_by_side(slow, rounds=1000, warm_up=0), "peer")
    assert time.perf_counter() - began < 2
    first, second = recorder.rows
    assert (first["peer"], first["bar"], second["peer"], second["bar"]) == ("peer", 0.6, "other", None)
    assert first["ratio"] == pytest.approx(0.5, abs=0.1) and 1 < first["rounds"] < 20


def test_a_race_of_its_own_module_is_not_written_over_by_a_run_of_all(monkeypatch, results):
    monkeypatch.setattr(timing, "recorder", object())
    timing.write("boxes", {})
    assert list(results.parent.iterdir()) == []


def test_results_of_two_machines_never_stand_in_one_table(monkeypatch, results, capsys):
    monkeypatch.setattr(races, "race_apart", lambda name, *limits: [{"race": name, **rows_of(0.5)[0]}])
    results.write_text(json.dumps({"machine": MACHINE | {"cpu": "B"}, "rows": [{"race": "fcn"}]}))
    with pytest.raises(ValueError, match="can't stand in one table"):
        call(monkeypatch, "boxes")
    assert json.loads(results.read_text())["machine"]["cpu"] == "B"
    assert call(monkeypatch) == 0  # all of them anew
    assert {row["race"] for row in json.loads(results.read_text())["rows"]} == set(races.RACES)


def test_one_race_anew_keeps_the_others_rows_of_the_same_machine(monkeypatch, results):
    monkeypatch.setattr(races, "race_apart", lambda name, *limits: [{"race": name, **rows_of(0.5)[0]}])
    results.write_text(
        json.dumps({"machine": MACHINE | {"date": "before"}, "rows": [{"race": "fcn", "what": "y", "missing": "z"}]})
    )
    call(monkeypatch, "boxes")
    assert [row["race"] for row in json.loads(results.read_text())["rows"]] == ["boxes", "fcn"]


def test_a_bar_that_fails_shows_in_the_exit_status(monkeypatch, results):
    monkeypatch.setattr(races, "race_apart", lambda name, *limits: [{"race": name, **rows_of(1.5, "no")[0]}])
    assert call(monkeypatch, "boxes") == 1


def test_a_peer_that_is_not_installed_says_so_in_its_row(monkeypatch):
    monkeypatch.setitem(races.RACES, "none", races.Race("not_there", 1, 1))
    assert "not_there" in races.race("none", 1)[0]["missing"] and timing.recorder is None


@pytest.mark.parametrize(
    ("code", "fault"),
    [("import time; time.sleep(60)", "had not ended after 2 s"), ("raise SystemExit(3)", "exit status 3"), ("", None)],
)
def test_what_a_race_has_measured_is_kept_when_it_does_not_end_well(monkeypatch, code, fault):
    program = f'print(\'{{"what": "x"}}\', flush=True); {code}'
    run_it, command = races.subprocess.run, [sys.executable, "-c", program]
    monkeypatch.setattr(races.subprocess, "run", lambda _, **options: run_it(command, **options))
    first, *rest = races.race_apart("fcn", 1, 2)
    assert (first["race"], first["what"]) == ("fcn", "x")
    assert [fault in row["missing"] for row in rest] == ([True] if fault else [])


def test_an_unknown_race_is_refused(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        call(monkeypatch, "boxen")
    assert "boxen: no such race; there are boxes, explain" in capsys.readouterr().err


def test_the_peers_are_pinned():
    import side_environment

    assert {"keras-hub", "xplique", "tf-keras-vis"} <= {pin.partition("==")[0] for pin in side_environment.peers()}
