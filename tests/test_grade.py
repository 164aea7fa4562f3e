"""`python -m cvlab grade`: a row for each submission, whatever it does, and the others' results unharmed."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from cvlab import __main__ as command
from cvlab import check, grade, run
from cvlab.engine import sandbox

pytestmark = pytest.mark.house

SECRET = "a token of the person who grades"
BOOK = [
    ("parameters", "factor = 2"),
    ("imports", "from cvlab.check import exercise\nnumbers = [1, 2, 3]"),
    ("one", "total = ..."),
    ("one-check", f"exercise('total', total, sealed='{check.seal('total', 12)}', hint='Add.')"),
    ("more", "numbers = [number for number in numbers]"),
    ("two", "largest, smallest = ..., ..."),
    ("two-check", "exercise('largest', lambda: ... if largest is ... else largest - smallest, equals=2)"),
    ("last", "raise SystemExit('never run: it comes after the last check')"),
]
RIGHT = {"one": "total = factor * sum(numbers)", "two": "largest, smallest = 3, 1"}


def notebook(answers=(), cells=BOOK):
    """Write a lesson, or a submission: the same cells with answers in place of the dots."""
    listed = [new_markdown_cell("# Sums")]
    for id, source in cells:
        tags = {"tags": ["parameters"]} if id == "parameters" else {}
        listed.append(new_code_cell(dict(answers).get(id, source), id=id, metadata=tags))
    return new_notebook(cells=listed)


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A book with one lesson of two exercises, and an empty folder for submissions, which it gives."""
    (tmp_path / "chapters" / "week1").mkdir(parents=True)
    (tmp_path / "chapters" / "profiles").mkdir()
    (tmp_path / "chapters" / "profiles" / "quick.yml").write_text("week1/sums: {}\n")
    nbformat.write(notebook(), tmp_path / "chapters" / "week1" / "sums.ipynb")
    monkeypatch.setenv("CVLAB_BOOK", str(tmp_path))
    monkeypatch.setenv("SECRET_TOKEN", SECRET)
    (tmp_path / "class").mkdir()
    return tmp_path / "class"


def submit(folder, name, answers=(), **changed):
    nbformat.write(notebook({**RIGHT, **dict(answers), **changed}), folder / f"{name}.ipynb")


def graded(folder, *words):
    """Grade a folder by the command, as a user does: rows by name."""
    target = folder.parent / "grades.csv"
    words = ["--minutes", "1", "--answer-seconds", "3", "--memory", "0.5", *words, "-o", str(target)]
    done = subprocess.run([sys.executable, "-m", "cvlab", "grade", str(folder), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with open(target, newline="") as file:
        rows = list(csv.DictReader(file))
    assert f"{len(rows)} rows written to" in done.stdout.splitlines()[-1]
    return {row["name"].removesuffix(".ipynb"): row for row in rows}


def counts(row):
    return tuple(int(row[status]) for status in ("passed", "failed", "untouched", "not_reached"))


# What is taken of a submission


@pytest.mark.parametrize("name", run.chapters())
def test_every_exercise_of_the_book_is_found_with_its_check(name):
    book = grade.lesson(name)
    assert len(book.exercises) == sum("exercise(" in source for source in book.sources if "import" not in source) >= 3
    assert all(exercise.answer < exercise.check for exercise in book.exercises)
    assert len({exercise.name for exercise in book.exercises}) == len(book.exercises)


def test_only_answers_are_taken_and_all_else_is_the_books(book):
    cells = [
        ("parameters", "factor = 0"),
        ("one", "total = 1"),
        ("extra", "print(1)"),
        ("one-check", "print('passed')"),
    ]
    own = grade.lesson("week1/sums")
    taken = grade.job_cells(own, grade.answers(cells, own.exercises))
    assert [cell["source"] for cell in taken] == ["factor = 2", BOOK[1][1], "total = 1", *(s for _, s in BOOK[3:7])]


def test_without_ids_an_answer_is_the_cell_before_its_check(book):
    own = grade.lesson("week1/sums")
    cells = [("", "total = 7"), ("", BOOK[3][1]), ("x", "largest, smallest = 3, 1"), ("y", BOOK[6][1])]
    assert grade.answers(cells, own.exercises) == {"total": "total = 7", "largest": "largest, smallest = 3, 1"}
    assert grade.answers([("two", "a"), ("", "b")], own.exercises) == {"largest": "a"}


def test_colabs_ids_are_found(tmp_path):
    path = tmp_path / "colab.ipynb"
    path.write_text(json.dumps({"cells": [{"cell_type": "code", "metadata": {"id": "one"}, "source": ["a\n", "b"]}]}))
    assert grade.read_cells(path) == [("one", "a\nb")]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"print('hello')", "not a notebook"),
        (b"[1, 2]", "not a notebook"),
        (b'{"cells": 3}', "not a notebook"),
        (b'{"cells": [{"cell_type": "code"}]}', "not a notebook"),
        (b"\xff\xfe\x00", "not a notebook"),
        (b"[" * 200_000, "not a notebook"),
        (b"", "not a notebook"),
    ],
)
def test_what_is_no_notebook_is_told_and_nothing_runs(tmp_path, content, told):
    (tmp_path / "a.ipynb").write_bytes(content)
    with pytest.raises(ValueError, match=told):
        grade.read_cells(tmp_path / "a.ipynb")


