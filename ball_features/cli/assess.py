"""`ball assess`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ball_features.cli.derive import command
from ball_features.cli.options import NOTE, Images, Shown
from ball_features.cli.screen import echo, print_json, progress_bar, say, show, width
from ball_features.config import LADDER, CollectionConfig, ExtractConfig, FitConfig
from ball_features.config.fields import COMMON, Config, option
from ball_features.errors import ConfigError

if TYPE_CHECKING:
    from ball_features.runs.assess import Assessment

__all__ = ["COMMAND", "AssessOptions", "assess", "print_assessment"]


@dataclass(frozen=True)
class AssessOptions(Config):
    """Options of `ball assess` that are no settings of the embeddings."""

    out: Path = option(
        Path("artifacts/assess"),
        "Folder for the cache, the groups file, the run and the page; a path or an address.",
        short="o",
        stored="kept",
        panel=COMMON,
    )
    models: tuple[str, ...] = option(
        (), "Models to compare, with commas between; the head, logistic regression and all shortcuts if left out."
    )
    robust: bool = option(
        False,
        "Make the views of --recipe robust, and compare the model robust too, which chooses among them by leaving out "
        "sites, patients or series. It takes about four times as long to embed.",
        panel=COMMON,
    )
    repeats: int = option(
        0,
        "Number of random draws, each with another seed; 0 is two to five, as many as test a thousand images.",
        low=1,
        special={0: "two to five"},
    )
    note: str = NOTE
    jobs: int = option(0, "Number of models fitted at the same time; 0 uses every core.", low=0)


def assess(
    images: Images, extraction: ExtractConfig, collection: CollectionConfig, options: AssessOptions, shown: Shown
) -> None:
    """Say what a score on these images is worth: embed, audit, compare models under ever stricter protocols.

    One command from a folder to an answer. It keeps every step in the folder
    of --out: the same command goes on where an interrupted one was. The answer
    is the verdict: on the terminal, in verdict.json, and on top of assess.html.
    """
    from ball_features.runs.assess import assess as run
    from ball_features.runs.assess import keep_note

    if options.robust:
        if extraction.recipe not in ("auto", "robust"):
            raise ConfigError(
                f"Got both robust and recipe={extraction.recipe!r}, expected one of them. Leave one out.",
                option="robust",
            )
        extraction = replace(extraction, recipe="robust")
    config = FitConfig(
        protocol=LADDER, models=options.models, repeats=options.repeats, jobs=options.jobs, seed=extraction.seed
    )
    with progress_bar("Assessing", shown.silent, "steps") as progress:
        log = (lambda line: None) if shown.silent else say
        done = run(images, options.out, extraction, config, collection=collection, progress=progress, log=log)
    if options.note:
        keep_note(done, options.note)
    print_assessment(done, shown)


def print_assessment(done: Assessment, shown: Shown) -> None:
    """The verdict, the notes, the ladder and the page."""
    from ball_features.reporting.run_tables import render_ladder
    from ball_features.reporting.verdict import findings_to_json, render_verdict

    if shown.as_json:
        values = {"folder": str(done.folder), "verdict": findings_to_json(done.findings), "ladder": done.rows}
        print_json(values | {"notes": done.notes, "page": str(done.page)})
        return
    show(render_verdict(done.findings, most=5))
    if not shown.quiet:
        for note in done.notes:
            say(note)
    show(render_ladder(done.rows, width()), quiet=shown.quiet)
    echo(f"Page: {done.page}")


COMMAND = command(assess)
