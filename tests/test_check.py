"""Claims hold or say what is off, and tell what was measured; exercises answer without a traceback."""

import configparser
import functools
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvlab import check as module
from cvlab.check import Claims, check, exercise


@pytest.fixture(autouse=True)
def strict(monkeypatch):
    monkeypatch.delenv("CVLAB_CHECKS", raising=False)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0.8, "0.8"),
        (0.80001, "0.8"),
        (1, "1"),
        (np.float32(0.9123), "0.912"),
        (np.array(0.95), "0.95"),
        (12_345.6, "12,346"),
        (23_587_712, "23,587,712"),
        (float("inf"), "inf"),
    ],
)
def test_a_claim_that_holds_prints_its_bound_and_what_was_measured(capsys, value, told):
    check("accuracy of the frozen model", value, at_least=0.8)
    assert capsys.readouterr().out == f"✓ accuracy of the frozen model ≥ 0.8 · measured {told}\n"


def test_what_was_measured_is_not_compared_but_the_claim_is():
    rule = configparser.ConfigParser()
    rule.read(Path(__file__).with_name("nbval.cfg"), encoding="utf-8")
    clean = functools.partial(re.sub, rule["measured"]["regex"], rule["measured"]["replace"])
    committed, elsewhere = "✓ AP50 ≥ 0.8 · measured 0.873\n✓ c\n", "✓ AP50 ≥ 0.8 · measured -1.2e+03\n✓ c\n"
    assert clean(committed) == clean(elsewhere) != clean(committed.replace("0.8 ", "0.7 "))


@given(value=st.floats(allow_nan=True), low=st.floats(-1e6, 1e6), high=st.floats(-1e6, 1e6))
def test_bounds_are_those_of_plain_comparison(value, low, high):
    assert module.judge("v", value, low, high)[0] == (low <= value <= high)
    assert module.judge("v", value, low)[0] == (value >= low)
    assert module.judge("v", value, None, high)[0] == (value <= high)


def test_both_bounds_are_printed(capsys):
    check("share", 0.25, 0.2, 0.3)
    assert capsys.readouterr().out == "✓ share ≥ 0.2 and ≤ 0.3 · measured 0.25\n"


@pytest.mark.parametrize(
    ("value", "bounds", "told"),
    [
        (0.7123, {"at_least": 0.8}, "accuracy: 0.7123, expected ≥ 0.8"),
        (0.31, {"at_most": 0.3}, "accuracy: 0.31, expected ≤ 0.3"),
        (0.7999999999999, {"at_least": 0.8}, "accuracy: 0.7999999999999, expected ≥ 0.8"),
        (3, {"equals": 4}, "accuracy: 3, expected 4"),
        ("cat", {"equals": "dog"}, "accuracy: cat, expected dog"),
        (0.1436, {"equals": 1 / 7, "digits": 3}, "accuracy: 0.1436, expected 0.14285714285714285 to 3 digits"),
        (False, {}, "accuracy: False, expected True"),
        ([1, 2], {"at_least": 0}, "accuracy: numbers of shape (2,), expected one number"),
        ("0.9", {"at_least": 0.8}, "accuracy: text, expected one number"),
        (np.eye(2), {"equals": np.eye(3)}, "accuracy: numbers of shape (2, 2), expected numbers of shape (3, 3)"),
        ([1.0, 2.0, 4.0], {"equals": [1.0, 2.5, 3.0]}, "accuracy: 2 of 3 values differ"),
    ],
)
def test_a_claim_that_fails_names_itself_the_value_and_the_bound(capsys, value, bounds, told):
    with pytest.raises(AssertionError) as caught:
        check("accuracy", value, **bounds)
    assert told in str(caught.value)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "bounds", [{"at_least": 0}, {"at_most": 1}, {"equals": 1.0}, {"equals": np.nan}, {"digits": 2}]
)
@pytest.mark.parametrize("nan", [float("nan"), np.float32("nan")])
def test_nan_never_passes(bounds, nan):
    with pytest.raises(AssertionError, match="nan"):
        check("loss", nan, **bounds)


def test_one_nan_in_an_array_is_seen():
    with pytest.raises(AssertionError, match="1 of 2 values differ"):
        check("map", [0.5, np.nan], equals=[0.5, 0.5])


def test_equal_floats_print_the_expected_value_so_rounded(capsys):
    check("IoU of the two boxes", 1 / 7 + 1e-6, equals=1 / 7, digits=4)
    check("IoU of the two boxes", 1 / 7 - 1e-6, equals=1 / 7, digits=4)
    assert capsys.readouterr().out == "✓ IoU of the two boxes = 0.1429\n" * 2


def test_arrays_texts_and_truths(capsys):
    check("shape", (3, 32, 32), equals=(3, 32, 32))
    check("encode, then decode", np.eye(2) + 1e-8, equals=np.eye(2))
    check("best class", "cat", equals="cat")
    check("frozen beats from scratch by at least 20 points", np.True_)
    assert capsys.readouterr().out.splitlines() == [
        "✓ shape: all 3 values agree",
        "✓ encode, then decode: all 4 values agree to 6 digits",
        "✓ best class = cat",
        "✓ frozen beats from scratch by at least 20 points",
    ]


def test_digits_alone_print_the_value_for_nbval_to_compare(capsys):
    check("parameters, in millions", 4.6523, digits=2)
    check("IoU", 0.5, at_least=0.25, digits=2)
    assert capsys.readouterr().out == "✓ parameters, in millions = 4.65\n✓ IoU = 0.50 ≥ 0.25\n"


