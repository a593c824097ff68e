"""`ball extract`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ball_features.cli.options import Device, Images, Json, Quiet, Strict, Verbose
from ball_features.cli.root import app, print_json, progress_bar, say
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
    images: Images,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The cache to write: one HDF5 file of embeddings.", show_default=False)
    ],
    backbone: Annotated[
        str,
        typer.Option(
            help="Network that makes the embeddings: densenet201, densenet169, densenet121, efficientnet_b0, "
            "mobilenet_v3_large, vgg16, vgg19, inception_v3; with the extra timm also xception, resnet50_v2, "
            "nasnet_large, inception_resnet_v2 and timm:NAME; file:PATH is your own network, in TorchScript or ONNX."
        ),
    ] = "densenet201",
    weights: Annotated[
        str,
        typer.Option(
            help="The network's weights: imagenet (downloaded once), random, or the path of a PyTorch state dict."
        ),
    ] = "imagenet",
    views: Annotated[
        int | None,
        typer.Option(
            help="Number of views of each image: the plain image first, then those that --recipe makes. As many as the "
            "recipe has if left out.",
            show_default=False,
        ),
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            help="How the views beside the plain image are made: report (the student report's augmentation), dihedral "
            "(flipped and turned), zoom, blur, jpeg, stain-jitter, mask-overlay (scale bars and the like filled in), "
            "grey, haematoxylin (the nuclear stain alone), reinhard (stain normalised), soft (a little out of focus), "
            "segmented or segmented-otsu (all but nuclei black), enlarge, cells (single cells cut out). a+b does one "
            "after the other, a,b takes turns, a@block2-nuclei reads an earlier block of the network over nuclei only. "
            "robust: the four views that the model robust-views was made for, which auto makes for a DenseNet where "
            "--views is not given either."
        ),
    ] = "auto",
    normalize: Annotated[
        str,
        typer.Option(
            help="How pixel values are scaled for the network: auto (as it was trained), imagenet, half (-1 to 1), "
            "unit (0 to 1), or m,m,m/s,s,s: means and standard deviations of R, G and B in [0, 1]."
        ),
    ] = "auto",
    input_px: Annotated[
        int, typer.Option(help="Side of the network's input in pixels; 0 takes the network's own.")
    ] = 0,
    channels: Annotated[
        str,
        typer.Option(
            help="Pictures that are embedded: original, or original,segmented (the picture, and its nuclei alone)."
        ),
    ] = "original",
    twins: Annotated[
        str,
        typer.Option(
            help="Where segmented pictures come from: auto (the folder Segmented/ beside the images, else computed), "
            "none (computed), or a folder."
        ),
    ] = "auto",
    precision: Annotated[
        str,
        typer.Option(
            help="Number format the network computes in: auto (the fastest whose embeddings have a cosine to fp32 "
            "of at least 0.9995 on a sample of these images), fp32, bf16 or fp16."
        ),
    ] = "auto",
    dtype: Annotated[str, typer.Option(help="Number format of the stored embeddings: float16 or float32.")] = "float16",
    device: Device = "auto",
    batch_size: Annotated[
        str, typer.Option(help="Number of images that go through the network at once, up to 4096, or auto.")
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Random seed of random views and of random weights.")] = 0,
    limit: Annotated[int, typer.Option(help="Use only this many images, spread over the classes; 0 uses all.")] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be computed, and compute nothing.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a cache made with other settings.")] = False,
    strict: Strict = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Turn the images of a folder into embeddings, once, with a frozen network, and keep them in a cache.

    The folder holds one folder per class. A second run computes only what is
    new; a killed run goes on where it was. Files that cannot be decoded are
    listed, in the end and in the cache, and never stop the run. Where neither
    --views nor --recipe is given, a DenseNet's cache holds the plain image and
    four views for the model robust-views; they were chosen and tested on seven
    inferred series of one public data set. --views 1 is the plain image alone,
    in a third of the time.
    """
    from ball_features.config import ExtractConfig, split_names
    from ball_features.extraction.extract import extract as run

    config = ExtractConfig(
        backbone=backbone,
        weights=weights,
        views=views,
        recipe=recipe,
        normalize=normalize,
        input_px=input_px,
        channels=split_names(channels),
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
