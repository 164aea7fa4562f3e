"""What is wrong with a chart, as a reader would see it: text cut off or on other text, a legend over data, no ticks.

The book's own lessons are executed with the environment variable CVLAB_FIGURES=strict, under which a figure with such
a fault is an error (see `cvlab.page.img`).
"""

from collections.abc import Iterator
from typing import Any

SLACK = 1.5  # pixels: what nobody sees


def faults(drawing: Any) -> list[str]:
    """List the faults of a matplotlib figure, each as a short sentence; drawing it is left to the caller."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(drawing).draw()  # texts have a size once they were drawn
    return [*outside(drawing), *overlapping(drawing), *covered(drawing), *without_ticks(drawing)]


def texts(drawing: Any, slanted: bool = True) -> Iterator[tuple[str, Any]]:
    """Give (text, its box in pixels) of all that is written in a figure, without what is slanted if so asked."""
    from matplotlib.text import Text

    renderer, absent = drawing.canvas.get_renderer(), undrawn(drawing)
    for each in drawing.findobj(Text):
        upright = each.get_rotation() % 90 == 0
        if each.get_visible() and each.get_text().strip() and each not in absent and (slanted or upright):
            yield each.get_text().replace("\n", " "), each.get_window_extent(renderer)


def undrawn(drawing: Any) -> set:
    """Give the texts that are not drawn: of axes that are off or hidden, and of ticks outside their axis."""
    from matplotlib.text import Text

    absent = set()
    for axes in drawing.axes:
        if not axes.get_visible():
            absent.update(axes.findobj(Text))
        for axis in (axes.xaxis, axes.yaxis):
            if not axes.axison or not axis.get_visible():
                absent.update(axis.findobj(Text))
            low, high = sorted(axis.get_view_interval())
            room = 1e-6 * (high - low)
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not low - room <= tick.get_loc() <= high + room:
                    absent.update((tick.label1, tick.label2))
    return absent


def outside(drawing: Any) -> Iterator[str]:
    """Texts that the figure's edge cuts off."""
    whole = drawing.bbox
    for text, box in texts(drawing):
        beyond = max(whole.x0 - box.x0, whole.y0 - box.y0, box.x1 - whole.x1, box.y1 - whole.y1)
        if beyond > SLACK:
            yield f"the text {text!r} lies outside the figure"


def overlapping(drawing: Any) -> Iterator[str]:
    """Texts that are written over each other."""
    written = list(texts(drawing, slanted=False))
    for i, (text, box) in enumerate(written):
        for other, there in written[i + 1 :]:
            wide = min(box.x1, there.x1) - max(box.x0, there.x0)
            high = min(box.y1, there.y1) - max(box.y0, there.y0)
            if wide > SLACK and high > 2 * SLACK:  # the boxes of lines of text touch
                yield f"the texts {text!r} and {other!r} overlap"


def covered(drawing: Any) -> Iterator[str]:
    """Legends that lie over points of a line or of a scatter plot."""
    import numpy as np

    for axes in drawing.axes:
        legend = axes.get_legend()
        if legend is None or not legend.get_visible():
            continue
        box = legend.get_window_extent(drawing.canvas.get_renderer())
        points = [line.get_transform().transform(np.asarray(line.get_xydata(), float)) for line in axes.lines]
        points += [
            group.get_offset_transform().transform(np.ma.filled(group.get_offsets(), np.nan))
            for group in axes.collections
            if len(group.get_offsets())
        ]
        for part in points:
            x, y = np.asarray(part).reshape(-1, 2).T
            if ((x > box.x0) & (x < box.x1) & (y > box.y0) & (y < box.y1)).any():
                yield "the legend covers data"
                break


def without_ticks(drawing: Any) -> Iterator[str]:
    """Axes that show data and no numbers or names to read it by."""
    for axes in drawing.axes:
        shows_data = (axes.lines or axes.collections) and not axes.images and axes.get_label() != "<colorbar>"
        if not axes.axison or not axes.get_visible() or not shows_data:
            continue
        if not any(len(each.get_xticks()) for each in axes.get_shared_x_axes().get_siblings(axes)):
            yield "its x axis has no ticks"
        if not any(len(each.get_yticks()) for each in axes.get_shared_y_axes().get_siblings(axes)):
            yield "its y axis has no ticks"
