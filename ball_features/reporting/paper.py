"""A run for a paper: its figures as files, its table for LaTeX and as CSV, each with its caption."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ball_features.cache import Cache
from ball_features.errors import DataError
from ball_features.evaluation.metrics import METRICS
from ball_features.evaluation.results import Measurement, ModelRow
from ball_features.evaluation.stored_results import read_measurement, told_as_damage
from ball_features.files import read_whole, write_csv, write_text
from ball_features.outputs import require_own_files
from ball_features.reporting.ladder_page import ladder_section
from ball_features.reporting.markup import Thumbnails, render
from ball_features.reporting.page import RunSection, run_section
from ball_features.reporting.plot import FORMATS, check_formats, draw, draw_heat, draw_map, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["others_there", "write_paper"]

_CAPTIONS = "captions.md"
_FIGURE = re.compile(
    r"((models|ladder|map|(groups|recall|reliability|roc|training|confusion)-[\w.+-]+)\.(svg|pdf|png)"
    r"|published-[\w.+-]+\.csv)"
)
_MOST_BYTES = 1 << 20  # of the captions


@dataclass(frozen=True)
class _Drawn:
    """A figure with the stem of its files and its caption."""

    stem: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class _Column:
    """A column of the table for LaTeX."""

    heading: str
    cells: tuple[str, ...]


def write_paper(
    folder: Path,
    out: Path,
    formats: Sequence[str] = FORMATS,
    cache: Cache | None = None,
    ladder: Path | None = None,
) -> list[Path]:
    """Write the figures of a run, `table.tex` (booktabs), `table.csv`, and `captions.md` with all captions.

    Figures that the captions there list and that this run lacks are removed.

    Args:
        folder: folder that `ball fit` wrote.
        out: folder to write into.
        formats: file formats of the figures, names in `FORMATS`.
        cache: cache of the run, for the map of embeddings.
        ladder: folder of a run of the protocol ladder on the same images, for its figure.

    Returns:
        The files.

    Raises:
        CacheError: The cache is not that of the run.
        ConfigError: A format is unknown.
        DataError: A folder holds no run or no ladder, or the files cannot be written.
    """
    check_formats(formats)
    with told_as_damage(folder, *([ladder] if ladder else [])):
        measurement = read_measurement(folder)
        rungs = None if ladder is None else ladder_section(ladder)
        section = run_section(folder, cache, Thumbnails(None), 0, rungs)
        drawn = _figures(section)
    table = f"{section.title}. {section.caption}"
    try:
        names = [f"{one.stem}.{ending}" for one in drawn for ending in formats]
        names += [f"published-{own.name}.csv" for own in section.published]
        names += ["table.tex", "table.csv"]
        listed = _listed(out)
        require_own_files(out, names, _CAPTIONS, "captions", made=listed or None)
        _remove_former(out, set(listed) - set(names))
        out.mkdir(parents=True, exist_ok=True)
        captions = [(one.stem, one.caption) for one in drawn]
        captions += [(f"published-{own.name}", f"{own.heading}. {own.note}") for own in section.published]
        write_text(out / _CAPTIONS, render(_CAPTIONS, table=table, captions=captions, files=names))
        files = [path for one in drawn for path in save(one.figure, out / one.stem, formats)]
        files += [out / "table.tex", out / "table.csv", out / _CAPTIONS]
        write_text(files[-3], _latex(measurement.models, table))
        write_csv(files[-2], *_rows(measurement))
        for own in section.published:
            files.insert(-1, out / f"published-{own.name}.csv")
            write_csv(files[-2], own.table.header, [[cell.text for cell in row.cells] for row in own.table.rows])
    except OSError as error:
        raise DataError(f"{out} cannot be written to ({error.strerror}). Give another folder.") from error
    return files


def others_there(out: Path, files: Collection[Path]) -> list[str]:
    """Names of files in a folder that look like figures of a run and are not among these, sorted."""
    return sorted(path.name for path in out.iterdir() if path not in files and _FIGURE.fullmatch(path.name))


def _listed(out: Path) -> list[str]:
    """Names of the files that the captions in a folder list; none in those of earlier versions."""
    try:
        text = read_whole(out / _CAPTIONS, _MOST_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    return re.findall("^- (.+)$", text.partition("\n# Files\n")[2], re.MULTILINE)


def _remove_former(out: Path, names: Iterable[str]) -> None:
    """Remove figures of a run before that this one lacks: they would pass for figures of it."""
    for name in names:
        path = out / name
        if _FIGURE.fullmatch(name) and path.is_file() and not path.is_symlink():
            path.unlink()


def _figures(section: RunSection) -> list[_Drawn]:
    charts = [("models", section.wide)]
    if section.ladder is not None:
        charts.append(("ladder", section.ladder.wide))
    kinds = {
        "groups": section.group_figures,
        "recall": section.recalls,
        "reliability": section.reliability,
        "roc": section.roc,
        "training": section.training,
    }
    charts += [(f"{kind}-{_slug(chart.title)}", chart) for kind, own in kinds.items() for chart in own]
    drawn = [_Drawn(stem, f"{chart.title}. {chart.note}".strip(), draw(chart)) for stem, chart in charts]
    for matrix in section.confusions:
        caption = f"Confusion matrix of {matrix.title}. In % of the true class, and number of images."
        drawn.append(_Drawn(f"confusion-{_slug(matrix.title)}", caption, draw_heat(matrix)))
    if section.images is not None and section.images.map is not None:
        caption = "First two principal components of the embeddings of the plain images, by class."
        drawn.append(_Drawn("map", caption, draw_map(section.images.map)))
    return _distinct(drawn)


def _distinct(drawn: Sequence[_Drawn]) -> list[_Drawn]:
    """The figures with a name each, also where letters of either case are one."""
    taken, found = set[str](), []
    for one in drawn:
        names = itertools.chain([one.stem], (f"{one.stem}-{number}" for number in itertools.count(2)))
        stem = next(name for name in names if name.casefold() not in taken)
        taken.add(stem.casefold())
        found.append(replace(one, stem=stem))
    return found


def _slug(title: str) -> str:
    """A file name from a caption: the model, and the quantity where a model has several figures."""
    before, _, rest = title.rpartition(": ")
    model = before or rest
    kind = next((word for word in ("loss", "accuracy") if rest.startswith(f"{word} of the first split")), "")
    return re.sub(r"[^\w.+-]+", "-", f"{model}-{kind}" if kind else model).strip("-")


def _rows(measurement: Measurement) -> tuple[tuple[str, ...], list[list[object]]]:
    """Header and rows of `table.csv`, at full precision."""
    names = tuple(name for name in METRICS if any(name in row.intervals for row in measurement.models))
    header = ("model", "kind", *METRICS, *(f"{name}_{end}" for name in names for end in ("low", "high")))
    rows: list[list[object]] = []
    for row in measurement.models:
        ends = [end for name in names for end in row.intervals.get(name, (float("nan"),) * 2)]
        rows.append([row.model, row.kind, *(row.values[name] for name in METRICS), *ends])
    return header, rows


def _latex(models: Sequence[ModelRow], caption: str) -> str:
    accuracy = METRICS["accuracy"]
    columns = [
        _Column("model", tuple(row.model for row in models)),
        _Column("kind", tuple(row.kind for row in models)),
        _Column("accuracy, %", tuple(accuracy.text(row.accuracy) for row in models)),
        _Column("95 % interval", tuple(accuracy.interval_text(row.intervals["accuracy"], 1) for row in models)),
    ]
    for name, metric in METRICS.items():
        if name != "accuracy":
            heading = metric.heading if metric.heading.isupper() else metric.title
            cells = tuple(metric.text(row.values[name]) for row in models)
            columns.append(_Column(f"{heading}, %" if metric.percent else heading, cells))
    return render(
        "table.tex",
        caption=caption,
        header=[column.heading for column in columns],
        rows=list(zip(*(column.cells for column in columns), strict=True)),
        bold=[row.kind == "head" for row in models],
    )
