"""The application behind `ball serve`: a page to drop images on and an HTTP interface. Nothing is written to disk."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import secrets
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

import numpy as np
from anyio import CapacityLimiter, to_thread
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect

from ball_features import __version__
from ball_features.bundles.bundle import COVERAGE
from ball_features.bundles.predictor import Predictor, check_coverage
from ball_features.dataset.decode import decode_bytes
from ball_features.deployment.activation import activation_map
from ball_features.deployment.batching import Batcher, BusyError
from ball_features.deployment.browser import browser_page
from ball_features.deployment.limits import Limits, TokenBuckets, is_loopback, require_token
from ball_features.errors import ImageError
from ball_features.extraction.batch import batch_size
from ball_features.extraction.loading import resize
from ball_features.threads import core_count

__all__ = ["create_app"]

_NOT_FOR_PATIENTS = "Research use only, not a diagnosis."
_KINDS = ("image/", "application/octet-stream")
_BODY_S = 30.0  # seconds that a body may take to arrive


class ActivationMap(BaseModel):
    """Where the network looked: the share of each place in the class's logit minus the mean over classes."""

    height: int
    width: int
    values: list[float] = Field(description="Row by row; positive values support the class, negative oppose it.")


class Answer(BaseModel):
    """A prediction."""

    predicted: str = Field(description="The most probable class. Research use only, not a diagnosis.")
    probability: dict[str, float] = Field(description="Calibrated on validation images.")
    set: list[str] = Field(
        description="Classes that include the true one at the stated coverage, on images like those of training."
    )
    coverage: float
    distance: float = Field(description="Mean cosine distance to the nearest training images.")
    unusual: bool = Field(description="True for an image unlike the training images: do not trust the class.")
    nearest: list[str] = Field(description="Ids of the nearest training images.")
    map: ActivationMap | None = Field(None, description="If requested, and if the model and its view have one.")
    caveat: str = ""
    notes: list[str] = Field(description="What a reader must know about `set` and `unusual`.")


class Health(BaseModel):
    """What is being served."""

    status: str
    model: str
    backbone: str
    classes: list[str]
    token: bool = Field(description="True if requests need a token.")
    unusual_from: float = Field(description="Distance beyond which distance alone makes an image unusual.")
    unusual_share: float = Field(description="Largest share of images like the validation images that lies beyond it.")


