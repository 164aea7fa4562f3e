"""Claims of the text, asserted where they stand and printed with what was measured; and answers to exercises.

What holds for any dataset is a `check`. What the text says about the book's own data, such as a measured accuracy, is
a `claim`: a lesson with a `dataset` parameter makes `claim = Claims(dataset == "scenes")`, and with a reader's own data
its claims are skipped and counted.
"""

import hashlib
import os
from typing import Any

import numpy as np

# How many claims this kernel skipped, and how many did not hold but were only reported: for the summary of a run.
tally = {"skipped": 0, "failed": 0}


def check(
    name: str,
    value: Any,
    at_least: float | None = None,
    at_most: float | None = None,
    *,
    equals: Any = None,
    digits: int | None = None,
) -> None:
    """Assert a claim of the text, and print it with its bound and with what was measured.

    nbval compares the line but for what was measured, which another processor may change.

    Args: name: the claim, "accuracy of the frozen model". value: a number; for `equals` also an array or text; without
        any bound, True or False. NaN never passes. at_least, at_most: bounds, allowed themselves. equals: what it must
        be, floats to so many `digits` (6); without `equals`, `digits` prints the value, where no processor changes it.
    Raises: AssertionError that names claim, value and bound; with CVLAB_CHECKS=report in the environment, for runs with
        other parameters than the book's, it is printed instead.
    """
    good, line, found, expected = judge(name, value, at_least, at_most, equals, digits)
    if not good and os.environ.get("CVLAB_CHECKS") != "report":
        raise AssertionError(f"{name}: {found}, expected {expected}")
    tally["failed"] += not good
    if good and digits is None and not (at_least is None and at_most is None):
        line += f" · measured {measured(value)}"
    print(f"✓ {line}" if good else f"✗ {name}: {found}, expected {expected}")


def measured(value: Any) -> str:
    """Write a measured number for a reader: three digits, thousands in full."""
    number = np.asarray(value)[()]
    return f"{number:,.0f}" if number.dtype.kind != "f" or 1000 <= abs(number) < 1e9 else f"{number:.3g}"


class Claims:
    """Claims about the book's own data: checked where a lesson runs on that data, skipped and counted elsewhere.

    Args: book_data: True where the lesson runs on the book's own data.
    """

    def __init__(self, book_data):
        self.book_data, self.skipped = bool(book_data), 0

    def __call__(self, name, value, at_least=None, at_most=None, *, equals=None, digits=None):
        """Check a claim about the book's own data, or skip it.

        Args: as of `check`; value may be a function without arguments, for what other data may not have.
        """
        if not self.book_data:
            self.skipped += 1
            tally["skipped"] += 1
            return
        check(name, value() if callable(value) else value, at_least, at_most, equals=equals, digits=digits)

    def label(self):
        """Say, where the reader's data is another, that what follows shows the book's own."""
        if not self.book_data:
            print("○ What follows shows the book's own data, not yours:")

    def summary(self):
        """Say at the end of a lesson how many claims were skipped; nothing where all were checked."""
        if self.skipped:
            claims, were = ("claim", "was") if self.skipped == 1 else ("claims", "were")
            print(f"○ {self.skipped} {claims} about the book's own data {were} skipped")


def exercise(
    name: str,
    answer: Any,
    at_least: float | None = None,
    at_most: float | None = None,
    *,
    equals: Any = None,
    sealed: str | None = None,
    digits: int | None = None,
    hint: str = "",
) -> None:
    """Say whether an exercise's answer is right; a wrong one gets the hint, never a traceback, and not the solution.

    Args: answer: what `check` takes, or a function without arguments that gives it: then its errors are told in words.
        sealed: in place of `equals`, what `seal` gives for the right answer, so that the cell does not tell it.
    """
    try:
        value = answer() if callable(answer) else answer
        if value is None or value is Ellipsis:
            line = f"○ {name}: no answer yet. Write it above, run that cell, then this one."
        elif sealed is not None:
            good, found = seal(name, value, digits) == sealed, str(np.asarray(value).tolist())
            line = f"✓ {name}: {found}. That is right." if good else f"✗ {name}: {found} is not right yet. {hint}"
        else:
            good, claim, found, _ = judge(name, value, at_least, at_most, equals, digits)
            line = f"✓ {claim}. That is right." if good else f"✗ {name}: {found}, and that is not right yet. {hint}"
    except Exception as error:  # the reader's code may raise anything
        line = f"✗ {name}: {type(error).__name__}: {str(error).rstrip('.')}. {hint}"
    print(line.rstrip())


def seal(name: str, answer: Any, digits: int | None = None) -> str:
    """Give twelve characters that tell the right answer of an exercise from others, and do not tell what it is.

    Args: name: the exercise's. answer: a number, text, or an array of either; numbers count to so many `digits` (6).
    """
    values = np.asarray(answer)
    if values.dtype.kind in "biuf":  # + 0: minus zero is zero
        texts = [
            f"{value:.{6 if digits is None else digits}f}" for value in np.round(values.ravel().astype(float), 9) + 0
        ]
        texts = [text.replace("-0.", "0.") if float(text) == 0 else text for text in texts]
    else:
        texts = [str(value) for value in values.ravel()]
    return hashlib.sha256("\n".join([name, str(values.shape), *texts]).encode()).hexdigest()[:12]


def judge(
    name: str,
    value: Any,
    at_least: float | None = None,
    at_most: float | None = None,
    equals: Any = None,
    digits: int | None = None,
) -> tuple:
    """Compare a value with what is asked of it → (does it hold?, the claim, what was found, what was expected)."""
    if equals is None and at_least is None and at_most is None and digits is None:
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"check: {name!r} is {value!r}, not True or False: give at_least, at_most or equals")
        return bool(value), name, str(value), "True"
    given, wanted = np.asarray(value), np.asarray(0.0 if equals is None else equals)
    kinds = [f"{'numbers' if a.dtype.kind in 'biuf' else 'text'} of shape {a.shape}" for a in (given, wanted)]
    if kinds[0] != kinds[1]:
        return False, name, *(k.replace("numbers of shape ()", "one number").replace(" of shape ()", "") for k in kinds)
    if equals is None:
        bounds = " and ".join(
            f"{sign} {b if isinstance(b, int) else f'{b:.6g}'}"
            for sign, b in (("≥", at_least), ("≤", at_most))
            if b is not None
        )
        good = not np.isnan(given) and (at_least is None or given >= at_least) and (at_most is None or given <= at_most)
        shown = name if digits is None else f"{name} = {given:.{digits}f}"
        return bool(good), f"{shown} {bounds}".strip(), str(given[()]), bounds or "a number"
    floats, digits = "f" in given.dtype.kind + wanted.dtype.kind, 6 if digits is None else digits
    same = abs(given - wanted) <= 0.5 * 10.0**-digits if floats else given == wanted
    if wanted.ndim:
        agree = f"all {wanted.size:,} values agree" + f" to {digits} digits" * floats
        return bool(same.all()), f"{name}: {agree}", f"{np.sum(~same):,} of {wanted.size:,} values differ", agree
    line = f"{name} = {wanted:.{digits}f}" if floats else f"{name} = {wanted}"
    return bool(same), line, str(given), str(wanted) + f" to {digits} digits" * floats