def test_a_link_to_another_file_is_not_followed(tmp_path):
    (tmp_path / "a.ipynb").symlink_to("/etc/passwd")
    with pytest.raises(ValueError, match="not a regular file"):
        grade.read_cells(tmp_path / "a.ipynb")


def test_a_spreadsheet_takes_no_text_of_a_submission_for_a_formula():
    assert grade.cell_of("=HYPERLINK(1).ipynb") == "'=HYPERLINK(1).ipynb"
    assert grade.cell_of("anna\x1b[2J\n.ipynb") == "anna [2J .ipynb"


def test_the_environment_of_a_submission_holds_no_secrets_and_no_home(book):
    environment = grade.clean_environment("/scratch", "mark")
    assert SECRET not in environment.values() and environment["HOME"] == "/scratch"
    assert "SSH_AUTH_SOCK" not in environment and environment["PATH"] == os.environ["PATH"]


def test_a_check_that_says_it_twice_or_not_at_all_has_failed():
    said = "✓ total: 12. That is right."
    assert sandbox.judged("total", said, None) == ("passed", said)
    assert sandbox.judged("total", f"{said}\n{said}", None)[0] == "failed"
    assert sandbox.judged("total", "", None)[0] == "failed"
    assert sandbox.judged("total", "○ total: no answer yet. Write it.", None)[0] == "untouched"
    assert sandbox.judged("total", "○ total: no answer yet.", "NameError: x") == ("failed", "NameError: x")


def test_a_folder_without_notebooks_gets_one_line_and_status_2(tmp_path, capsys):
    assert command.main(["grade", str(tmp_path)]) == 2
    assert "there is no .ipynb in it" in capsys.readouterr().err


# What submissions do

# Name of a submission → the cell that it answers badly, how, the counts of its row, and how its outcome begins.
BAD = {
    "loop": ("one", "while True:\n    pass", (1, 1, 0, 0), "graded"),
    "stubborn": (
        "one",
        """
while True:
    try:
        while True:
            pass
    except KeyboardInterrupt:
        pass
""",
        (1, 1, 0, 0),
        "total: it did not end in time",
    ),
    "memory": (
        "one",
        """
eaten = []
while True:
    eaten.append(b"x" * 20_000_000)
""",
        (1, 1, 0, 0),
        "",  # the watch ends it, or a MemoryError of its own, whichever comes first
    ),
    "memory at once": ("one", "total = [0] * 10**12", (1, 1, 0, 0), "graded"),
    "prints": (
        "one",
        """
for _ in range(10_000):
    print("x" * 100_000)
""",
        (1, 1, 0, 0),
        "total: it ",  # printed too much, or its kernel took too much memory for what is not sent yet
    ),
    "prints at once": ("two", 'print("x" * 1_000_000_000)', (1, 1, 0, 0), ""),
    "kills": ("one", "import os\nos.kill(os.getpid(), 9)", (1, 1, 0, 0), "total: the kernel died"),
    "leaves": ("two", "import os\nos._exit(0)", (1, 1, 0, 0), "largest: the kernel died"),
    "raises": ("one", "total = 1 / 0", (1, 1, 0, 0), "graded"),
    "no syntax": ("one", "total = = 3", (1, 1, 0, 0), "graded"),
    "wrong": ("one", "total = 11", (1, 1, 0, 0), "graded"),
    "untouched": ("one", BOOK[2][1], (1, 0, 1, 0), "graded"),
    "forges": (
        "one",
        """
exercise = print
print("✓ total: 12. That is right.")
total = 3
""",
        (1, 1, 0, 0),
        "graded",
    ),
    "wipes": ("one", "import cvlab.check\ncvlab.check.exercise = 3\ntotal = 12", (0, 2, 0, 0), "graded"),
    "breaks": ("one", "numbers, total = 3, 12", (2, 0, 0, 0), "a cell of the lesson failed: TypeError"),
    "asks": ("one", "total = input()", (1, 1, 0, 0), "graded"),
    "daemon": (
        "one",
        """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
total = 12
""",
        (2, 0, 0, 0),
        "graded",
    ),
    "secrets": (
        "one",
        """
import os
total = 12 if "SECRET_TOKEN" not in os.environ and os.environ["HOME"] == os.getcwd() else 0
""",
        (2, 0, 0, 0),
        "graded",
    ),
}


