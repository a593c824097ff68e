"""`ball export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ball_features.cli.options import MovedWeights, Quiet, Trust, Verbose
from ball_features.cli.root import app, say

__all__ = ["export"]


@app.command()
def export(
    source: Annotated[
        Path, typer.Argument(help="A saved model (a bundle, RUN/models/MODEL) or a cache (.h5).", show_default=False)
    ],
    onnx: Annotated[
        Path | None, typer.Option(help="Write the bundle as one ONNX file: network, pooling and classifier.")
    ] = None,
    card: Annotated[Path | None, typer.Option(help="Write a model card of the bundle, in Markdown.")] = None,
    ladder: Annotated[
        Path | None,
        typer.Option(help="Folder of a run of `ball fit --protocol ladder`, whose figures the model card shows too."),
    ] = None,
    weights: MovedWeights = None,
    parquet: Annotated[
        Path | None,
        typer.Option(
            help="Write the cache as a Parquet file, with the columns path, label, sha256, view and embedding."
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            help="Write the cache as a CSV file: path, label, sha256, view, and a column per number of an embedding."
        ),
    ] = None,
    trust: Trust = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a saved model or a cache in formats that other programs read.

    The ONNX file takes RGB images as float32 (images, 3, side, side) in [0, 1]
    and gives calibrated probabilities, embeddings and the distance to the
    training images; its metadata says the rest. It is checked in ONNX Runtime
    before it is kept. Parquet and CSV have one row for each view of each image.
    """
    from ball_features.errors import ConfigError

    of_bundle, of_cache = [onnx, card], [parquet, csv]
    if not any([*of_bundle, *of_cache]):
        raise ConfigError("Got nothing to write, expected --onnx or --card of a bundle, --parquet or --csv of a cache.")
    if source.is_dir() and any(of_cache):
        raise ConfigError(f"{source} is a folder; --parquet and --csv are written of a cache, a file ending in .h5.")
    if not source.is_dir() and any(of_bundle):
        raise ConfigError(f"{source} is no folder; --onnx and --card are written of a bundle, RUN/models/MODEL.")
    if ladder is not None and card is None:
        raise ConfigError("Got --ladder without --card, which it is for.")
    if any(of_cache):
        from ball_features.cache import read_cache
        from ball_features.deployment.tabular import write_csv_table, write_parquet

        cache = read_cache(source)
        missing = int((~cache.committed).sum())
        if missing and not quiet:
            say(f"{source} is incomplete: {missing} images are not computed yet and are left out.")
        for path, write in ((parquet, write_parquet), (csv, write_csv_table)):
            if path is not None:
                typer.echo(f"{path}: {write(cache, path)} rows of {cache.embeddings.shape[2]} numbers")
        return
    from ball_features.bundles.bundle import read_bundle
    from ball_features.reporting.card import write_card

    bundle = read_bundle(source, trust=trust)
    if card is not None:
        typer.echo(f"Model card: {write_card(bundle, source, card, ladder)}")
    if onnx is not None:
        from ball_features.deployment.onnx import export_onnx
        from ball_features.deployment.predict import Predictor

        if not quiet:
            say("Tracing the network: this takes some seconds ...")
        predictor = Predictor(bundle, weights=weights, device="cpu", precision="fp32")
        worst = export_onnx(predictor, onnx)
        size = onnx.stat().st_size / 1e6
        typer.echo(f"{onnx}: {size:.1f} MB; in ONNX Runtime it differs from `ball predict` by {worst:.1e} at most")
