"""Figures with caption and alt text in one call: one style for the whole book, legible on light and dark pages."""

import html
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .page import Shown, identifier, img, pixels, prose, require

# Okabe and Ito's blue, vermillion, green and purple, and a grey: 3:1 on white and on dark, apart for the colour-blind.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#6E6E6E")
STYLE = {
    "figure.facecolor": "#ffffff",
    "savefig.facecolor": "#ffffff",
    "figure.constrained_layout.use": True,
    "text.color": "#1a1a1a",
    "font.size": 11,
    "axes.titlesize": 11,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.edgecolor": "#767676",
    "grid.color": "#e3e3e3",
    "lines.linewidth": 2,
    "legend.frameon": False,
    "image.interpolation": "nearest",
    "image.cmap": "viridis",
    "svg.hashsalt": "cvlab",
}
PAGE_WIDTH = 800  # CSS pixels; large images are reduced to two pixels for each that their place in a page has


class Figure(Shown):
    """A figure in a page: body in HTML, caption, alt text.

    image: the drawing or array behind it, for `explore`; None where there isn't just one.
    """

    def __init__(self, body, caption, alt, name=None, image=None):
        require(caption=caption, alt=alt)
        self.caption, self.alt, self.image = caption, alt, image
        number = identifier("fig", name, caption, alt)
        page = f'<figure class="cv-figure" id="{number}">{body}<figcaption>{prose(caption)}</figcaption></figure>'
        super().__init__(page, f"{caption}\n[{alt}]")


def figure(
    image: Any, *, caption: str, alt: str | None, name: str | None = None, lossless: bool | None = None
) -> Figure:
    """Show a matplotlib figure or one image.

    Args: image: a matplotlib figure, or an array as in `images`. caption: what to see in it. alt: what is to be seen,
        for a reader who doesn't see it. name: makes its address in the page `#fig-name`. lossless: None chooses.
    """
    return Figure(img(image, alt, lossless), caption, alt, name, image)