class _Meters:
    """What /metrics reports."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        own: Any = {"registry": self.registry}
        self.requests = Counter("ball_requests", "Requests by status.", ["status"], **own)
        self.seconds = Histogram("ball_predict_seconds", "Seconds from a body's arrival to its answer.", **own)
        sizes = (1, 2, 4, 8, 16, 32, 64, 128)
        self.batches = Histogram("ball_batch_images", "Images in a forward pass.", buckets=sizes, **own)
        self.unusual = Counter("ball_unusual", "Images flagged as unlike the training images.", **own)
        self.waiting = Gauge("ball_waiting_images", "Images that wait for the network.", **own)


def create_app(
    predictor: Predictor,
    *,
    limits: Limits | None = None,
    token: str = "",
    loopback: bool = True,
    coverage: float = COVERAGE,
) -> FastAPI:
    """Return the application.

    Args:
        predictor: predictor with its network loaded.
        limits: sizes and rates that are accepted; the defaults if None.
        token: secret of 16 characters or more that requests must bring; "" asks for none, on loopback only.
        loopback: True answers only to names of this machine, so that no web page can reach it under another name.
        coverage: coverage of prediction sets if a request names none, above 0 and below 1.

    Raises:
        ConfigError: The token is too short or missing, or the coverage is out of range.
    """
    limits = limits or Limits()
    require_token(token, loopback=loopback)
    check_coverage(coverage)
    meters, buckets = _Meters(), TokenBuckets(limits.requests_per_s)
    # Decoding and the network share the cores; more at once would only hold more pixels in memory.
    decoding = CapacityLimiter(core_count())
    size = batch_size(predictor.device.type, predictor.engine.precision, predictor.backbone.input_px)
    page, policy = browser_page()
    facts = predictor.bundle.facts

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.batcher = Batcher(predictor.embed, size=size, waiting=limits.waiting, seen=meters.batches.observe)
        yield
        app.state.batcher.close()

    app = FastAPI(
        title="ball",
        version=__version__,
        description=_NOT_FOR_PATIENTS,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )

    @app.middleware("http")
    async def guard(request: Request, proceed: Any) -> Response:
        host = re.sub(r":\d+$", "", request.headers.get("host", "")).strip("[]")
        if loopback and not is_loopback(host):
            response: Response = JSONResponse({"detail": f"Got the host {host!r}, expected this machine."}, 421)
        else:
            response = await proceed(request)
        meters.requests.labels(str(response.status_code)).inc()
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-store"
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    def check_token(request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token and not secrets.compare_digest(given.encode(), token.encode()):
            raise HTTPException(401, "This server needs its token: Authorization: Bearer TOKEN.")

    async def read_body(request: Request) -> bytes:
        kind = request.headers.get("content-type", "")
        if not kind.startswith(_KINDS):
            raise HTTPException(
                415, f"Got the content type {kind!r}, expected image/... or {_KINDS[1]}: the bare file."
            )
        most = int(limits.megabytes * 1e6)
        too_large = HTTPException(413, f"The file is larger than {limits.megabytes:g} MB.")
        stated = request.headers.get("content-length", "")
        if stated.isdigit() and int(stated) > most:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(_BODY_S):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > most:
                        raise too_large
        except ClientDisconnect as error:  # nobody reads this answer, but it is not the server's fault
            raise HTTPException(400, "The file did not arrive whole.") from error
        except TimeoutError as error:
            raise HTTPException(408, f"The file took more than {_BODY_S:g} s to arrive.") from error
        return bytes(body)

    @app.post(
        "/v1/predict",
        dependencies=[Depends(check_token)],
        responses={code: {"description": text} for code, text in _REFUSALS.items()},
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    kind: {"schema": {"type": "string", "format": "binary"}} for kind in ("image/*", _KINDS[1])
                },
            }
        },
    )
    async def predict(
        request: Request,
        map: Annotated[bool, Query(description="Add the class activation map.")] = False,
        coverage: Annotated[float, Query(gt=0, lt=1, description="Coverage of the prediction set.")] = coverage,
    ) -> Answer:
        """Predict one image; its file is the body."""
        if not buckets.take(request.client.host if request.client else ""):
            raise HTTPException(429, f"More than {limits.requests_per_s:g} requests a second.", {"Retry-After": "1"})
        body = await read_body(request)
        start = time.perf_counter()
        meters.waiting.set(app.state.batcher.waiting)

        def load() -> Any:
            return resize(decode_bytes(body, int(limits.megapixels * 1e6)), predictor.backbone.input_px)

        try:
            image = await to_thread.run_sync(load, limiter=decoding)
        except ImageError as error:
            raise HTTPException(422, f"The file {error}.") from error
        digest = hashlib.sha256(body).hexdigest()
        try:
            row = await asyncio.wrap_future(app.state.batcher.submit(image, digest))
        except BusyError as error:
            raise HTTPException(503, str(error), {"Retry-After": "1"}) from error
        answer = await to_thread.run_sync(_answer, predictor, row, image, digest, coverage, map, limiter=decoding)
        meters.unusual.inc(answer.unusual)
        meters.seconds.observe(time.perf_counter() - start)
        return answer

    @app.get("/healthz")
    async def healthz() -> Health:
        """Report that the server answers, and what it serves."""
        return Health(
            status="ok",
            model=facts.model,
            backbone=facts.preprocessing.backbone,
            classes=list(predictor.bundle.classes),
            token=bool(token),
            unusual_from=predictor.bundle.unusual_from,
            unusual_share=predictor.bundle.unusual_share,
        )

    @app.get("/metrics", dependencies=[Depends(check_token)], response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Return counters in Prometheus' text format."""
        meters.waiting.set(app.state.batcher.waiting)
        return Response(generate_latest(meters.registry), media_type="text/plain; version=0.0.4")

    @app.get("/", include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy, "X-Frame-Options": "DENY"})

    return app


_REFUSALS = {
    400: "The file did not arrive whole.",
    401: "The token is missing or wrong.",
    408: "The file took too long to arrive.",
    413: "The file is too large.",
    415: "The body is not the bare file.",
    422: "The file is no image, damaged, or has too many pixels; or a parameter is out of range.",
    429: "Too many requests a second.",
    503: "Too many images wait; try again.",
}


def _answer(predictor: Predictor, row: np.ndarray, image: Any, digest: str, coverage: float, mapped: bool) -> Answer:
    found = predictor.describe([""], row[None], coverage)[0]
    shown = None
    if mapped:
        values = activation_map(predictor, image, digest, predictor.bundle.classes.index(found.predicted))
        if values is not None:
            shown = ActivationMap(
                height=values.shape[0], width=values.shape[1], values=[round(float(v), 5) for v in values.ravel()]
            )
    return Answer(
        predicted=found.predicted,
        probability=found.probability,
        set=list(found.set),
        coverage=coverage,
        distance=found.distance,
        unusual=found.unusual,
        nearest=list(found.nearest),
        map=shown,
        caveat=predictor.caveat,
        notes=predictor.bundle.notes(coverage),
    )
