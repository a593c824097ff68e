"""`ball extract`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ball_features.cli.root import Json, Quiet, Strict, Verbose, app, print_json, progress_bar, say
from ball_features.errors import ConfigError

if TYPE_CHECKING:
    from ball_features.extraction.extract import Extraction

__all__ = ["extract"]


def _batch_size(text: str) -> int:
    if text == "auto":
        return 0
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(f"Got --batch-size {text!r}, expected a number of images of at least 1, or auto.")
    return int(text)


@app.command()
def extract(
    images: Annotated[Path, typer.Argument(help="Folder with one folder a class.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The cache to write, an HDF5 file.", show_default=False)],
    backbone: Annotated[
        str,
        typer.Option(
            help="densenet201, densenet169, densenet121, efficientnet_b0, mobilenet_v3_large, vgg16, vgg19, "
            "inception_v3; with the extra timm: xception, resnet50_v2, nasnet_large, inception_resnet_v2, timm:NAME; "
            "file:PATH is an encoder in TorchScript or ONNX."
        ),
    ] = "densenet201",
    weights: Annotated[
        str, typer.Option(help="imagenet (downloaded once), random, or the path of a PyTorch state dict.")
    ] = "imagenet",
    views: Annotated[
        int | None,
        typer.Option(
            help="Views of each image; the first is the plain image. As many as the recipe has, where none is given.",
            show_default=False,
        ),
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            help="How the further views are made: report, dihedral, zoom, blur, jpeg, stain-jitter, mask-overlay, "
            "grey, haematoxylin, reinhard, soft, segmented, segmented-otsu, enlarge, cells; a+b does one after the "
            "other, a,b takes turns, a@block2-nuclei reads an earlier block, over nuclei only. robust is four views "
            "against shortcuts, and what auto makes where --views is not given either."
        ),
    ] = "auto",
    normalize: Annotated[
        str, typer.Option(help="auto (the backbone's own), imagenet, half, unit, or m,m,m/s,s,s of R, G, B in [0, 1].")
    ] = "auto",
    input_px: Annotated[int, typer.Option(help="Side of the network's input; 0 is the backbone's own.")] = 0,
    channels: Annotated[
        str, typer.Option(help="original, or original,segmented: the picture, and its nuclei alone, side by side.")
    ] = "original",
    twins: Annotated[
        str,
        typer.Option(help="Segmented pictures: auto (Segmented/ beside the images, else computed), none, or a folder."),
    ] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16: of the forward pass.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float16 or float32: of the stored embeddings.")] = "float16",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    batch_size: Annotated[str, typer.Option(help="Images a forward pass, up to 4096, or auto.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of the views, and of random weights.")] = 0,
    limit: Annotated[int, typer.Option(help="Use only so many images, spread over the classes; 0 is all.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a cache made with other settings.")] = False,
    strict: Strict = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Embed the images of a folder with a frozen network, once, into a cache.

    The folder holds one folder a class. A second run computes only what is new; a killed run goes on where it was.
    Files that cannot be decoded are listed, in the end and in the cache, and never stop the run. Where nothing is said
    of views, a DenseNet gets the plain image and four views that hold on slides never seen; --views 1 is the
    plain image alone, in a third of the time.
    """
    from ball_features.config import ExtractConfig
    from ball_features.extraction.extract import extract as run

    config = ExtractConfig(
        backbone=backbone,
        weights=weights,
        views=views,
        recipe=recipe,
        normalize=normalize,
        input_px=input_px,
        channels=tuple(part.strip() for part in channels.split(",") if part.strip()),
        twins=twins,
        precision=precision,
        dtype=dtype,
        device=device,
        batch_size=_batch_size(batch_size),
        seed=seed,
        limit=limit,
    )
    quiet = quiet or as_json
    with progress_bar("Embedding", quiet) as progress:
        log = (lambda line: None) if quiet else say
        result = run(images, out, config, overwrite=overwrite, dry_run=dry_run, progress=progress, log=log)
    if as_json:
        print_json(_extraction_json(result))
    else:
        _print_extraction(result, dry_run)
    if strict and result.rejected:
        raise typer.Exit(1)


def _extraction_json(result: Extraction) -> dict[str, Any]:
    import dataclasses

    values = dataclasses.asdict(result)
    return values | {"cache": str(result.cache), "rejected": [dataclasses.asdict(item) for item in result.rejected]}


def _print_extraction(result: Extraction, dry_run: bool = False) -> None:
    for item in result.rejected:
        say(f"rejected  {item.path}: {item.reason}")
    shape = f"{result.images} images x {result.views} {'view' if result.views == 1 else 'views'} x {result.dim}"
    if dry_run:
        typer.echo(f"Would compute {result.computed} of {result.images} images; {shape} in {result.cache}")
        return
    dropped = f", {result.removed} removed" if result.removed else ""
    if not result.computed:
        what = "Nothing to compute" + (dropped or ": every image is in the cache")
    else:
        rate = result.computed * result.views / max(result.forward_s, 1e-9)
        what = f"Computed {result.computed} images ({rate:.1f} views/s), {result.reused} were there{dropped}"
    rejected = f", {len(result.rejected)} files rejected" if result.rejected else ""
    typer.echo(f"{what}{rejected}, in {result.extract_s:.1f} s.\n{result.cache}: {shape}")
