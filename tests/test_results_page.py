"""The appendix "Results": every result is there, and every sentence is carried by what was measured."""

import json
import re
import sys

import pytest

from cvlab import run

sys.path.insert(0, str(run.book_root() / "book"))

import results_page

pytestmark = pytest.mark.house
ROOT = run.book_root()
APPENDIX = ROOT / "chapters" / "appendix"
PAGE = (APPENDIX / "results.md").read_text(encoding="utf-8")
# What an entry or another page shows under another name, or what is a part of another figure.
ELSEWHERE = {"fine_tuning_detections", "landing", "localize_short", "luck"}
SINGLE_RACES = {"boxes", "explain", "fcn", "retinanet"}  # one race at a time, on any machine; `races` has them all


@pytest.mark.parametrize("name", results_page.ENTRIES)
def test_every_sentence_holds_and_every_table_is_drawn(name):
    sources, draw = results_page.ENTRIES[name]
    if missing := [source for source in sources if not (results_page.RESULTS / f"{source}.json").exists()]:
        pytest.skip(f"{missing[0]}.json has not been measured yet")
    pieces = list(draw(*map(results_page.read, sources)))
    false = [piece.text for piece in pieces if isinstance(piece, results_page.Sentence) and not piece.holds]
    assert false == []
    assert pieces


def test_each_entry_is_on_a_page_once():
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(APPENDIX.glob("*.md")))
    assert sorted(re.findall(r"^```\{results\} (\S+)$", text, re.M)) == sorted(results_page.ENTRIES)


def test_every_file_of_results_is_on_the_page():
    shown = {source for sources, _ in results_page.ENTRIES.values() for source in sources}
    assert {path.stem for path in results_page.RESULTS.glob("*.json")} <= shown | ELSEWHERE | SINGLE_RACES


def test_no_number_of_ours_is_typed():
    text = re.sub(r"^#.*|\"0\.87 .*brackets\.", "", PAGE, flags=re.M)
    assert re.findall(r"\d+\.\d+|\d+%", text.replace("95% confidence", "")) == []


def test_a_sentence_that_no_longer_holds_is_noticed(monkeypatch):
    result = results_page.read("soft_dice")
    for row in result["rows"]:
        row["mean IoU"] = 0.5
    sentence = next(results_page.soft_dice(result))
    assert not sentence.holds


def test_provenance_names_file_date_machine_and_command():
    line = results_page.provenance(["soft_dice"])
    machine = json.loads((results_page.RESULTS / "soft_dice.json").read_text())["machine"]
    assert all(part in line for part in ("soft_dice.json", machine["date"], machine["cpu"], "-m experiments.soft_dice"))
