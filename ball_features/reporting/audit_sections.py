"""The parts of an audit's page: overlays enlarged, series over file order, pairs, outliers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ball_features.audit.findings import Audit
from ball_features.audit.orientation import orient
from ball_features.audit.overlays import NO_OVERLAY
from ball_features.audit.series import Trust
from ball_features.audit.summary import AuditSummary
from ball_features.audit.traits import squared
from ball_features.dataset.manifest import spread_rows
from ball_features.reporting.charts import PALETTE, Axis, Chart, Tick, Whisker, round_ticks
from ball_features.reporting.heat import Heat, heat
from ball_features.reporting.markup import Cell, Picture, Row, Table, Thumbnails, thumbnail
from ball_features.reporting.words import counted

__all__ = ["OVERLAY_TEXT", "Figure", "Section", "audit_sections", "overlay_counts", "series_chart"]

PAIRS_SHOWN = 40
KIND_IMAGES = 15
WHOLE_IMAGES = 6
ODD_IMAGES = 24
_ZOOM_MARGIN = 0.4  # of the box, on each side
_ZOOM_PX = 240
_ROW_PX, _BAR_PX = 20, 9.0
OVERLAY_TEXT = (
    "Scale bars and text that a camera wrote into the images. A kind that goes with one class gives the class away "
    "without a look at the cells."
)


@dataclass(frozen=True)
class Figure:
    """Pictures side by side with a caption; `zoom` shows them at their own size."""

    pictures: tuple[Picture, ...]
    caption: str = ""
    zoom: bool = False


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title: heading.
        text: sentence below it.
        counts: counts as a shaded table.
        charts: a chart for wide pages and the same for narrow ones.
        figures: pictures.
        table: table below.
        folded: whether the part is closed until it is opened.
        level: level of the heading.
    """

    title: str
    text: str = ""
    counts: Heat | None = None
    charts: tuple[Chart, Chart] | None = None
    figures: tuple[Figure, ...] = ()
    table: Table | None = None
    folded: bool = False
    level: int = 2


class _Album:
    """Pictures of the images of an audit."""

    def __init__(self, found: Audit, pictures: Thumbnails) -> None:
        self._found, self._pictures = found, pictures

    def whole(self, row: int, orientation: int = 0) -> Picture:
        path = str(self._found.path[row])
        pixels = self._pictures.pixels(path)
        return Picture(path, "" if pixels is None else thumbnail(orient(squared(pixels), orientation)))

    def zoomed(self, row: int, box: tuple[int, int, int, int]) -> Picture:
        path = str(self._found.path[row])
        pixels = self._pictures.pixels(path)
        address = "" if pixels is None else thumbnail(_zoom(squared(pixels), box), _ZOOM_PX)
        return Picture(f"{path}, enlarged", address)


def audit_sections(found: Audit, pictures: Thumbnails) -> list[Section]:
    """All parts, the most telling first.

    Args:
        found: audit to show.
        pictures: the images as they were audited.
    """
    album = _Album(found, pictures)
    sections = [*_overlays(found, album), *_series(found), *_conflicts(found, album), *_pairs(found, album)]
    return [*sections, *_outliers(found, album)]


def overlay_counts(of: AuditSummary) -> Heat | None:
    """Images of each class by kind of burned-in overlay; None without overlays."""
    kinds = [kind for kind, own in of.overlays.items() if own.images]
    if kinds in ([], [NO_OVERLAY]):
        return None
    classes = list(of.classes)
    counts = np.array([[of.overlays[kind].classes.get(name, 0) for name in classes] for kind in kinds])
    title = "Images of each class, in % of the images with this overlay"
    return heat(counts, kinds, title, columns=classes, corner="overlay \\ class")


