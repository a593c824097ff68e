"""The optimism ladder: the same models under ever stricter protocols, and what each loses on the way down."""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ball_features.cache import Cache
from ball_features.config import LADDER, FitConfig
from ball_features.config.paths import without_places
from ball_features.config.toml import FILE, Repeat
from ball_features.dataset.grouping import Grouping
from ball_features.dataset.splits import Split
from ball_features.errors import DataError
from ball_features.evaluation.intervals import share_interval
from ball_features.evaluation.left_out import group_rows, over_groups
from ball_features.evaluation.protocols import (
    ModelResult,
    Progress,
    evaluate,
    fit_notes,
    require_fitted,
)
from ball_features.evaluation.rows import LadderRow, write_rows
from ball_features.evaluation.tasks import Evaluation
from ball_features.files import write_csv, write_json
from ball_features.models.registry import select
from ball_features.outputs import require_folder
from ball_features.reporting.evidence import Evidence
from ball_features.reporting.finding import Finding
from ball_features.reporting.joint import write_ladder_report
from ball_features.reporting.ladder_page import ladder_caption
from ball_features.reporting.provenance import images_digest, provenance
from ball_features.reporting.verdict import findings_to_json, verdict
from ball_features.reporting.words import describe_cache
from ball_features.runs.checks import check_name, check_options, chosen_cache, require_unadapted, with_numbers
from ball_features.runs.contents import failures, prediction_rows, split_rows
from ball_features.runs.evidence_of import ladder_evidence
from ball_features.runs.former_run import FormerRun, file_sums, require_unread
from ball_features.runs.kept_rungs import KeptRungs
from ball_features.runs.last_files import write_last
from ball_features.runs.new_folder import NewFolder, reserved_folder
from ball_features.runs.rungs import Rung, make_rungs
from ball_features.runs.sites import centred_note

__all__ = ["DEFAULT_MODELS", "SHORTCUT_TREES", "Ladder", "ladder", "with_draws"]

# The models that most people need: the student report's head, a linear model, and every shortcut.
DEFAULT_MODELS = ("mlp", "logistic", "majority", "colour", "histogram", "nuclei", "corner")
# A quarter of their usual trees, on every rung: that moves a shortcut's accuracy by half a point, within its interval.
SHORTCUT_TREES = 50
_FEWEST_DRAWS, _MOST_DRAWS = 2, 5
_DRAWN = 1000  # images that are enough for the random draws to test; the stricter steps say more
_FITTED_ON = ("train", "val")


@dataclass(frozen=True)
class Ladder:
    """A finished ladder.

    Attributes:
        folder: folder of the run.
        rows: a row a rung and model.
        notes: notes for the reader.
        evidence: what the verdict rests on.
        findings: the verdict.
        unwritten: sentences on files that could not be written.
    """

    folder: Path
    rows: list[LadderRow]
    notes: list[str]
    evidence: Evidence
    findings: list[Finding]
    unwritten: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class _Climbed:
    """A rung with a result a model on it."""

    rung: Rung
    results: list[ModelResult]


