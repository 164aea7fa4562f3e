"""The page "Your own data" does what it says: its blocks run in order, and print what stands below them."""

import contextlib
import io
import re
import subprocess
import sys

import pytest

from cvlab import run

pytestmark = pytest.mark.house
PAGE = run.book_root() / "chapters" / "appendix" / "own_data.md"
BLOCK = re.compile(r"^```(python|sh|text)\n(.*?)^```$", re.M | re.S)
NUMBER = re.compile(r"\d+\.?\d*")


def steps():
    """List (language, code, what it prints), in the order of the page."""
    found = []
    for language, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if language == "text":
            found[-1][2] = text
        else:
            found.append([language, text, ""])
    return found


def execute(language, code, names):
    """Run one block; give what it prints, exceptions apart."""
    if language == "sh":
        command = [sys.executable, *code.split()[1:]]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, str(PAGE), "exec"), names)
    return printed.getvalue()


def alike(told, printed):
    """Compare texts line by line: exactly, but for measured numbers, which other versions of TensorFlow may move."""
    lines = [[line.rstrip() for line in text.strip().splitlines()] for text in (told, printed)]
    return len(lines[0]) == len(lines[1]) and all(map(alike_line, *lines))


def alike_line(told, printed):
    if not re.search("accuracy|mistakes", told):
        return told == printed
    numbers = [list(map(float, NUMBER.findall(line))) for line in (told, printed)]
    same_words = NUMBER.sub("#", told) == NUMBER.sub("#", printed)
    return same_words and all(abs(a - b) <= max(0.04, 0.15 * a * (a > 1)) for a, b in zip(*numbers))


def test_every_block_runs_and_prints_what_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for language, code, told in steps():
        printed = execute(language, code, names)
        assert alike(told, printed), f"{code}\nprints\n{printed}\nand the page says\n{told}"


def test_the_page_ends_where_the_check_finds_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for language, code, _ in steps()[:4]:
        if language == "python":
            execute(language, code, names)
    checked = execute("sh", "python -m cvlab data check shapes", names)
    assert checked.rstrip().endswith("nothing is wrong")


def test_measured_numbers_may_move_a_little_and_nothing_else():
    assert alike("accuracy 0.85\n", "accuracy 0.87  \n") and not alike("accuracy 0.85", "accuracy 0.80")
    assert alike("23 mistakes, 18 of them", "22 mistakes, 17 of them") and not alike("23 mistakes", "9 mistakes")
    assert not alike("images 60", "images 61") and not alike("1", "")
