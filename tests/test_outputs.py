"""The numbers in a chapter's outputs may move as much as they do from CPU to CPU, and no more."""

import pytest
from outputs import settle

pytestmark = pytest.mark.house


@pytest.mark.parametrize(
    "committed, new, same",
    [
        ("('block', 430)", "('block', 433)", True),
        ("<td>0.99</td>", "<td>1.00</td>", True),
        ("12 px, 3.00e-5", "12 px, 3.05e-5", True),
        ("0.50", "0.60", False),
        ("loss 0.012", "loss 0.014", False),
        ("class 3", "class 4", False),
        ("-0.5", "0.5", False),
        ("#a1b2c3", "#a1b2c4", False),
        ("x1 = 0.50", "x2 = 0.50", False),
        ("0.50", "nan", False),
        ("0.50 0.60", "0.50", False),
    ],
)
def test_a_number_moves_by_a_little_alone(committed, new, same):
    assert (settle(new, committed) == committed) == same


def test_outputs_are_walked_through():
    committed = [{"output_type": "stream", "text": "0.99 of PNG1"}, {"data": {"text/html": "<b>2.71</b>"}}]
    new = [{"output_type": "stream", "text": "0.98 of PNG22"}, {"data": {"text/html": "<b>2.72</b>", "more": "1"}}]
    seen = settle(new, committed, lambda text: text.split(" of PNG")[0])
    assert seen[0]["text"] == "0.99"
    assert seen[1]["data"] == {"text/html": "<b>2.71</b>", "more": "1"}