def test_a_number_without_a_bound_claims_nothing():
    with pytest.raises(TypeError, match="give at_least, at_most or equals"):
        check("accuracy", 0.9)


def test_a_run_with_other_parameters_can_report_instead(capsys, monkeypatch):
    monkeypatch.setenv("CVLAB_CHECKS", "report")
    check("accuracy", 0.5, at_least=0.8)
    check("accuracy", 0.9, at_least=0.8)
    assert capsys.readouterr().out == "✗ accuracy: 0.5, expected ≥ 0.8\n✓ accuracy ≥ 0.8 · measured 0.9\n"


def test_a_claim_about_the_books_data_is_a_check_with_that_data(capsys):
    claim = Claims(True)
    claim("accuracy", 0.9, at_least=0.8)
    claim("accuracy", lambda: 0.9, 0.8, 1)
    with pytest.raises(AssertionError, match=r"accuracy: 0\.5, expected ≥ 0\.8"):
        claim("accuracy", 0.5, at_least=0.8)
    claim.label()
    claim.summary()
    assert capsys.readouterr().out == "✓ accuracy ≥ 0.8 · measured 0.9\n✓ accuracy ≥ 0.8 and ≤ 1 · measured 0.9\n"


@pytest.mark.parametrize(("count", "told"), [(1, "1 claim about the book's own data was"), (3, "3 claims about")])
def test_a_claim_about_the_books_data_is_skipped_and_counted_with_other_data(capsys, count, told):
    claim = Claims(False)
    for _ in range(count):
        claim("accuracy", lambda: {}["no such class"], at_least=0.8)
    assert capsys.readouterr().out == ""
    claim.summary()
    assert capsys.readouterr().out.startswith(f"○ {told}")
    claim.label()
    assert "not yours" in capsys.readouterr().out


def test_skipped_and_failed_claims_are_tallied_for_the_run(monkeypatch):
    monkeypatch.setenv("CVLAB_CHECKS", "report")
    monkeypatch.setattr(module, "tally", {"skipped": 0, "failed": 0})
    Claims(False)("accuracy", 0.5, at_least=0.8)
    check("accuracy", 0.5, at_least=0.8)
    check("accuracy", 0.9, at_least=0.8)
    assert module.tally == {"skipped": 1, "failed": 1}


def test_an_exercise_tells_right_from_wrong_without_the_solution(capsys):
    exercise("your IoU", 0.142857, equals=1 / 7, digits=4, hint="Divide by the union.")
    exercise("your IoU", 0.25, equals=1 / 7, digits=4, hint="Divide by the union.")
    right, wrong = capsys.readouterr().out.splitlines()
    assert right == "✓ your IoU = 0.1429. That is right."
    assert wrong == "✗ your IoU: 0.25, and that is not right yet. Divide by the union."


def test_a_sealed_answer_is_told_from_others_and_does_not_show(capsys):
    sealed = module.seal("your box", [40, 1 / 7], 2)
    assert "40" not in sealed and sealed != module.seal("another exercise", [40, 1 / 7], 2)
    exercise("your box", np.float32([40.001, 0.1399]), sealed=sealed, digits=2, hint="Divide.")
    exercise("your box", [40, 0.2], sealed=sealed, digits=2, hint="Divide.")
    exercise("your box", [[40, 1 / 7]], sealed=sealed, digits=2)
    exercise("your box", lambda: [40, "a"], sealed=sealed, digits=2)
    right, *wrong = capsys.readouterr().out.splitlines()
    assert right.endswith("That is right.") and wrong[0] == "✗ your box: [40.0, 0.2] is not right yet. Divide."
    assert all(line.startswith("✗") for line in wrong)


@pytest.mark.parametrize("value", [-0.0, -1e-12, np.float32(0), 0, False])
def test_zeros_of_every_kind_have_one_seal(value):
    assert module.seal("zero", value, 3) == module.seal("zero", 0, 3)


@pytest.mark.parametrize(("digits", "same", "other"), [(None, 0.1234564, 0.1234574), (2, 1.004, 1.014), (0, 3.4, 4.4)])
def test_a_sealed_number_counts_to_its_digits_and_no_further(digits, same, other):
    answer = {None: 0.123456, 2: 1.0, 0: 3}[digits]
    sealed = module.seal("exercise", answer, digits)
    assert len(sealed) == 12 and sealed == module.seal("exercise", same, digits) != module.seal(
        "exercise", other, digits
    )
    assert module.seal("exercise", [answer], digits) != sealed  # the shape counts


def test_a_sealed_list_of_names_is_told_from_another():
    assert module.seal("names", ["a", "b"]) == module.seal("names", np.array(["a", "b"])) != module.seal("names", "a b")


@pytest.mark.parametrize("nothing", [None, ..., lambda: None])
def test_an_exercise_without_an_answer_is_open(capsys, nothing):
    exercise("your IoU", nothing, equals=0.5)
    assert capsys.readouterr().out.startswith("○ your IoU: no answer yet.")


@pytest.mark.parametrize("wrong", [lambda: 1 / 0, [[1], [1, 2]], "text", np.zeros((2, 2)), lambda: undefined])  # noqa: F821
def test_no_answer_of_a_reader_raises(capsys, wrong):
    exercise("your IoU", wrong, equals=0.5, hint="Mind the shapes.")
    out = capsys.readouterr().out
    assert out.startswith("✗ your IoU: ")
    assert out.endswith(" Mind the shapes.\n")
    assert "0.5" not in out
