"""cvlab/engine/drawings.py: a chart's faults are found, and a chart without any has none."""

import pytest

from cvlab import show
from cvlab.engine import drawings


def chart(**more):
    drawing, ax = show.axes(4, 3, **more)
    ax.plot([0, 1, 2], [0, 1, 4], label="a curve")
    ax.set(xlabel="steps", ylabel="loss", title="Loss by step")
    return drawing, ax


def test_a_plain_chart_has_no_faults():
    drawing, ax = chart()
    ax.legend(loc="upper left")
    assert drawings.faults(drawing) == []


def test_text_beyond_the_edge_is_found():
    drawing, ax = chart()
    ax.annotate("far out to the right", (2, 4), (40, 0), textcoords="offset points", annotation_clip=False)
    ax.texts[0].set_in_layout(False)
    assert "outside the figure" in drawings.faults(drawing)[0]


def test_labels_on_each_other_are_found():
    drawing, ax = chart()
    ax.text(1, 2, "first label")
    ax.text(1.02, 2.02, "second label")
    assert drawings.faults(drawing) == ["the texts 'first label' and 'second label' overlap"]


def test_a_legend_over_data_is_found():
    drawing, ax = chart()
    ax.legend(loc="lower left")
    assert drawings.faults(drawing) == ["the legend covers data"]


def test_missing_ticks_are_found_but_not_on_an_image():
    drawing, ax = chart()
    ax.set_yticks([])
    assert drawings.faults(drawing) == ["its y axis has no ticks"]
    drawing, ax = show.axes(3, 3)
    ax.imshow([[0, 1], [1, 0]])
    ax.set(xticks=[], yticks=[])
    assert drawings.faults(drawing) == []


def test_what_an_axis_that_is_off_would_say_is_no_fault():
    drawing, ax = show.axes(2, 2)
    ax.plot([0, 1], [0, 1])
    ax.set_xticks([0.5, 0.51], ["a long label", "another long label"])
    assert drawings.faults(drawing)
    ax.axis("off")
    assert drawings.faults(drawing) == []


def test_under_strict_a_figure_with_a_fault_is_an_error_that_names_it(monkeypatch):
    drawing, ax = chart()
    ax.set_yticks([])
    assert show.figure(drawing, caption="A chart.", alt="a rising curve")
    monkeypatch.setenv("CVLAB_FIGURES", "strict")
    with pytest.raises(ValueError, match="figure: its y axis has no ticks"):
        show.figure(drawing, caption="A chart.", alt="a rising curve")
