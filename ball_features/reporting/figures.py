"""Figures as inline SVG: pure functions of numbers, readable in light and dark, without a library to load."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence

import numpy as np

__all__ = ["PALETTE", "bars", "embedding_map", "heat_table", "lines", "reliability_points", "roc_points", "thumbnail"]

# Okabe and Ito 2008: told apart with the common forms of colour blindness.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
_LEFT, _BOTTOM, _WIDTH, _HEIGHT = 44, 34, 320, 240


def roc_points(positive: np.ndarray, score: np.ndarray, points: int = 200) -> np.ndarray:
    """The ROC curve, (points, 2) of false and true positive rate, thinned.

    Args:
        positive: bool (images,).
        score: float (images,).
        points: At most so many.
    """
    order = np.argsort(-score, kind="stable")
    hit, value = positive[order], score[order]
    last = np.r_[np.flatnonzero(np.diff(value)), len(value) - 1]  # ties are one step
    tpr = np.cumsum(hit)[last] / max(int(positive.sum()), 1)
    fpr = np.cumsum(~hit)[last] / max(int((~positive).sum()), 1)
    curve = np.column_stack([np.r_[0, fpr], np.r_[0, tpr]])
    return curve[np.unique(np.linspace(0, len(curve) - 1, min(points, len(curve))).astype(int))]


def reliability_points(truth: np.ndarray, probability: np.ndarray, bins: int = 10) -> np.ndarray:
    """Mean confidence and accuracy of each bin of confidence that has images, (bins, 2).

    Args:
        truth: int (images,).
        probability: float (images, classes).
        bins: Of equal width.
    """
    confidence, hit = probability.max(1), probability.argmax(1) == truth
    place = np.clip((confidence * bins).astype(int), 0, bins - 1)
    return np.array([[confidence[place == b].mean(), hit[place == b].mean()] for b in np.unique(place)])


def _axes(
    x_label: str, y_label: str, ticks_x: Sequence[tuple[float, str]], ticks_y: Sequence[tuple[float, str]]
) -> str:
    parts = [f'<rect x="{_LEFT}" y="6" width="{_WIDTH}" height="{_HEIGHT}" class="frame"/>']
    for share, text in ticks_x:
        x = _LEFT + share * _WIDTH
        parts.append(f'<text x="{x:.0f}" y="{_HEIGHT + 20}" text-anchor="middle">{html.escape(text)}</text>')
    for share, text in ticks_y:
        y = 6 + (1 - share) * _HEIGHT
        parts.append(f'<text x="{_LEFT - 4}" y="{y + 4:.0f}" text-anchor="end">{html.escape(text)}</text>')
    middle = _LEFT + _WIDTH / 2
    parts.append(f'<text x="{middle:.0f}" y="{_HEIGHT + _BOTTOM}" text-anchor="middle">{html.escape(x_label)}</text>')
    turned = f'transform="rotate(-90 10 {6 + _HEIGHT / 2:.0f})"'
    parts.append(f'<text x="10" y="{6 + _HEIGHT / 2:.0f}" text-anchor="middle" {turned}>{html.escape(y_label)}</text>')
    return "".join(parts)


def lines(series: Mapping[str, np.ndarray], title: str, x_label: str, y_label: str, *, diagonal: bool = False) -> str:
    """Lines with a legend, as a figure.

    Args:
        series: Name -> float (points, 2).
        title: Alternative text and caption.
        x_label: Of the axis.
        y_label: Of the axis.
        diagonal: Both axes from 0 to 1, with the line of equality.
    """
    every = np.concatenate([points for points in series.values() if len(points)] or [np.zeros((1, 2))])
    low, high = (np.zeros(2), np.ones(2)) if diagonal else (np.minimum(every.min(0), [np.inf, 0]), every.max(0))
    span = np.maximum(high - low, 1e-9)
    ticks = [[(share, f"{low[axis] + share * span[axis]:.3g}") for share in (0, 0.5, 1)] for axis in (0, 1)]
    parts = [_axes(x_label, y_label, *ticks)]
    if diagonal:
        parts.append(f'<path d="M{_LEFT} {6 + _HEIGHT}L{_LEFT + _WIDTH} 6" class="guide"/>')
    dashes = ("", "6 3", "2 2", "8 3 2 3")
    for number, points in enumerate(series.values()):
        place = (points - low) / span
        path = "L".join(f"{_LEFT + x * _WIDTH:.1f} {6 + (1 - y) * _HEIGHT:.1f}" for x, y in place)
        colour, dash = PALETTE[number % 8], dashes[number % 4]
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>')
    legend = "".join(
        f'<span><i style="background:{PALETTE[number % 8]}"></i>{html.escape(name)}</span> '
        for number, name in enumerate(series)
    )
    return _figure("".join(parts), title, legend)


def _figure(content: str, title: str, legend: str = "") -> str:
    box = f"0 0 {_LEFT + _WIDTH + 12} {_HEIGHT + _BOTTOM + 8}"
    name = html.escape(title)
    return (
        f'<figure><svg viewBox="{box}" role="img" aria-label="{name}">{content}</svg>'
        f"<figcaption>{name}<br>{legend}</figcaption></figure>"
    )


def bars(values: Sequence[tuple[str, float, float, float]], title: str) -> str:
    """Shares with intervals, a row each, as a figure.

    Args:
        values: (name, share, low, high), shares in [0, 1].
        title: Alternative text and caption.
    """
    rows = []
    for number, (name, share, low, high) in enumerate(values):
        y = 6 + 26 * number
        rows.append(
            f'<text x="150" y="{y + 14}" text-anchor="end">{html.escape(name)}</text>'
            f'<rect x="156" y="{y}" width="{200 * share:.1f}" height="18" fill="{PALETTE[0]}"/>'
            f'<path d="M{156 + 200 * low:.1f} {y + 9}H{156 + 200 * high:.1f}" class="whisker"/>'
            f'<text x="364" y="{y + 14}">{100 * share:.1f}</text>'
        )
    caption = html.escape(title)
    return (
        f'<figure><svg viewBox="0 0 410 {26 * len(values) + 12}" role="img" aria-label="{caption}">'
        f"{''.join(rows)}</svg>"
        f"<figcaption>{caption}</figcaption></figure>"
    )


def heat_table(counts: np.ndarray, names: Sequence[str], title: str) -> str:
    """A confusion matrix as a table: counts, and below each the share of its true class.

    Args:
        counts: int (classes, classes), rows are true classes.
        names: Of the classes.
        title: Caption.
    """
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in names)
    body = ""
    for row, name in enumerate(names):
        cells = "".join(
            f'<td style="--heat:{share[row, column]:.3f}">{counts[row, column]}<small>{100 * share[row, column]:.1f} %'
            "</small></td>"
            for column in range(len(names))
        )
        body += f'<tr><th scope="row">{html.escape(name)}</th>{cells}</tr>'
    return (
        f'<table class="heat"><caption>{html.escape(title)}</caption><thead><tr><th>true \\ predicted</th>{head}</tr>'
        f"</thead><tbody>{body}</tbody></table>"
    )


def thumbnail(pixels: np.ndarray, side_px: int = 160) -> str:
    """A small JPEG of uint8 (height, width, 3) as a data address."""
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((side_px, side_px))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=75)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def embedding_map(
    place: np.ndarray,
    text: Sequence[str],
    colourings: Mapping[str, tuple[Sequence[str], np.ndarray]],
    *,
    name: str = "map",
    pictures: Sequence[str] = (),
) -> str:
    """Points that can be coloured in several ways, with a text each, to be pointed at or walked through by arrow keys.

    Args:
        place: float (images, 2).
        text: What each point is.
        colourings: Name -> (names of the values, int (images,) value of each point); the first is shown.
        name: Unlike that of any other map of the page.
        pictures: Data address of each point's thumbnail, or none at all.
    """
    low, span = place.min(0), np.maximum(np.ptp(place, axis=0), 1e-9)
    at = (place - low) / span * (620, 420) + (10, 10)
    keys = list(colourings)
    points = "".join(
        f'<circle cx="{x:.0f}" cy="{y:.0f}" r="3.2" data-v="{" ".join(str(colourings[key][1][row]) for key in keys)}">'
        f"<title>{html.escape(text[row])}</title></circle>"
        for row, (x, y) in enumerate(at)
    )
    choices = "".join(
        f'<label><input type="radio" name="{name}-colour" value="{number}"{" checked" if not number else ""}>'
        f"{html.escape(key)}</label> "
        for number, key in enumerate(keys)
    )
    legends = "".join(
        f'<p class="legend"{" hidden" if number else ""}>'
        + "".join(
            f'<span><i style="background:{PALETTE[value % 8]}"></i>{html.escape(item)}</span> '
            for value, item in enumerate(colourings[key][0])
            if item
        )
        + "</p>"
        for number, key in enumerate(keys)
    )
    shown = stored = ""
    if pictures:
        shown = '<img class="shown" alt="" hidden> '
        stored = f'<script type="application/json" class="pictures">{json.dumps(list(pictures))}</script>'
    return (
        f'<div class="mapped"><fieldset class="colouring"><legend>Colour by</legend>{choices}</fieldset>{legends}'
        '<svg class="map" viewBox="0 0 640 440" role="application" tabindex="0" '
        f'aria-label="Map of the embeddings; arrow keys go from image to image">{points}</svg>'
        f'<p>{shown}<span class="pointed" aria-live="polite">Point at an image, or use the arrow keys, to see what it '
        f"is.</span></p>{stored}</div>"
    )