def images(
    images: Sequence,
    titles: Sequence[str] | None = None,
    *,
    caption: str,
    alt: str | None,
    columns: int = 5,
    boxes: Sequence | None = None,
    box_labels: Sequence | None = None,
    display: Sequence | None = None,
    name: str | None = None,
    lossless: bool | None = None,
) -> Figure:
    """Show images in a grid that has fewer columns on a narrow page; pixels of small images are squares.

    Args: images: (N, H, W, 3), (N, H, W), or N images of any size; uint8, bool, or float in 0…1 or 0…255.
        titles: N texts. alt: one text for the whole, or N. columns: at most so many in a row.
        boxes, box_labels: for each image what `draw_boxes` takes, or None.
        display: for each image what is shown in its place, such as its large render by `Dataset.display`; None shows
            the image. Boxes remain in pixels of `images`.
    """
    shape = getattr(images, "shape", (len(images), 0, 0))
    if len(images) == 0 or len(shape) < 3 or (len(shape) == 3 and shape[2] in (3, 4)):
        raise ValueError(f"images: images has shape {shape}, expected (N, H, W, 3), (N, H, W) or a list, not one image")
    images, texts = list(images), None if isinstance(alt, str) else alt
    each = {"titles": titles, "boxes": boxes, "box_labels": box_labels, "alt": texts, "display": display}
    for key, value in each.items():
        if value is not None and len(value) != len(images):
            raise ValueError(f"images: {key} has {len(value)} entries, expected {len(images)}, one for each image")
    whole, count, columns = caption if texts else alt, len(images), min(columns, len(images))
    require(caption=caption, alt=whole)
    tiles = []
    for i, image in enumerate(images):
        large, exact = None, lossless
        if display is not None and display[i] is not None:
            large = _at_most(display[i], max(320, 2 * PAGE_WIDTH // columns))
            exact = bool(lossless) if len(large) > len(image) else lossless
        if boxes is not None and boxes[i] is not None:
            image = draw_boxes(image, boxes[i], box_labels[i] if box_labels is not None else None, large)
        elif large is not None:
            image = large
        title = f'<div class="cv-title">{prose(titles[i])}</div>' if titles is not None else ""
        tile_alt = texts[i] if texts else alt if count == 1 else f"Image {i + 1} of {count}"
        tiles.append(f"<div>{img(image, tile_alt, exact, fill=count > 1)}{title}</div>")
    least = (
        140 if columns in (2, 4) else 88
    )  # CSS pixels of a column: on a phone, two in a row rather than three and one
    cells = f"grid-template-columns:repeat(auto-fill,minmax(max({least}px,(100% - {8 * columns}px)/{columns}),1fr))"
    style = f'style="display:grid;gap:8px;max-width:{328 * columns}px;margin:auto;{cells}"'
    grid = f'<div class="cv-grid" role="group" aria-label="{html.escape(whole)}" {style}>{"".join(tiles)}</div>'
    return Figure(grid, caption, whole, name)


def feature_maps(
    maps: np.ndarray,
    *,
    caption: str,
    alt: str | None,
    columns: int = 8,
    cmap: str = "viridis",
    shared: bool = False,
    name: str | None = None,
) -> Figure:
    """Show one image's feature maps, (H, W, C), each channel stretched to its own range, or all to a shared one."""
    maps = np.asarray(maps, "float32")
    if maps.ndim != 3:
        raise ValueError(f"feature_maps: maps has shape {maps.shape}, expected (H, W, C), those of one image")
    (height, width, count), (low, high) = maps.shape, (maps.min(), maps.max()) if shared else (None, None)
    columns, gap = min(columns, count), max(1, width // 16)
    grid = np.full((math.ceil(count / columns) * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, "uint8")
    for i in range(count):
        y, x = i // columns * (height + gap), i % columns * (width + gap)
        grid[y : y + height, x : x + width] = heat(maps[..., i], cmap, low, high)
    return figure(grid, caption=caption, alt=alt, name=name, lossless=grid.size < 120_000 or None)


def curves(
    x: Any,
    series: dict,
    *,
    xlabel: str,
    ylabel: str,
    caption: str,
    alt: str | None,
    name: str | None = None,
    log_x: bool = False,
    log_y: bool = False,
    ylim: tuple[float, float] | None = None,
) -> Figure:
    """Draw a line for each series, with its name at its end; of repeated runs the mean, in a band from least to most.

    Args: x: (N,), or {name: (N,) or (runs, N)} where each series has its own. series: {name: (N,) or (runs, N)}.
    """
    from matplotlib.ticker import LogLocator

    if len(series) > len(PALETTE):
        raise ValueError(f"curves: {len(series)} series, expected at most {len(PALETTE)}: more can't be told apart")
    fig, ax = axes()
    ax.set(xlabel=xlabel, ylabel=ylabel, xscale="log" if log_x else "linear", yscale="log" if log_y else "linear")
    ends = []
    for (key, runs), colour, marker, dash in zip(series.items(), PALETTE, "os^Dv", ("-", "--", "-.", ":", (0, (5, 1)))):
        runs = np.atleast_2d(np.asarray(runs, "float64"))
        at = np.atleast_2d(np.asarray(x[key] if isinstance(x, dict) else x, "float64")).mean(0)
        if runs.shape[1:] != at.shape:
            raise ValueError(f"curves: series {key!r} has shape {runs.shape}, expected a value for each of {len(at)} x")
        ax.plot(at, runs.mean(0), color=colour, linestyle=dash, marker=marker if len(at) <= 30 else None)
        if len(runs) > 1:
            ax.fill_between(at, runs.min(0), runs.max(0), color=colour, alpha=0.2, linewidth=0)
        ends.append((runs.mean(0)[-1], at[-1], key))
    ax.set_ylim(ylim)
    if log_x and not isinstance(x, dict) and len(x) <= 8:
        ax.set_xticks(x, [f"{v:g}" for v in x])
        ax.minorticks_off()
    elif log_x:
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.minorticks_off()
    fig.draw_without_rendering()
    lowest = -math.inf
    for y, right, key in sorted(ends):
        height = ax.transData.transform((right, y))[1] * 72 / fig.dpi
        lowest = max(height, lowest + 14)  # points: the names of lines that end together stand one above the other
        ax.annotate(key, (right, y), (9, lowest - height), textcoords="offset points", va="center")
    return figure(fig, caption=caption, alt=alt, name=name)


def table(rows: Sequence[dict], *, caption: str, digits: int | None = 3, name: str | None = None) -> Any:
    """Show [{column: value}] as a table; the first column names the rows, and floats get so many digits."""
    if not rows or any(list(row) != list(rows[0]) for row in rows):
        raise ValueError("table: rows must be dictionaries, one at least, all with the same keys in the same order")
    require(caption=caption)
    written = lambda v: f"{v:.{digits}f}" if isinstance(v, (float, np.floating)) else str(v)  # noqa: E731
    cells = [[written(value) for value in row.values()] for row in rows]
    lines = [list(map(str, rows[0])), *cells]
    widths = [max(map(len, column)) for column in zip(*lines)]
    plain = "\n".join("  ".join(v.ljust(w) for v, w in zip(line, widths)).rstrip() for line in lines)
    head = "".join(f'<th scope="col">{prose(key)}</th>' for key in lines[0])
    body = "".join(
        f'<tr><th scope="row">{prose(first)}</th>{"".join(f"<td>{prose(v)}</td>" for v in rest)}</tr>'
        for first, *rest in cells
    )
    attributes = f'id="{identifier("table", name, caption, lines[0])}" aria-label="{html.escape(caption)}"'
    return Shown(
        f'<div class="cv-table" {attributes} role="region" tabindex="0" style="overflow-x:auto"><table>'
        f"<caption>{prose(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>",
        f"{caption}\n{plain}",
    )


def axes(width: float = 5.2, height: float = 3.4, **subplots: Any) -> tuple:
    """Return a matplotlib figure (an inch is 100 CSS pixels) and its axes, for `figure`; the book's style stays set."""
    import matplotlib
    from matplotlib.figure import Figure as Drawing

    matplotlib.rcParams.update(STYLE, **{"axes.prop_cycle": matplotlib.cycler(color=PALETTE)})  # type: ignore[attr-defined]
    drawing = Drawing(figsize=(width, height))
    return drawing, drawing.subplots(**subplots)


def heat(values: Any, cmap: str = "viridis", low: float | None = None, high: float | None = None) -> np.ndarray:
    """Colour (H, W) values from low to high, by default their least and greatest → (H, W, 3) uint8."""
    import matplotlib

    values = np.asarray(values, "float64")
    low, high = values.min() if low is None else low, values.max() if high is None else high
    return matplotlib.colormaps[cmap]((values - low) / (high - low or 1), bytes=True)[..., :3]


def draw_boxes(
    image: Any, boxes: Any, labels: Sequence[str] | None = None, display: np.ndarray | None = None
) -> np.ndarray:
    """Draw boxes with their labels on an image, enlarged to about 320 pixels by squares → (H, W, 3) uint8.

    Args: boxes: (N, 4) xyxy in pixels of `image`, or {name: (N, 4)}, each name in its colour.
        labels: a text for each box, in order; by default the names.
        display: (H', W', 3), what to draw on in place of `image`, such as its large render; boxes are scaled to it.
    """
    from PIL import Image, ImageDraw, ImageFont

    array, groups = pixels(image)[..., :3], boxes if isinstance(boxes, dict) else {"": boxes}
    across = array.shape[1]  # pixels that the boxes are measured in
    array = array if display is None else pixels(display)[..., :3]
    enlarged = max(1, round(320 / max(array.shape[:2])))
    canvas = Image.fromarray(array.repeat(enlarged, 0).repeat(enlarged, 1))
    scale = canvas.width / across
    thin, size = max(1, canvas.width // 320), max(14, canvas.width // 22)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size)
    colours = (PALETTE[1::-1] + PALETTE[2:]) * len(groups)
    named = [
        (np.asarray(group, "float64").reshape(-1, 4), name, colour)
        for group, name, colour in zip(groups.values(), groups, colours)
    ]
    every = [(box, name, colour) for group, name, colour in named for box in group]
    if labels is not None and len(labels) != len(every):
        raise ValueError(f"draw_boxes: labels has {len(labels)} entries, expected {len(every)}, one for each box")
    notes = []
    for i, (box, name, colour) in enumerate(every):
        if not (box[0] < box[2] and box[1] < box[3]):
            raise ValueError(f"draw_boxes: box {i} is {box.tolist()}, expected x_min < x_max and y_min < y_max")
        left, top, right, bottom = np.round(box * scale).astype(int).tolist()
        for edge, paint, width in ((0, "#ffffff", 5 * thin), (thin, colour, 3 * thin)):  # edges at pixel borders
            corners = left + edge, top + edge, max(right - 1 - edge, left + edge), max(bottom - 1 - edge, top + edge)
            draw.rectangle(corners, outline=paint, width=width)
        if label := str(labels[i]) if labels is not None else name:
            x = max(0, min(left, canvas.width - round(draw.textlength(label, font)))) + 2
            above, below = (top - size - 4 if top > size else top + 6 * thin), bottom + 4
            inside = top + 6 * thin, bottom - size - 6 * thin
            # The second name's labels stand below its boxes.
            rows = (below, *inside[::-1], above) if colour == colours[1] else (above, *inside, below)
            places = [(x, min(max(2, y), canvas.height - size - 4)) for y in rows]
            notes.append((_free(places, [draw.textbbox(*note, font) for note in notes], label, font, draw), label))
    for corner, label in notes:  # above all boxes
        draw.rectangle(draw.textbbox(corner, label, font), fill="#ffffff", outline="#ffffff", width=3)
        draw.text(corner, label, fill="#1a1a1a", font=font)
    return np.asarray(canvas)


def _free(corners, taken, label, font, draw):
    """Give the first corner at which a label covers none of those drawn before, or else the first of all."""
    for corner in corners:
        left, top, right, bottom = draw.textbbox(corner, label, font)
        if all(right < x0 or x1 < left or bottom < y0 or y1 < top for x0, y0, x1, y1 in taken):
            return corner
    return corners[0]


def _at_most(image, width):
    """Reduce an image to a width by area; a narrower one, and a drawing, stays as it is."""
    from PIL import Image

    array = pixels(image)
    if array.shape[1] <= width:
        return array
    return np.asarray(Image.fromarray(array).resize((width, round(len(array) * width / array.shape[1])), Image.BOX))
