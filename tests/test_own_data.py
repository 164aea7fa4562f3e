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
    """Compare two texts but for small changes of their numbers, which other versions of TensorFlow bring."""
    numbers = [list(map(float, NUMBER.findall(text))) for text in (told, printed)]
    texts = [
        "\n".join(line.rstrip() for line in NUMBER.sub("#", text).strip().splitlines()) for text in (told, printed)
    ]
    return texts[0] == texts[1] and all(abs(a - b) <= 0.04 for a, b in zip(*numbers))


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


def test_numbers_may_move_a_little_and_words_may_not():
    assert alike("accuracy 0.95\n", "accuracy 0.97  \n") and not alike("accuracy 0.95", "accuracy 0.90")
    assert not alike("a circle 3", "a square 3") and not alike("1", "")
