"""Which lessons a test run compares, and which tests `make check` runs."""

import hashlib
import sys

import pytest

from cvlab import run

sys.path.insert(0, str(run.book_root() / "book"))

import audit
import check
import renderer
import side_environment

pytestmark = pytest.mark.house
ROOT = run.book_root()


def test_over_the_commits_every_lesson_is_audited_about_equally_often():
    names = run.chapters()
    drawn = [audit.drawn(names, hashlib.sha1(str(i).encode()).hexdigest()) for i in range(1200)]
    assert all(len(set(pair)) == 2 for pair in drawn)
    counts = [sum(name in pair for pair in drawn) for name in names]
    assert min(counts) > 150 and max(counts) < 250  # 200 each on average
    assert audit.drawn(names, "beef") == audit.drawn(names, "beef")


def test_fewer_lessons_than_asked_for_are_all_audited():
    assert audit.drawn(["one"], "beef") == ["one"] and audit.drawn([], "beef") == []


def test_what_is_out_of_date_is_compared_and_two_others(monkeypatch, capsys):
    names = run.chapters()
    monkeypatch.setattr(audit.run, "stale", lambda name: "changed" if name == names[3] else None)
    monkeypatch.setattr(sys, "argv", ["audit.py"])
    audit.main()
    listed = capsys.readouterr().out.split()
    assert listed[0] == f"chapters/{names[3]}.ipynb" and len(set(listed)) == 3
    monkeypatch.setattr(sys, "argv", ["audit.py", "--all"])
    audit.main()
    assert len(set(capsys.readouterr().out.split())) == len(names)


@pytest.mark.parametrize(
    ("changed", "tests"),
    [
        ("cvlab/explain.py", {"explain", "metrics"}),
        ("cvlab/show.py", {"show", "interact"}),
        ("cvlab/engine/memory.py", {"memory", "learn"}),
        ("tests/test_boxes.py", {"boxes"}),
        ("chapters/week4/cam.ipynb", {"house"}),
        ("book/environment.sh", {"house"}),
    ],
)
def test_a_change_runs_its_own_tests_and_those_of_what_imports_it(changed, tests):
    found = {path.stem.removeprefix("test_") for path in check.tests_of([ROOT / changed])} - {"tools"}
    assert found == tests


def test_the_renderers_tests_run_where_it_or_an_archive_has_changed(tmp_path, monkeypatch, capsys):
    for name in ("render/render.py", "render/requirements.txt", "data/toybox/eyes.zip", "data/toybox/README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("before")
    monkeypatch.setattr(renderer, "ROOT", tmp_path)
    monkeypatch.setattr(renderer, "TESTED", tmp_path / "render" / "tested.sha256")
    monkeypatch.setattr(sys, "argv", ["renderer.py"])
    assert renderer.main() == 1  # never tested
    monkeypatch.setattr(sys, "argv", ["renderer.py", "--passed"])
    renderer.main()
    monkeypatch.setattr(sys, "argv", ["renderer.py"])
    assert renderer.main() == 0
    (tmp_path / "data/toybox/README.md").write_text("after")
    assert renderer.main() == 0
    (tmp_path / "data/toybox/eyes.zip").write_text("after")
    assert renderer.main() == 1 and "has changed" in capsys.readouterr().out


def test_a_file_that_is_gone_runs_no_test_of_its_own():
    assert check.tests_of([ROOT / "tests" / "test_gone.py"]) <= {ROOT / "tests" / "test_tools.py"}


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("keras==3.13.2", True),
        ("torch @ https://elsewhere.invalid/torch.whl", False),
        ("torch==2.8.0+cpu", False),
        ("-e git+https://elsewhere.invalid/x", False),
        ("# a comment", False),
        ("", False),
    ],
)
def test_of_colabs_list_what_pypi_carries_is_taken(line, wanted):
    assert side_environment.is_on_pypi(line) == wanted


def test_colabs_versions_are_held_for_its_own_python_and_for_others_only_what_the_lessons_use(tmp_path):
    side_environment.packages("colab", side_environment.COLABS_PYTHON, tmp_path)
    all_of_it = (tmp_path / "constraints.txt").read_text().splitlines()
    side_environment.packages("colab", "3.11", tmp_path)
    some = (tmp_path / "constraints.txt").read_text().splitlines()
    assert len(all_of_it) > 500 and len(some) < 30 and set(some) < set(all_of_it)
    for lines in (all_of_it, some):
        version = next(line.partition("==")[2] for line in lines if line.startswith("tensorflow=="))
        assert f"tensorflow-cpu=={version}" in lines
        assert any(line.startswith("ipywidgets==7") for line in lines)
