"""`ball export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ball_features.cli.derive import command
from ball_features.cli.options import Quiet
from ball_features.cli.screen import echo, say
from ball_features.config.bundle_use import TRUST
from ball_features.config.fields import Config, option

__all__ = ["COMMAND", "ExportOptions", "export"]


@dataclass(frozen=True)
class ExportOptions(Config):
    """Options of `ball export`."""

    onnx: Path | None = option(
        None, "Write the bundle as one ONNX file: network, pooling and classifier.", stored="file"
    )
    card: Path | None = option(None, "Write a model card of the bundle, in Markdown.", stored="file")
    ladder: Path | None = option(
        None, "Folder of a run of `ball fit --protocol ladder`, whose figures the model card shows too."
    )
    evaluation: tuple[str, ...] = option(
        (), "Folders written by `ball evaluate`, whose figures the model card shows too, with commas between."
    )
    weights: str | None = option(
        None, "File of the network's weights, where it is no longer at the path that the bundle names.", path=True
    )
    parquet: Path | None = option(
        None,
        "Write the cache as a Parquet file, with the columns path, label, sha256, view and embedding.",
        stored="file",
    )
    csv: Path | None = option(
        None,
        "Write the cache as a CSV file: path, label, sha256, view, and a column per number of an embedding.",
        stored="file",
    )
    trust: bool = option(False, TRUST)


def export(
    source: Annotated[
        Path, typer.Argument(help="A saved model (a bundle, RUN/models/MODEL) or a cache (.h5).", show_default=False)
    ],
    options: ExportOptions,
    shown: Quiet,
) -> None:
    """Write a saved model or a cache in formats that other programs read.

    The ONNX file takes RGB images as float32 (images, 3, side, side) in [0, 1]
    and gives calibrated probabilities, embeddings and the distance to the
    training images; its metadata says the rest. It is checked in ONNX Runtime
    before it is kept. Parquet and CSV have one row for each view of each image.
    """
    from ball_features.errors import ConfigError

    of_bundle, of_cache = [options.onnx, options.card], [options.parquet, options.csv]
    if not any([*of_bundle, *of_cache]):
        raise ConfigError("Got nothing to write, expected --onnx or --card of a bundle, --parquet or --csv of a cache.")
    if source.is_dir() and any(of_cache):
        raise ConfigError(f"{source} is a folder; --parquet and --csv are written of a cache, a file ending in .h5.")
    if not source.is_dir() and any(of_bundle):
        raise ConfigError(f"{source} is no folder; --onnx and --card are written of a bundle, RUN/models/MODEL.")
    for name in ("ladder", "evaluation"):
        if getattr(options, name) and options.card is None:
            raise ConfigError(f"Got --{name} without --card, which it is for.")
    from ball_features.outputs import require_writable

    bundled = sorted(source.iterdir()) if source.is_dir() else []
    for name, kind in (("onnx", "onnx"), ("card", "card"), ("parquet", "parquet"), ("csv", "embeddings table")):
        require_writable(getattr(options, name), f"--{name}", kind=kind, inputs=(source, *bundled, options.weights))
    if any(of_cache):
        from ball_features.cache import read_cache
        from ball_features.deployment.tabular import write_csv_table, write_parquet

        cache = read_cache(source)
        missing = int((~cache.committed).sum())
        if missing and not shown.quiet:
            say(f"{source} is incomplete: {missing} images are not computed yet and are left out.")
        for path, write in ((options.parquet, write_parquet), (options.csv, write_csv_table)):
            if path is not None:
                echo(f"{path}: {write(cache, path)} rows of {cache.embeddings.shape[2]} numbers")
        return
    from ball_features.bundles.bundle import read_bundle
    from ball_features.reporting.card import write_card

    bundle = read_bundle(source, trust=options.trust)
    if options.card is not None:
        evaluations = [Path(name) for name in options.evaluation]
        echo(f"Model card: {write_card(bundle, source, options.card, options.ladder, evaluations)}")
    if options.onnx is not None:
        from ball_features.bundles.predictor import Predictor
        from ball_features.deployment.onnx import export_onnx

        if not shown.quiet:
            say("Tracing the network: this takes some seconds ...")
        predictor = Predictor(bundle, weights=options.weights, device="cpu", precision="fp32")
        worst = export_onnx(predictor, options.onnx)
        size = options.onnx.stat().st_size / 1e6
        echo(f"{options.onnx}: {size:.1f} MB; in ONNX Runtime it differs from `ball predict` by {worst:.1e} at most")
        if not shown.quiet:
            left_out = "the set of classes and the flag for unusual images"
            if bundle.sites is not None:
                answers = f"the site {bundle.facts.site}" if bundle.facts.site else "a site of which nothing is known"
                left_out += f", and other sites: it answers for {answers}"
            say(f"Left out of the file: {left_out}.")


COMMAND = command(export)
