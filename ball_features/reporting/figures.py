"""Figures as inline SVG: pure functions of numbers, readable in light and dark, without a library to load."""

from __future__ import annotations

import base64
import html
import io
import json
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np

from ball_features.dataset.manifest import spread_rows
from ball_features.evaluation.metrics import BINS, confidence_bins

__all__ = [
    "LEAST_BIN",
    "PALETTE",
    "STYLES",
    "bars",
    "embedding_map",
    "heat_table",
    "lines",
    "reliability",
    "reliability_points",
    "roc_points",
    "thumbnail",
]

# Okabe and Ito 2008: told apart with the common forms of colour blindness.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
STYLES = 3  # of a point: full, a ring, full within a ring; so many times the palette can be told apart
LEAST_BIN = 20  # images of a bin whose accuracy says something: its standard error is below 12 points
_LEFT, _TOP, _BOTTOM, _WIDTH, _HEIGHT, _LINE = 56, 6, 38, 320, 240, 14
_DIAGONAL = f'<path d="M{_LEFT} {_TOP + _HEIGHT}L{_LEFT + _WIDTH} {_TOP}" class="guide"/>'


def roc_points(positive: np.ndarray, score: np.ndarray, points: int = 200) -> np.ndarray:
    """The ROC curve, (points, 2) of false and true positive rate, thinned.

    Args:
        positive: bool (images,), not all alike.
        score: float (images,).
        points: At most so many.
    """
    from sklearn.metrics import roc_curve

    curve = np.column_stack(roc_curve(positive, score, drop_intermediate=False)[:2])
    return curve[spread_rows(len(curve), points)]


