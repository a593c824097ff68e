"""`ball audit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ball_features.cli.options import Images, Json, Quiet, Verbose
from ball_features.cli.root import app, console, print_json, progress_bar, say

__all__ = ["audit"]


@app.command()
def audit(
    images: Images,
    out: Annotated[Path, typer.Option("--out", "-o", help="The groups file to write, a CSV.")] = Path(
        "artifacts/groups.csv"
    ),
    cache: Annotated[
        Path | None, typer.Option(help="Cache of these images, to look for outliers among their embeddings too.")
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(help="Write a page (HTML) that shows the findings, with small pictures of the images."),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="End with exit code 1 where images that show the same carry different labels."),
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Find what makes a random split of these images misleading, and write down what a split must keep together.

    It looks for copies (turned and re-encoded ones too), overlapping fields of
    view, burned-in scale bars and the classes that they give away, outliers,
    and likely acquisition series, each with a confidence. `ball fit --groups`
    takes the file. Its columns: group (images never to be split), series (a
    class with one kind of scale bar and of file), batch (the part of a series
    with one stain, most likely a slide or a session), overlay (the kind of
    scale bar), block (twenty neighbouring files), duplicate_of (the first of
    identical pictures).
    """
    from ball_features.audit.findings import audit as run
    from ball_features.audit.findings import write_groups
    from ball_features.dataset.known import recognise
    from ball_features.dataset.manifest import scan
    from ball_features.files import require_writable
    from ball_features.reporting.audit_page import cached_embeddings, summary, write_audit

    manifest = scan(images)
    for file, option in ((out, "--out"), (page, "--page")):
        require_writable(file, option)  # before the minutes that the audit takes
    embeddings = None if cache is None else cached_embeddings(cache, manifest)
    with progress_bar("Auditing", quiet or as_json, "steps") as progress:
        found = run(manifest, embeddings=embeddings, progress=progress)
    write_groups(found, out)
    if page is not None:
        write_audit(found, manifest.root, page)
    known = recognise(manifest.sha256)
    if as_json:
        print_json(found.to_dict() | {"known": known, "groups_file": str(out)})
    else:
        if manifest.note:
            say(manifest.note)
        if known:
            say(known)
        console().print(summary(found))
        typer.echo(f"Groups: {out}" + (f"\nPage: {page} (holds thumbnails; do not pass it on)" if page else ""))
    if strict and found.conflicts:
        raise typer.Exit(1)
