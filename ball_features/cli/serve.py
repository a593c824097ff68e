"""`ball serve`."""

from __future__ import annotations

import contextlib
import logging
import socket
from typing import Annotated

import typer

from ball_features.cli.options import (
    BundleFolder,
    BundlePrecision,
    Device,
    MovedWeights,
    Quiet,
    Trust,
    Verbose,
)
from ball_features.cli.root import InterruptError, app, say

__all__ = ["serve"]


@app.command()
def serve(
    bundle: BundleFolder,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but this machine's own needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8000,
    token: Annotated[
        str, typer.Option(envvar="BALL_TOKEN", help="Secret of 16 or more characters that requests must bring.")
    ] = "",
    coverage: Annotated[
        float,
        typer.Option(help="Share of images whose set of classes should hold the true one, where a request names none."),
    ] = 0.95,
    max_megabytes: Annotated[float, typer.Option(help="Largest file that is taken, in megabytes.")] = 20.0,
    max_megapixels: Annotated[float, typer.Option(help="Largest image that is taken, in megapixels.")] = 25.0,
    max_rate: Annotated[float, typer.Option(help="Most requests that one address may send in a second.")] = 100.0,
    max_waiting: Annotated[int, typer.Option(help="Most images that may wait for the network.")] = 256,
    weights: MovedWeights = None,
    device: Device = "auto",
    precision: BundlePrecision = "auto",
    trust: Trust = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Serve a saved model on a page to drop images on, and to programs. Research use only, not a diagnosis.

    Listens on this machine only unless --host says otherwise, and then asks for
    --token. Images that arrive together go through the network together;
    nothing is written to disk. Programs ask by POST /v1/predict, which GET
    /openapi.json describes; /healthz and /metrics tell how the server does.
    """
    from ball_features.errors import ConfigError, require_extra

    for module in ("fastapi", "uvicorn", "prometheus_client"):
        require_extra(module, "serve", "ball serve")
    import uvicorn

    from ball_features.bundles.bundle import read_bundle
    from ball_features.deployment.predict import Predictor
    from ball_features.deployment.serve import Limits, create_app, is_loopback, require_token

    local = is_loopback(host)
    try:
        require_token(token, loopback=local)
    except ConfigError as error:
        if token:
            raise
        raise ConfigError(
            f"--host {host} can be reached from other machines and needs a token. "
            "Set one: BALL_TOKEN=$(openssl rand -hex 16) ball serve ..."
        ) from error
    limits = Limits(max_megabytes, max_megapixels, max_rate, max_waiting)
    loaded = read_bundle(bundle, trust=trust)
    if not quiet:
        say("Loading the network ...")
    predictor = Predictor(loaded, weights=weights, device=device, precision=precision, compiled=True)
    predictor.warm_up()
    service = create_app(predictor, limits=limits, token=token, loopback=local, coverage=coverage)
    listener = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    if not quiet:
        for note in loaded.notes(coverage):
            say(note)
    typer.echo(
        f"{loaded.facts.model} on {loaded.facts.preprocessing.backbone} at http://{shown}:{listener.getsockname()[1]}"
    )
    if not quiet:
        say("Stop it with Ctrl-C.")
    level = logging.INFO if verbose else logging.WARNING
    config = uvicorn.Config(
        service, log_level=level, access_log=verbose, server_header=False, timeout_graceful_shutdown=5
    )
    with contextlib.suppress(InterruptError):  # Ctrl-C, as asked for
        uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    from ball_features.errors import ConfigError

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"{host}:{port} cannot be listened on ({error.strerror or error}). Give another --port."
        ) from error
    return listener
