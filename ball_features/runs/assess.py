"""`ball assess`: from a folder of images to a verdict in one command, resumed at the step where it was interrupted."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ball_features.audit.findings import HEADER, VERSION, audit, write_groups
from ball_features.audit.summary import AuditSummary
from ball_features.cache import Cache, read_cache
from ball_features.config import LADDER, CollectionConfig, ExtractConfig, FitConfig
from ball_features.config.paths import shareable, shown_path
from ball_features.dataset.manifest import Manifest
from ball_features.dataset.sources import Source
from ball_features.errors import DataError
from ball_features.evaluation.rows import LadderRow
from ball_features.extraction.extract import extract, read_collection
from ball_features.extraction.preprocessing import Preprocessing
from ball_features.files import is_changed, open_regular, read_json, write_json
from ball_features.models.registry import select
from ball_features.outputs import require_folder, require_no_link, require_writable
from ball_features.reporting.assess_page import write_assess_report
from ball_features.reporting.audit_evidence import audit_evidence
from ball_features.reporting.evidence import AuditEvidence
from ball_features.reporting.finding import Finding
from ball_features.reporting.joint import write_ladder_report
from ball_features.reporting.provenance import images_digest
from ball_features.reporting.verdict import findings_to_json, verdict
from ball_features.runs.checks import require_classes
from ball_features.runs.former_run import require_unread
from ball_features.runs.ladder import DEFAULT_MODELS, ladder, with_draws
from ball_features.runs.store import annotate
from ball_features.threads import core_count

__all__ = ["Assessment", "assess", "keep_note"]

# Share of the whole that each step takes, for the progress: embedding, audit, fits.
_SHARES = (0.25, 0.40, 0.35)
_STEPS = 1000
# Seconds of one core for each image (plain view by DenseNet-201 in bfloat16, audit, two repeats of the ladder), and
# seconds before the first image: see `benchmarks/assess.py`.
_EMBED_S, _AUDIT_S, _COMPARE_S, _START_S = 0.020, 0.030, 0.030, 10

_CHANGED = (
    "{} was changed since the audit wrote it. It is used as it is: steps of the ladder follow its columns, what the "
    "page says of copies and series is what the audit found."
)
_HEADER_BYTES = 1000
_FILES = {"verdict.json": "verdict", "assess.html": "page", "audit.json": "audit", "groups.csv": "groups"}

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Assessment:
    """Result of `ball assess`.

    Attributes:
        folder: folder of all files.
        findings: the verdict.
        rows: a row a protocol and model.
        notes: notes for the reader.
        page: the page.
        write_page: function that writes it anew.
        run: folder of the run.
    """

    folder: Path
    findings: list[Finding]
    rows: list[LadderRow]
    notes: list[str]
    page: Path
    write_page: Callable[[], Path]
    run: Path = Path(LADDER)


def assess(
    images: Path | str,
    out: Path | str,
    extraction: ExtractConfig | Mapping[str, Any] | None = None,
    config: FitConfig | Mapping[str, Any] | None = None,
    *,
    collection: CollectionConfig | None = None,
    progress: Progress | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> Assessment:
    """Embed, audit and compare under ever stricter protocols, and say what the scores are worth.

    Every step keeps its result in the folder: the same call goes on where an interrupted one was, and computes only
    what is new when images are added. Patients, sites, groups and the split of a sheet, or of the layout of the
    folders, become protocols beside those of the audit.

    Args:
        images: folder, archive or address that holds one folder for each class.
        out: folder for all files: `cache.h5`, `groups.csv`, `audit.json`, a run, `verdict.json` and `assess.html`.
        extraction: settings of the embeddings; the plain view alone where neither views nor a recipe are asked for.
        config: models, repeats, seed and processes; the ladder's defaults if None. Where the recipe is
            robust and no model is named, the model robust is compared too.
        collection: layout of the folders, and path and columns of a sheet.
        progress: called with (steps done, all steps, work in hand).
        log: called with one line for each thing that the user should know.

    Raises:
        BallError: as `extract`, `audit` and `ladder`.
    """
    out, extraction = Path(out), ExtractConfig.of(extraction)
    config = FitConfig.of(config or FitConfig(protocol=LADDER))
    if extraction.views is None and extraction.recipe == "auto":
        extraction = replace(extraction, views=1)
    if extraction.recipe == "robust" and not config.models:
        config = replace(config, models=(*DEFAULT_MODELS, "robust"))
    # Before anything is written: a folder that holds no images leaves nothing behind.
    manifest = read_collection(images, extraction, log, collection=collection)
    require_classes(manifest.label, shown_path(images))
    _require_apart(out, manifest)
    sheets = collection.sheet if collection else ()
    require_unread(out / LADDER, sheets)
    config = with_draws(config, len(manifest.path))
    require_folder(out)
    for name, kind in _FILES.items():
        require_writable(out / name, "output folder", kind=kind, inputs=sheets, named=False)
    for name in ("cache.h5", LADDER, f".{LADDER}.rungs"):
        require_no_link(out / name)
    tell = progress or (lambda done, total, name: None)
    ends = [round(_STEPS * sum(_SHARES[:number])) for number in range(len(_SHARES) + 1)]

    def part(number: int, name: str) -> Callable[..., None]:
        start, stop = ends[number], ends[number + 1]
        tell(start, _STEPS, name)  # a stage is named when it begins, not at its first step
        return lambda done, total, *_: tell(start + (stop - start) * done // max(total, 1), _STEPS, name)

    cache_path, groups = out / "cache.h5", out / "groups.csv"
    log(_plan(manifest, extraction, config, out))
    extract(manifest, cache_path, extraction, progress=part(0, "embedding"), log=log)
    cache = read_cache(cache_path)
    found, audited, remark = _audit(manifest, cache, groups, part(1, "auditing"))
    if remark:
        log(remark)
    settings = replace(config, groups=str(groups))
    done = ladder(cache_path, settings, out_root=out, name=LADDER, progress=part(2, "comparing models"), keep=True)
    findings = verdict(replace(done.evidence, audit=found))
    for folder in (out, done.folder):
        write_json(folder / "verdict.json", findings_to_json(findings))
    write_ladder_report(done.folder)  # again, with the verdict that knows the audit
    seen = (cache, groups, audited, shareable(str(images)), remark)
    write_page = functools.partial(write_assess_report, out / "assess.html", done.folder, *seen)
    notes = [*([remark] if remark else []), *done.notes]
    return Assessment(out, findings, done.rows, notes, write_page(), write_page, done.folder)


def _require_apart(out: Path, manifest: Manifest) -> None:
    """Refuse the image folder and folders of images in it: their next listing would meet what is written there."""
    if isinstance(manifest.root, Source):
        return
    root, place = manifest.root.resolve(), out.resolve()
    inside = place.is_relative_to(root) and any((root / path).resolve().is_relative_to(place) for path in manifest.path)
    if not inside and place.exists():  # a folder may have a second path, through a mount
        folders = {folder.resolve() for folder in {(root / path).parent for path in manifest.path}}
        holders = {above for own in folders for above in (own, *own.parents) if above.is_relative_to(root)}
        inside = any(place.samefile(folder) for folder in holders)
    if inside:
        raise DataError(f"Images lie in the output folder {out}, expected one of its own. Give another output folder.")


def keep_note(done: Assessment, note: str) -> None:
    """Keep the user's note in the run of an assessment, where `ball runs` and the page show it.

    Raises:
        DataError: the run cannot be written.
    """
    annotate(done.run, note)
    write_ladder_report(done.run)
    done.write_page()


def _plan(manifest: Manifest, extraction: ExtractConfig, config: FitConfig, out: Path) -> str:
    """What will be done and about how long it takes."""
    images, cores = len(manifest.path), core_count()
    wanted = Preprocessing.from_config(extraction)
    views, repeats = wanted.plan.times(wanted.backbone.input_px)[0], config.repeats / 2
    times = _EMBED_S * views, _AUDIT_S, _COMPARE_S * repeats
    seconds = images * sum(times) / cores + _START_S
    minutes = "a minute" if seconds < 90 else f"{seconds / 60:.0f} minutes"
    models = len(select(config.models or DEFAULT_MODELS))
    there = " What an earlier run left there is used." if (out / "cache.h5").exists() else ""
    return (
        f"Plan: embed {images} images ({extraction.backbone}), look for copies, overlapping fields, scale bars and "
        f"series, compare {models} models under ever stricter protocols. About {minutes} "
        f"on {cores} cores. Every step is kept in {out}: the same command goes on where it stopped.{there}"
    )


def _audit(
    manifest: Manifest, cache: Cache, groups: Path, progress: Callable[..., None]
) -> tuple[AuditEvidence, AuditSummary, str]:
    """The audit of the images, as evidence and in numbers; the one that is kept, where these are the same images.

    The third is what a reader should know of the groups file, or "".

    Raises:
        DataError: The groups file is that of somebody else, or was changed and is of other images.
    """
    labels = sorted(zip(cache.path.tolist(), cache.label.tolist(), strict=True))  # conflicts are of labels
    kept = groups.with_name("audit.json")
    digest = hashlib.sha256(f"{VERSION} {images_digest(cache)} {labels}".encode()).hexdigest()
    sha256 = ""  # of the groups file as it was written
    try:
        values = read_json(kept)
        sha256 = str(values.get("groups_sha256", ""))
        if values["images"] == digest and groups.exists():
            evidence = AuditEvidence(**{name: _number(value) for name, value in values["evidence"].items()})
            summary = AuditSummary.from_dict(values["findings"])  # one of another version is made again
            return evidence, summary, "" if _is_as_written(groups, sha256) else _CHANGED.format(groups.name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    if groups.exists() and not kept.exists():
        raise DataError(f"{groups} was not made by ball assess, which would replace it. Give another output folder.")
    require_writable(groups, "output folder", kind="groups", named=False)
    if groups.exists() and not _is_as_written(groups, sha256):
        raise DataError(
            f"{groups} was changed since ball assess wrote it, and the images have changed too: the audit has to be "
            "made again, and would replace it. Move it elsewhere (columns of yours, such as patients, belong into a "
            "table that you give as a sheet), or give another output folder."
        )
    found = audit(manifest, progress=progress)
    if is_changed(groups):
        kept.unlink(missing_ok=True)  # which would tell that it is of `ball`
    else:
        write_json(kept, {"images": ""})
        groups.unlink(missing_ok=True)  # of other images
    write_groups(found, groups)
    evidence, counted = audit_evidence(found), AuditSummary.of(found)
    values = {"images": digest, "groups_sha256": _sha256(groups), "evidence": asdict(evidence)}
    write_json(kept, values | {"findings": counted.to_dict()})
    return evidence, counted, ""


def _is_as_written(groups: Path, sha256: str) -> bool:
    """Whether a groups file is as an audit wrote it; where no hash is kept, whether it has the audit's own columns."""
    if sha256:
        return _sha256(groups) == sha256
    with open_regular(groups) as file:
        return file.readline(_HEADER_BYTES).decode(errors="replace").strip().split(",") == list(HEADER)


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _number(value: Any) -> Any:
    """A value out of JSON: null stands for NaN, a list for a tuple."""
    return float("nan") if value is None else tuple(value) if isinstance(value, list) else value