def reliability_points(truth: np.ndarray, probability: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Mean confidence, accuracy and images of each bin of confidence that has images, (bins, 3): the bins of the ECE.

    Args:
        truth: int (images,).
        probability: float (images, classes).
        bins: Of equal width.
    """
    confidence, hit = probability.max(1), probability.argmax(1) == truth
    place = confidence_bins(confidence, bins)
    each = ((confidence[place == b], hit[place == b]) for b in np.unique(place))
    return np.array([[own.mean(), right.mean(), len(own)] for own, right in each])


def reliability(points: np.ndarray, title: str, legend: str = "") -> str:
    """A reliability diagram: a disc a bin, its area the share of images; small bins are pale and no line joins them.

    Args:
        points: From `reliability_points`.
        title: Alternative text and caption.
        legend: Second line of the caption.
    """
    ticks = [(share, f"{share:g}") for share in (0, 0.5, 1)]
    parts = [_axes("confidence", "accuracy", ticks, ticks), _DIAGONAL]
    large = points[points[:, 2] >= LEAST_BIN]
    path = "L".join(f"{_x(x):.1f} {_y(y):.1f}" for x, y, _ in large)
    if len(large) > 1:
        parts.append(f'<path d="M{path}" fill="none" stroke="{PALETTE[0]}" stroke-width="1.5"/>')
    for x, y, count in points:
        radius = 2 + 10 * np.sqrt(count / points[:, 2].sum())
        pale = "" if count >= LEAST_BIN else ' opacity=".3"'
        word = f"{count:.0f} images: confidence {x:.3f}, accuracy {y:.3f}"
        parts.append(
            f'<circle cx="{_x(x):.1f}" cy="{_y(y):.1f}" r="{radius:.1f}" fill="{PALETTE[0]}"{pale}>'
            f"<title>{word}</title></circle>"
        )
    return _figure("".join(parts), title, html.escape(legend))


def _x(share: float) -> float:
    return _LEFT + share * _WIDTH


def _y(share: float) -> float:
    return _TOP + (1 - share) * _HEIGHT


def _axes(
    x_label: str, y_label: str, ticks_x: Sequence[tuple[float, str]], ticks_y: Sequence[tuple[float, str]]
) -> str:
    parts = [f'<rect x="{_LEFT}" y="{_TOP}" width="{_WIDTH}" height="{_HEIGHT}" class="frame"/>']
    for share, text in ticks_x:
        for line, words in enumerate(textwrap.wrap(text, 11)):
            y = _HEIGHT + 22 + _LINE * line
            parts.append(f'<text x="{_x(share):.0f}" y="{y}" text-anchor="middle">{html.escape(words)}</text>')
    for share, text in ticks_y:
        parts.append(f'<text x="{_LEFT - 5}" y="{_y(share) + 4:.0f}" text-anchor="end">{html.escape(text)}</text>')
    bottom = _HEIGHT + 22 + _LINE * _lines_of(ticks_x)
    parts.append(f'<text x="{_x(0.5):.0f}" y="{bottom}" text-anchor="middle">{html.escape(x_label)}</text>')
    turned = f'transform="rotate(-90 11 {_y(0.5):.0f})"'
    parts.append(f'<text x="11" y="{_y(0.5):.0f}" text-anchor="middle" {turned}>{html.escape(y_label)}</text>')
    return "".join(parts)


def _lines_of(ticks: Sequence[tuple[float, str]]) -> int:
    return max((len(textwrap.wrap(text, 11)) for _, text in ticks), default=1)


def _round_ticks(low: float, high: float, least_step: float = 0.0) -> list[float]:
    """Three to six round numbers from low to high, the last of them at high or beyond."""
    high = high if high - low > 1e-9 else low + 1
    rough = (high - low) / 5
    power = 10.0 ** np.floor(np.log10(rough))
    step = max(next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999), least_step)
    first, last = np.ceil(low / step - 1e-9), np.ceil(high / step - 1e-9)
    return [float(step * number) + 0.0 for number in np.arange(first, last + 1)]


def lines(
    series: Mapping[str, np.ndarray],
    title: str,
    x_label: str,
    y_label: str,
    *,
    diagonal: bool = False,
    names_x: Sequence[str] = (),
) -> str:
    """Lines with a legend, as a figure.

    Args:
        series: Name -> float (points, 2).
        title: Alternative text and caption.
        x_label: Of the axis.
        y_label: Of the axis.
        diagonal: Both axes from 0 to 1, with the line of equality.
        names_x: What stands below x = 0, 1, ...; numbers if empty.
    """
    every = np.concatenate([points for points in series.values() if len(points)] or [np.zeros((1, 2))])
    if diagonal:
        low, high = np.zeros(2), np.ones(2)
        at_x = at_y = [0.0, 0.5, 1.0]
    else:
        low, high = np.minimum(every.min(0), [np.inf, 0]), every.max(0)
        at_y = _round_ticks(low[1], high[1])
        high[1] = at_y[-1]
        # Epochs: whole numbers, none behind the last.
        at_x = [tick for tick in _round_ticks(low[0], high[0], 1.0) if tick <= high[0]]
    if names_x:
        low[0], high[0], at_x = -0.5, len(names_x) - 0.5, list(range(len(names_x)))
    span = np.maximum(high - low, 1e-9)
    ticks_x = [
        ((tick - low[0]) / span[0], names_x[place] if names_x else f"{tick:g}") for place, tick in enumerate(at_x)
    ]
    ticks_y = [((tick - low[1]) / span[1], f"{tick:g}") for tick in at_y]
    parts = [_axes(x_label, y_label, ticks_x, ticks_y)]
    if diagonal:
        parts.append(_DIAGONAL)
    dashes = ("", "6 3", "2 2", "8 3 2 3")
    for number, points in enumerate(series.values()):
        place = (points - low) / span
        colour, dash = PALETTE[number % 8], dashes[number % 4]
        if len(place) == 1:  # one point makes no line
            parts.append(f'<circle cx="{_x(place[0, 0]):.1f}" cy="{_y(place[0, 1]):.1f}" r="3" fill="{colour}"/>')
            continue
        path = "L".join(f"{_x(x):.1f} {_y(y):.1f}" for x, y in place)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>')
    legend = "".join(
        f'<span><i style="background:{PALETTE[number % 8]}"></i>{html.escape(name)}</span> '
        for number, name in enumerate(series)
    )
    return _figure("".join(parts), title, legend, _LINE * (_lines_of(ticks_x) - 1))


def _figure(content: str, title: str, legend: str = "", more_px: int = 0) -> str:
    box = f"0 0 {_LEFT + _WIDTH + 12} {_HEIGHT + _BOTTOM + 8 + more_px}"
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
            f'<span><i class="s{value // 8 % STYLES}" style="--c:{PALETTE[value % 8]}"></i>{html.escape(item)}</span> '
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