def ladder(
    cache_path: Path | str,
    config: FitConfig,
    *,
    out_root: Path | str = "artifacts/runs",
    name: str = "ladder",
    progress: Progress | None = None,
    keep: bool = False,
) -> Ladder:
    """Fit the models on every rung.

    Finished rungs are kept until all are: the same call goes on where an interrupted one was.

    Args:
        cache_path: a complete cache, made by `extract`.
        config: models (`DEFAULT_MODELS` if none is named; forests of shortcuts have `SHORTCUT_TREES`), repeats of the
            hold-outs, seed and head. `groups` is a file made by `ball audit` or the user's own, whose columns go before
            those of the cache; `group_column` is left out value by value in place of the series. A rung whose column
            neither has is left out.
        out_root: folder of the runs.
        name: name of the run's folder in it.
        progress: called with (fits done, fits of all rungs, rung and model just done).
        keep: keep the rungs beyond the end, and replace the run of this name: the same call again fits nothing.

    Raises:
        CacheError: the cache is missing, incomplete or not finite.
        ConfigError: neither the cache nor a groups file names groups, or a setting has no effect.
        DataError: the groups file does not fit, or no model could be fitted.
    """
    start = time.perf_counter()
    check_name(name)
    require_unadapted(config, "the ladder")
    cache = chosen_cache(cache_path, config)
    config = with_draws(config, len(cache.path))
    specs, notes = with_numbers(select(config.models or DEFAULT_MODELS), cache, named=config.names_models)
    check_options(config, specs, cache)
    specs = [replace(spec, most_trees=SHORTCUT_TREES) if spec.kind == "shortcut" else spec for spec in specs]
    require_folder(out_root)
    if keep and config.groups:
        require_unread(Path(out_root) / name, [config.groups])
    rungs, against, said = make_rungs(config, cache)
    kept = KeptRungs(Path(out_root) / f".{name}.rungs", _basis(cache, config, against), len(set(cache.label.tolist())))
    common = Evaluation(cache, tuple(specs), (), config, against)
    if not rungs:
        raise DataError(
            f"No step of the ladder can be made of these {len(cache.path)} images. {' '.join(said)}".rstrip()
        )
    climbed = _climb(rungs, common, kept, progress)
    require_fitted([result for step in climbed for result in step.results])
    rows = [_row(step.rung, result, cache) for step in climbed for result in step.results if result.fitted]
    notes += [*said, *centred_note(config, against, [split for rung in rungs for split in rung.splits])]
    for step in climbed:
        failed = [
            f"{item.spec.name} {'failed' if item.traceback else 'was not fitted'}: {item.failure}"
            for item in step.results
            if item.failure
        ]
        notes += [f"{step.rung.name}: {note}" for note in [*fit_notes(step.results), *failed]]
    details: dict[str, object] = {
        "kept": keep,
        "title": f"Optimism ladder · {describe_cache(cache)}",
        "caption": ladder_caption([rung.name for rung in rungs]),
        "notes": [*map(without_places, notes)],
        "failures": [{"rung": step.rung.name} | item for step in climbed for item in failures(step.results)],
        "rungs": [{"rung": rung.name, "protocol": rung.config.protocol, "column": rung.column} for rung in rungs],
    }
    repeat = Repeat("fit", {"cache": str(cache_path)}, replace(config, protocol=LADDER))
    former = FormerRun.find(Path(out_root) / name) if keep else None
    own = contextlib.nullcontext(former.folder) if former else reserved_folder(Path(out_root), name)
    with own as folder:
        if former and former.note:
            details["note"] = former.note
        details |= provenance(
            cache,
            config,
            source=str(cache_path),
            start=start,
            repeats=range(config.repeats),
            again=repeat.command(folder),
            groups_sha256=against.sha256,
        )
        evidence = ladder_evidence(rungs, rows, cache, str(cache_path), config.groups, against)
        findings = verdict(evidence)
        with NewFolder(folder.parent, folder.name) as new:
            _write(new.path, rows, climbed, cache)
            (new.path / FILE).write_text(repeat.text(), encoding="utf-8")
            write_json(new.path / "run.json", details | ({"files": file_sums(new.path)} if keep else {}))
            write_json(new.path / "verdict.json", findings_to_json(findings))
            former = former and FormerRun.find(former.folder)  # still
            aside = former.make_room() if former else None
    if former and aside:
        notes += former.bring_back(aside, new.path)
    if keep:
        kept.keep_only(rungs, specs)
    elif FormerRun.find(Path(out_root) / name) is None:  # whose steps `ball assess` has kept for itself
        kept.clear()
    unwritten = write_last(new.path, {"report.html": lambda: write_ladder_report(new.path)})
    return Ladder(new.path, rows, notes, evidence, findings, unwritten)


def with_draws(config: FitConfig, images: int) -> FitConfig:
    """The configuration with its number of random draws, by the number of images where none was asked for."""
    enough = math.ceil(_DRAWN / (config.test_size * max(images, 1)))
    draws = config.repeats or min(_MOST_DRAWS, max(_FEWEST_DRAWS, enough))
    return replace(config, protocol=FitConfig.protocol, repeats=draws)


def _basis(cache: Cache, config: FitConfig, against: Grouping) -> str:
    """Digest of what all rungs have in common: images, labels, what models are trained against, settings."""
    known = [column for column in (cache.label, against.series, against.center) if column is not None]
    rows = sorted(zip(cache.path.tolist(), *(column.tolist() for column in known), strict=True))
    told = hashlib.sha256(repr(rows).encode()).hexdigest()
    own = config.fingerprint(groups_sha256=against.sha256)
    return f"{cache.attributes['fingerprint']} {images_digest(cache)} {told} {own}"


