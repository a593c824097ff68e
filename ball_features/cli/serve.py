"""`ball serve`."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from ball_features.cli.derive import command
from ball_features.cli.options import BundleFolder, BundleUse, Quiet
from ball_features.cli.root import InterruptError
from ball_features.cli.screen import echo, say
from ball_features.config import Coverage
from ball_features.config.fields import option

__all__ = ["COMMAND", "ServeOptions", "serve"]


@dataclass(frozen=True)
class ServeOptions(Coverage):
    """Options of `ball serve`."""

    host: str = option("127.0.0.1", "Address to listen on; any but this machine's own needs a token.")
    port: int = option(8000, "Port to listen on; 0 takes a free one.", low=0, high=65535)
    token: str = option("", "Secret of 16 or more characters that requests must bring.", environment="BALL_TOKEN")
    images: Path | None = option(
        None,
        "Folder or archive of the training images; the nearest ones are then shown as thumbnails, to all who may open "
        "the page, where their content is that in the cache of the model's run. None are shown if left out.",
    )
    max_megabytes: float = option(20.0, "Largest file that is taken, in megabytes.", panel="Limits", above=0)
    max_megapixels: float = option(25.0, "Largest image that is taken, in megapixels.", panel="Limits", above=0)
    max_rate: float = option(100.0, "Most requests that one address may send in a second.", panel="Limits", above=0)
    max_waiting: int = option(256, "Most images that may wait for the network.", panel="Limits", low=1)


def serve(bundle: BundleFolder, options: ServeOptions, use: BundleUse, shown: Quiet) -> None:
    """Serve a saved model on a page to drop images on, and to programs. Research use only, not a diagnosis.

    Listens on this machine only unless --host says otherwise, and then asks for
    --token. Images that arrive together go through the network together;
    nothing is written to disk. Programs ask by POST /v1/predict, which GET
    /openapi.json describes; /healthz and /metrics tell how the server does.
    """
    from ball_features.errors import ConfigError, require_extra

    for module in ("fastapi", "uvicorn", "prometheus_client"):
        require_extra(module, "serve", "ball serve")

    from ball_features.bundles.bundle import read_bundle
    from ball_features.bundles.predictor import Predictor
    from ball_features.dataset.manifest import open_images
    from ball_features.deployment.limits import Limits, is_loopback, require_token
    from ball_features.deployment.listen import bind, run_server
    from ball_features.deployment.serve import create_app
    from ball_features.reporting.markup import Thumbnails
    from ball_features.runs.kept_cache import cache_of_bundle

    local = is_loopback(options.host)
    try:
        require_token(options.token, loopback=local)
    except ConfigError as error:
        if options.token:
            raise
        raise ConfigError(
            f"--host {options.host} can be reached from other machines and needs a token. "
            "Set one: BALL_TOKEN=$(openssl rand -hex 16) ball serve ..."
        ) from error
    images = None if options.images is None else open_images(options.images)
    limits = Limits(options.max_megabytes, options.max_megapixels, options.max_rate, options.max_waiting)
    with contextlib.closing(bind(options.host, options.port)) as listener:
        loaded = read_bundle(bundle, trust=use.trust)
        known = None if images is None else cache_of_bundle(bundle, loaded)
        if not shown.quiet:
            say("Loading the network ...")
        predictor = Predictor(loaded, weights=use.weights, device=use.device, precision=use.precision, compiled=True)
        predictor.warm_up()
        service = create_app(
            predictor,
            limits=limits,
            token=options.token,
            loopback=local,
            coverage=options.coverage,
            pictures=Thumbnails(images, known),
        )

        def announce(address: str) -> None:
            if not shown.quiet:
                for note in loaded.notes(options.coverage):
                    say(note)
                if images is not None and known is None:
                    say(
                        "No pictures of the nearest training images are shown, since nothing tells whether the files "
                        "in --images are those of the model: the hashes of these are in the cache of its run. Serve it "
                        "from its run's folder (RUN/models/MODEL), with that cache where the run names it."
                    )
            echo(f"{loaded.facts.model} on {loaded.facts.preprocessing.backbone.name} at {address}")
            if not shown.quiet:
                say("Stop it with Ctrl-C.")

        with contextlib.suppress(InterruptError):  # Ctrl-C ends the server as it should
            run_server(service, listener, announce, verbose=shown.verbose, limits=limits)


COMMAND = command(serve)