def _overlays(found: Audit, album: _Album) -> list[Section]:
    if not found.overlays.names:
        return [Section("Burned-in overlays", "None was found: no scale bar or text repeats at one place.")]
    of = AuditSummary.of(found)
    kinds = [kind for kind, own in of.overlays.items() if own.images]
    sections = [Section("Burned-in overlays", OVERLAY_TEXT, counts=overlay_counts(of))]
    for kind in kinds:
        own = np.flatnonzero(found.overlay == kind)
        box = found.overlays.box(list(found.overlays.names).index(kind)) if kind != NO_OVERLAY else _around(found)
        parts = dict(zip(*np.unique(found.label[own], return_counts=True), strict=True))
        said = ", ".join(f"{name} {count}" for name, count in parts.items())
        where = "The overlay, enlarged." if kind != NO_OVERLAY else "The place where others have one, enlarged."
        figures = [
            Figure((album.zoomed(row, box),), str(found.label[row]), zoom=True)
            for row in _spread(own, KIND_IMAGES)
            if box is not None
        ]
        figures += [Figure((album.whole(row),)) for row in _spread(own, WHOLE_IMAGES)]
        text = f"{said}. {where if box is not None else ''}"
        sections.append(Section(f"{kind}: {counted(len(own), 'image')}", text, figures=tuple(figures), level=3))
    return sections


def _series(found: Audit) -> list[Section]:
    text = (
        "Inferred from overlay, kind of file, stain and file order: likely, not known. Long unbroken bars are images "
        "that were taken one after the other; a random split puts neighbours on both sides."
    )
    charts = series_chart(found), series_chart(found, brief=True)
    sections = [Section("Likely series over file order", text, charts=charts)]
    trusted = (("series", found.series.series_trust), ("batches", found.series.batch_trust))
    return sections + [
        Section(f"Likely {title}", table=_trust_table(own, title), folded=True) for title, own in trusted
    ]


def series_chart(found: Audit, *, brief: bool = False) -> Chart:
    """Where the images of each series lie in the file order of their class; colours tell batches of one stain apart.

    Args:
        found: audit to show.
        brief: whether a row is a class instead of a series, for a narrow page.
    """
    place = np.empty(len(found.label), dtype=int)
    for name in np.unique(found.label):
        place[found.label == name] = np.arange((found.label == name).sum())
    unit = found.label if brief else found.series.series
    names, first = np.unique(unit, return_index=True)
    names = names[np.lexsort((names, found.label[first]))].tolist()
    batches = {name: np.unique(found.series.batch[unit == name]).tolist() for name in names}
    whiskers = [
        Whisker(start - 0.5, end + 0.5, row, batches[name].index(batch) % len(PALETTE), _BAR_PX, f"{batch}")
        for row, name in enumerate(names)
        for batch, start, end in _stretches(np.flatnonzero(unit == name), place, found.series.batch)
    ]
    high = float(place.max() + 1)
    ticks = tuple(Tick(tick, f"{tick:g}") for tick in round_ticks(0, high, 1.0) if tick <= high)
    return Chart(
        "Images of each " + ("class" if brief else "series") + " in the file order of their class",
        Axis(-0.5, high, ticks, "number of the file within its class", rules=True),
        Axis(len(names) - 0.5, -0.5, tuple(Tick(row, str(name)) for row, name in enumerate(names))),
        whiskers=tuple(whiskers),
        note="A colour is a batch of one stain; colours repeat.",
        plot_px=_ROW_PX * len(names),
    )


def _stretches(rows: np.ndarray, place: np.ndarray, batch: np.ndarray) -> list[tuple[str, int, int]]:
    """Batch, first and last place of each unbroken stretch of images."""
    found: list[tuple[str, int, int]] = []
    for row in rows[np.argsort(place[rows], kind="stable")].tolist():
        own, at = str(batch[row]), int(place[row])
        if found and found[-1][0] == own and found[-1][2] == at - 1:
            found[-1] = (own, found[-1][1], at)
        else:
            found.append((own, at, at))
    return found


