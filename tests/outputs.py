"""How nbval compares a number in a chapter's output: near enough, as another CPU adds up in another order."""

import math
import re

NUMBER = re.compile(r"(?<![\w.#])\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.]*[a-zA-Z_])")
RELATIVE = 0.03


def near(committed, new):
    """Say whether two numbers, as text, are within 3 % or one unit of the committed one's last digit.

    Numbers of one digit have to be equal.
    """
    unit = 10.0 ** -len(committed.partition("e")[0].partition(".")[2]) if len(committed) > 1 else 0
    return math.isclose(float(committed), float(new), rel_tol=RELATIVE, abs_tol=unit * 1.001)


def settle(new, committed, clean=str):
    """Give `new`, with the committed number in the place of each number that is near it.

    Lists and dicts are walked through; texts that differ in anything but numbers stay as they are.

    Args:
        new, committed: outputs of a cell.
        clean: is applied to each text before, as nbval's sanitizing, which drops the pictures.
    """
    if isinstance(new, dict) and isinstance(committed, dict):
        settled = {key: settle(value, committed[key], clean) for key, value in new.items() if key in committed}
        return type(new)({**new, **settled})
    if isinstance(new, list) and isinstance(committed, list) and len(new) == len(committed):
        return [settle(one, other, clean) for one, other in zip(new, committed)]
    if not (isinstance(new, str) and isinstance(committed, str)):
        return new
    new, committed = clean(new), clean(committed)
    if NUMBER.sub("", new) != NUMBER.sub("", committed):
        return new
    theirs = iter(NUMBER.findall(committed))
    return NUMBER.sub(lambda found: own if near(own := next(theirs), found[0]) else found[0], new)