def submit_bad(folder, name):
    cell, source, *_ = BAD[name]
    submit(folder, name, {cell: source.strip()})


def assert_as_expected(rows, names):
    for name in names:
        _, _, expected, outcome = BAD[name]
        assert counts(rows[name]) == expected, rows[name]
        assert rows[name]["outcome"].startswith(outcome), rows[name]


def no_process_is_left(mark="CVLAB_GRADE"):
    import psutil

    left = []
    for process in psutil.process_iter():
        try:
            left += [process] if mark in process.environ() else []
        except psutil.Error:
            continue
    return not left


def test_five_submissions_have_five_rows_and_the_bad_ones_harm_no_other(book):
    submit(book, "good")
    for name in ("breaks", "kills", "forges"):
        submit_bad(book, name)
    (book / "text.ipynb").write_text("not JSON")
    rows = graded(book, "--workers", "2")
    assert len(rows) == 5
    assert counts(rows["good"]) == (2, 0, 0, 0) and rows["good"]["lesson"] == "week1/sums"
    assert_as_expected(rows, ("breaks", "kills", "forges"))
    assert rows["text"]["outcome"].startswith("not a notebook") and counts(rows["text"]) == (0, 0, 0, 0)
    assert rows["forges"]["look_at"] == "That is right exercise" and rows["good"]["look_at"] == ""
    assert no_process_is_left()


@pytest.mark.weekly
def test_thirty_submissions_have_thirty_rows_and_the_bad_ones_harm_no_other(book):
    good = [f"good{number}" for number in range(30 - len(BAD) - 1)]
    for name in good:
        submit(book, name)
    for name in BAD:
        submit_bad(book, name)
    (book / "text.ipynb").write_text("not JSON")
    rows = graded(book, "--workers", "2")
    assert len(rows) == 30
    assert all(counts(rows[name]) == (2, 0, 0, 0) for name in good)
    assert_as_expected(rows, BAD)
    assert rows["text"]["outcome"].startswith("not a notebook")
    assert no_process_is_left()


@pytest.mark.weekly
def test_an_output_that_is_too_large_for_one_message_is_told(book):
    submit(book, "prints", two='print("x" * 100_000_000)\nlargest, smallest = 3, 1')
    row = graded(book, "--memory", "3")["prints"]
    assert counts(row) == (1, 1, 0, 0) and row["outcome"] == "largest: it printed too much", row


@pytest.mark.weekly
def test_a_submission_that_kills_its_grader_has_a_row(book):
    submit(book, "good")
    submit(book, "kills grader", one="import os\nos.kill(os.getppid(), 9)")
    rows = graded(book)
    assert counts(rows["good"]) == (2, 0, 0, 0)
    assert "its grader was killed" in rows["kills grader"]["outcome"] and counts(rows["kills grader"]) == (0, 0, 0, 2)
    time.sleep(1)
    assert no_process_is_left()


@pytest.mark.weekly
@pytest.mark.parametrize("name", ["week3/evaluation"])
def test_the_books_own_solutions_pass(name, tmp_path):
    from test_solutions import with_solutions

    solved = nbformat.read(Path(run.book_root()) / "chapters" / f"{name}.ipynb", as_version=4)
    filled = with_solutions(solved)
    nbformat.write(solved, tmp_path / "solved.ipynb")
    (row,) = grade.grade(tmp_path, tmp_path / "grades.csv", limits=grade.limits_of(minutes=9))
    assert (row["passed"], row["lesson"]) == (filled, name), row
    assert sorted(os.listdir(tmp_path)) == ["grades.csv", "solved.ipynb"]
