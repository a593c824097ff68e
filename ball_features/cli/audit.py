"""`ball audit`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import typer

from ball_features.cli.derive import command
from ball_features.cli.options import Images, Shown
from ball_features.cli.screen import echo, print_json, progress_bar, say, show
from ball_features.config import CollectionConfig
from ball_features.config.fields import Config, option

__all__ = ["COMMAND", "AuditOptions", "audit"]


@dataclass(frozen=True)
class AuditOptions(Config):
    """Options of `ball audit`."""

    out: Path = option(Path("artifacts/groups.csv"), "Groups file to write, a CSV.", short="o", stored="file")
    cache: Path | None = option(None, "Cache of these images, to look for outliers among their embeddings too.")
    page: Path | None = option(
        None, "Write a page (HTML) that shows the findings, with small pictures of the images.", stored="file"
    )
    strict: bool = option(
        False, "End with exit code 1 where images that show the same carry different labels.", panel="Output"
    )


def audit(images: Images, options: AuditOptions, collection: CollectionConfig, shown: Shown) -> None:
    """Find what makes a random split of these images misleading, and write down what a split must keep together.

    It looks for copies (turned and re-encoded ones too), overlapping fields of
    view, burned-in scale bars and the classes that they give away, outliers,
    and likely acquisition series, each with a confidence. `ball fit --groups`
    takes the file. Where --out is a table of these images already, its columns
    and rows are kept. The columns: group (images never to be split), series (a
    class with one kind of scale bar and of file), batch (the part of a series
    with one stain, most likely a slide or a session), overlay (the kind of
    scale bar), block (twenty neighbouring files), duplicate_of (the first of
    identical pictures).
    """
    from ball_features.audit.findings import audit as run
    from ball_features.audit.findings import write_groups
    from ball_features.audit.summary import AuditSummary
    from ball_features.dataset.known import recognise
    from ball_features.dataset.manifest import scan
    from ball_features.dataset.table_files import require_extendable
    from ball_features.outputs import require_writable
    from ball_features.reporting.audit_page import audit_verdict, cached_embeddings, summary, write_audit
    from ball_features.reporting.verdict import render_verdict

    manifest = scan(images, collection=collection, anywhere=True)
    # Before the minutes that the audit takes.
    require_writable(options.out, "--out", inputs=(options.cache,), extended=True)
    require_writable(options.page, "--page", kind="page", inputs=(options.cache, options.out))
    named = (*manifest.label, *(cell for cells in manifest.columns.values() for cell in cells))
    remarks = require_extendable(options.out, manifest.path, named)
    embeddings = None if options.cache is None else cached_embeddings(options.cache, manifest)
    with progress_bar("Auditing", shown.silent, "steps") as progress:
        found = run(manifest, embeddings=embeddings, progress=progress)
    pictures: list[str] = []
    kept = ""
    try:
        kept = write_groups(found, options.out)
    finally:  # the page is written too where something has come to the name of the groups file
        if options.page is not None:
            pictures = write_audit(found, manifest.root, options.page, options.out)
    known = recognise(manifest.sha256)
    if shown.as_json:
        print_json(AuditSummary.of(found).to_dict() | {"known": known, "groups_file": str(options.out)})
    else:
        for note in () if shown.quiet else (*remarks, kept, manifest.note, known, *pictures):
            if note:
                say(note)
        show(render_verdict(audit_verdict(found, options.out)))
        show(summary(found))
        echo(f"Groups: {options.out}")
        if options.page:
            echo(f"Page: {options.page} (holds thumbnails; do not pass it on)")
    if options.strict and found.conflicts:
        raise typer.Exit(1)


COMMAND = command(audit)