def _climb(rungs: list[Rung], common: Evaluation, kept: KeptRungs, progress: Progress | None) -> list[_Climbed]:
    """Fit the models on every rung that is not kept yet; progress counts the fits of all rungs.

    Args:
        rungs: the rungs.
        common: evaluation without its splits and its protocol.
        kept: rungs of an interrupted ladder.
        progress: called with (fits done, fits of all rungs, rung and model just done).
    """
    models = common.models
    total = sum(len(rung.splits) for rung in rungs) * len(models)
    before, climbed = 0, []
    for rung in rungs:
        results = kept.load(rung, models)
        if results is None and (results := _same_before(rung, climbed)) is not None:
            kept.save(rung, models, results)
            if progress:
                progress(before + len(rung.splits) * len(models), total, f"{rung.name}: the same fits")
        if results is None:

            def told(done: int, _: int, name: str, start: int = before, rung: Rung = rung) -> None:
                if progress:
                    progress(start + done, total, f"{rung.name}: {name}")

            results = evaluate(replace(common, splits=tuple(rung.splits), config=rung.config), told)
            kept.save(rung, models, results)
        before += len(rung.splits) * len(models)
        climbed.append(_Climbed(rung, results))
    return climbed


def _same_before(rung: Rung, climbed: Sequence[_Climbed]) -> list[ModelResult] | None:
    """Results of an earlier rung with the same training images, whose tests hold all of this rung's."""
    for step in climbed:
        pairs = list(zip(step.rung.splits, rung.splits, strict=False))
        same = step.rung.config == rung.config and len(step.rung.splits) == len(rung.splits)
        same = same and all(np.array_equal(getattr(a, part), getattr(b, part)) for a, b in pairs for part in _FITTED_ON)
        if same and all(np.isin(b.test, a.test).all() for a, b in pairs):
            return [_on_fewer(result, rung.splits) for result in step.results]
    return None


def _on_fewer(result: ModelResult, splits: Sequence[Split]) -> ModelResult:
    """The same fits, of whose test images these splits hold some, in the same order."""
    fitted = []
    for item, split in zip(result.fitted, splits, strict=bool(result.fitted)):
        own = np.isin(item.split.test, split.test)
        flips = None if item.flips is None else item.flips[own]
        fitted.append(replace(item, split=split, probability=item.probability[own], flips=flips))
    return replace(result, fitted=fitted)


def _write(folder: Path, rows: list[LadderRow], climbed: list[_Climbed], cache: Cache) -> None:
    write_rows(folder / "ladder.csv", rows)
    header = ("rung", "path", "label", "group", "repeat", "split", "fold", "unit")
    lines = (
        (step.rung.name, *row)
        for step in climbed
        for row in split_rows(cache, step.rung.splits, step.rung.group, step.rung.units)
    )
    write_csv(folder / "splits.csv", header, lines)
    classes = sorted(set(cache.label.tolist()))
    header = ("rung", "model", "repeat", "fold", "path", "label", "predicted", *(f"p_{name}" for name in classes))
    lines = ((step.rung.name, *row) for step in climbed for row in prediction_rows(cache, step.results, classes))
    write_csv(folder / "predictions.csv", header, lines)


def _row(rung: Rung, result: ModelResult, cache: Cache) -> LadderRow:
    codes = np.unique(cache.label, return_inverse=True)[1]
    tested = np.concatenate([item.split.test for item in result.fitted])
    hit = np.concatenate([item.probability.argmax(1) == codes[item.split.test] for item in result.fitted]).astype(float)
    low, high = share_interval(hit, rung.units[tested], images=len(np.unique(tested)))
    groups = over_groups(group_rows(cache, [result], rung.units), result.spec.name)
    recalls = [item.recall for item in groups]
    balanced = [item.balanced_recall for item in groups if item.balanced_recall is not None]
    return LadderRow(
        rung=rung.name,
        model=result.spec.name,
        kind=result.spec.kind,
        accuracy=float(hit.mean()),
        accuracy_low=low,
        accuracy_high=high,
        mean_recall=float(np.mean(recalls)) if recalls else None,
        worst_recall=min(recalls) if recalls else None,
        mean_balanced_recall=float(np.mean(balanced)) if balanced else None,
        balanced_recall=float(np.mean([hit[codes[tested] == code].mean() for code in np.unique(codes[tested])])),
    )