def _conflicts(found: Audit, album: _Album) -> list[Section]:
    copies = [(rows[0], row) for rows in found.exact for row in rows[1:]]
    sections = []
    for title, linked, folded in (("Label conflicts", found.conflicts, False), ("Identical pixels", copies, True)):
        figures = tuple(
            Figure((album.whole(one), album.whole(two)), f"{found.path[one]} and {found.path[two]}")
            for one, two in linked[:PAIRS_SHOWN]
        )
        if figures:
            sections.append(Section(f"{title}: {_shown(len(figures), len(linked))}", figures=figures, folded=folded))
    return sections


def _pairs(found: Audit, album: _Album) -> list[Section]:
    rng = np.random.default_rng(0)
    sections = []
    for kind, title in (("near-duplicate", "Near-duplicates"), ("shared-field", "Overlapping fields")):
        pairs = [pair for pair in found.pairs if pair.kind == kind]
        shown = sorted(rng.permutation(len(pairs))[:PAIRS_SHOWN].tolist())
        figures = tuple(
            Figure(
                (album.whole(pair.first), album.whole(pair.second, pair.orientation)),
                f"{found.path[pair.first]} and {found.path[pair.second]}: shifted by {pair.shift_x_px}, "
                f"{pair.shift_y_px} px, correlation {pair.score:.2f}",
            )
            for pair in (pairs[place] for place in shown)
        )
        if figures:
            sections.append(Section(f"{title}: {_shown(len(shown), len(pairs))}", figures=figures, folded=True))
    return sections


def _shown(count: int, of: int) -> str:
    """How many pairs there are, and how many of them are shown."""
    return counted(of, "pair") if count == of else f"{count} of {counted(of, 'pair')}"


def _outliers(found: Audit, album: _Album) -> list[Section]:
    if not found.outlier:
        return []
    figures = tuple(
        Figure((album.whole(int(row)),), f"{found.path[row]}: {found.outlier[int(row)]}")
        for row in _spread(np.array(sorted(found.outlier)), ODD_IMAGES)
    )
    all_shown = len(figures) == len(found.outlier)
    title = f"Outliers: {len(found.outlier)}" if all_shown else f"Outliers: {len(figures)} of {len(found.outlier)}"
    return [Section(title, figures=figures, folded=True)]


def _spread(rows: np.ndarray, count: int) -> list[int]:
    """At most so many of the rows, evenly spread."""
    return rows[spread_rows(len(rows), count)].tolist()


def _around(found: Audit) -> tuple[int, int, int, int] | None:
    """The box that holds those of all kinds."""
    boxes = np.array([found.overlays.box(number) for number in range(len(found.overlays.names))]).reshape(-1, 4)
    if not len(boxes):
        return None
    left, top, right, bottom = (int(edge) for edge in (*boxes[:, :2].min(0), *boxes[:, 2:].max(0)))
    return left, top, right, bottom


def _zoom(pixels: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """The part of an image around a box, enlarged so that its longer side is 240 px."""
    from PIL import Image

    left, top, right, bottom = box
    margin = round(_ZOOM_MARGIN * max(right - left, bottom - top))
    part = pixels[max(0, top - margin) : bottom + margin, max(0, left - margin) : right + margin]
    scale = _ZOOM_PX / max(part.shape[:2])
    size = (max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale)))
    return np.asarray(Image.fromarray(part).resize(size, Image.Resampling.NEAREST))


def _trust_table(trusted: dict[str, Trust], title: str) -> Table:
    header = (title, "images", "confidence", "agreement in stain", "agreement in file order", "by chance")
    rows = tuple(
        Row(
            (
                Cell(name),
                Cell(str(own.images), float(own.images)),
                *(Cell(f"{value:.2f}", value) for value in (own.confidence, own.stain, own.order, own.chance)),
            )
        )
        for name, own in trusted.items()
    )
    return Table(header, rows, f"Likely {title}")
