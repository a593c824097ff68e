"""The application behind `ball serve`: a page to drop images on and an HTTP interface. Nothing is written to disk."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import numpy as np
from anyio import CapacityLimiter, to_thread
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from prometheus_client import generate_latest
from starlette.requests import ClientDisconnect

from ball_features import __version__
from ball_features.bundles.bundle import Bundle
from ball_features.bundles.prediction import describe
from ball_features.bundles.predictor import Predictor
from ball_features.config import COVERAGE, Coverage
from ball_features.dataset.decode import decode_bytes
from ball_features.deployment.batching import Batcher, BusyError
from ball_features.deployment.browser import browser_page
from ball_features.deployment.exchange import Exchange
from ball_features.deployment.limits import (
    Limits,
    Memory,
    TokenBuckets,
    bearer,
    is_loopback,
    is_of_another_page,
    media_type,
    require_token,
    stated_bytes,
)
from ball_features.deployment.map_reply import reply_with_map
from ball_features.deployment.meters import Meters
from ball_features.deployment.patient_replies import reply_for_patient
from ball_features.deployment.patient_requests import file_of, patient_request, read_request
from ball_features.deployment.recent import Recent
from ball_features.deployment.replies import REFUSALS, Alarm, Answer, Health, PatientReply
from ball_features.deployment.site_requests import bundle_of_site, known_sites, site_notes
from ball_features.errors import ConfigError, ImageError
from ball_features.extraction.loading import resize
from ball_features.extraction.memory import batch_size
from ball_features.reporting.markup import Thumbnails
from ball_features.threads import core_count

__all__ = ["create_app"]

_NOT_FOR_PATIENTS = "Research use only, not a diagnosis."
_KINDS = ("image/", "application/octet-stream")
_JSON = "application/json"
_SITE = "Site of the images (hospital, scanner), for a site-adapted bundle that knows it."
_BODY_S = 30.0  # seconds that a body may take to arrive


def create_app(
    predictor: Predictor,
    *,
    limits: Limits | None = None,
    token: str = "",
    loopback: bool = True,
    coverage: float = COVERAGE,
    pictures: Thumbnails | None = None,
) -> FastAPI:
    """Return the application.

    Args:
        predictor: predictor with its network loaded.
        limits: sizes and rates that are accepted; the defaults if None.
        token: secret of 16 characters or more that requests must bring; "" asks for none, on loopback only.
        loopback: True answers only to names of this machine, so that no web page can reach it under another name.
        coverage: coverage of prediction sets if a request names none, above 0 and below 1.
        pictures: thumbnails of the training images, of which the nearest are shown, where their files have the hashes
            that are known of them; None shows none.

    Raises:
        ConfigError: The token is too short or missing, or the coverage is out of range.
    """
    limits = limits or Limits()
    require_token(token, loopback=loopback)
    Coverage(coverage)  # its range is checked
    meters, buckets = Meters(), TokenBuckets(limits.requests_per_s)
    memory = Memory(int(limits.total_megabytes * 1e6))
    recent = Recent(predictor.bundle.classes, predictor.bundle.unusual_share)
    # Decoding and the network share the cores; more at once would only hold more pixels in memory.
    decoding = CapacityLimiter(core_count())
    size = batch_size(predictor.device.type, predictor.engine.precision, predictor.backbone.input_px)
    (page, policy), facts = browser_page(), predictor.bundle.facts
    thumbnails = (pictures or Thumbnails(None)).compared()  # a picture of another patient under a name does harm
    patient_kind, most_images = patient_request(limits.patient_images), limits.patient_images

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
        exchange, host = Exchange(), re.sub(r":\d+$", "", request.headers.get("host", "")).strip("[]")
        if loopback and not is_loopback(host):
            response: Response = JSONResponse({"detail": f"Got the host {host!r}, expected this machine."}, 421)
        elif not token and is_of_another_page(request.headers.get("origin", ""), request.headers.get("host", "")):
            response = JSONResponse({"detail": "The request comes from another page, expected this server's own."}, 403)
        else:
            try:
                response = await proceed(request)
            except Exception as error:
                response = exchange.failed(error)
        meters.requests.labels(str(response.status_code)).inc()
        return exchange.end(request, response)

    def check_token(request: Request) -> None:
        given = bearer(request.headers.get("authorization", ""))
        if token and not secrets.compare_digest(given.encode(), token.encode()):
            raise HTTPException(401, "This server needs its token: Authorization: Bearer TOKEN.")

    def check_rate(request: Request) -> None:
        if not buckets.take(request.client.host if request.client else ""):
            raise HTTPException(429, f"More than {limits.requests_per_s:g} requests a second.", {"Retry-After": "1"})

    async def read_body(
        request: Request, take: Callable[[int], bool], kinds: tuple[str, ...], megabytes: float
    ) -> bytes:
        kind = media_type(request.headers.get("content-type", ""))
        if not kind.startswith(kinds):
            raise HTTPException(415, f"Got the content type {kind!r}, expected {' or '.join(kinds)}.")
        most = int(megabytes * 1e6)
        too_large = HTTPException(413, f"The body is larger than {megabytes:g} MB.")
        if stated_bytes(request.headers.get("content-length", "")) > most:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(_BODY_S):
                async for chunk in request.stream():
                    if not take(len(chunk)):
                        raise HTTPException(503, "Too many files arrive at once. Try again.", {"Retry-After": "1"})
                    body += chunk
                    if len(body) > most:
                        raise too_large
        except ClientDisconnect as error:  # nobody reads this answer, but it is not the server's fault
            raise HTTPException(400, "The file did not arrive whole.") from error
        except TimeoutError as error:
            raise HTTPException(408, f"The file took more than {_BODY_S:g} s to arrive.") from error
        return bytes(body)

    def of_site(site: str) -> Bundle:
        try:
            return bundle_of_site(predictor.bundle, site)
        except ConfigError as error:
            raise HTTPException(422, str(error)) from error

    def load(data: bytes) -> Any:
        return resize(decode_bytes(data, int(limits.megapixels * 1e6)), predictor.backbone.input_px)

    async def embed(image: Any, digest: str) -> np.ndarray:
        try:
            return await asyncio.wrap_future(app.state.batcher.submit(image, digest))
        except BusyError as error:
            raise HTTPException(503, str(error), {"Retry-After": "1"}) from error

    async def embed_in_turn(image: Any, digest: str, turn: asyncio.Semaphore) -> np.ndarray:
        async with turn:
            return await embed(image, digest)

    def raised() -> list[Alarm]:
        return [Alarm(code=one.code, severity=one.severity, sentence=one.sentence) for one in recent.findings]

    @app.post(
        "/v1/predict",
        dependencies=[Depends(check_token)],
        responses={code: {"description": text} for code, text in REFUSALS.items()},
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
        site: Annotated[str, Query(max_length=200, description=_SITE)] = "",
        take: Any = Depends(memory.share),  # noqa: B008, since annotations are looked up among globals
    ) -> Answer:
        """Predict one image; its file is the body."""
        check_rate(request)
        own = of_site(site)
        body = await read_body(request, take, _KINDS, limits.megabytes)
        start = time.perf_counter()
        meters.waiting.set(app.state.batcher.waiting)
        try:
            image = await to_thread.run_sync(load, body, limiter=decoding)
        except ImageError as error:
            raise HTTPException(422, f"The file {error}.") from error
        digest = hashlib.sha256(body).hexdigest()
        row = await embed(image, digest)
        colours = predictor.histogram(image[None])
        found = (await to_thread.run_sync(describe, own, [""], row[None], coverage, colours, limiter=decoding))[0]
        shown, near = None, []
        if map:
            shown = await to_thread.run_sync(reply_with_map, predictor, found, image, digest, limiter=decoding)
            near = await to_thread.run_sync(thumbnails.addresses, found.nearest, limiter=decoding)
        recent.add([found])
        meters.unusual.inc(found.unusual)
        meters.seconds.observe(time.perf_counter() - start)
        values = {name: value for name, value in found.to_dict().items() if name != "path"}
        more = {"coverage": coverage, "caveat": predictor.caveat, "notes": site_notes(own, site, coverage)}
        return Answer(**values, **more, map=shown, nearest_picture=near, alarm=raised())

    @app.post(
        "/v1/patients",
        dependencies=[Depends(check_token)],
        responses={code: {"description": text} for code, text in REFUSALS.items()},
        openapi_extra={"requestBody": {"required": True, "content": {_JSON: {"schema": patient_kind.whole_schema()}}}},
    )
    async def predict_patient(
        request: Request,
        coverage: Annotated[float, Query(gt=0, lt=1, description="Coverage of the prediction sets.")] = coverage,
        site: Annotated[str, Query(max_length=200, description=_SITE)] = "",
        take: Any = Depends(memory.share),  # noqa: B008, since annotations are looked up among globals
    ) -> PatientReply:
        """Predict one patient from several images, whose files are base64 in JSON; one answer."""
        check_rate(request)
        own = of_site(site)
        body = await read_body(request, take, (_JSON,), limits.patient_megabytes)
        start = time.perf_counter()
        try:
            asked = await to_thread.run_sync(read_request, patient_kind, most_images, body, limiter=decoding)
        except ConfigError as error:
            raise HTTPException(422, str(error)) from error
        rejected, waiting, names, colours = [], [], [], []
        turn = asyncio.Semaphore(max(1, limits.waiting // 2))  # a patient's own images do not fill the queue
        for number, file in enumerate(asked.images):
            try:
                data = await to_thread.run_sync(file_of, file, limits.megabytes, limiter=decoding)
                image = await to_thread.run_sync(load, data, limiter=decoding)
            except ImageError as error:
                rejected.append((file.name or str(number), str(error)))
                continue
            waiting.append(embed_in_turn(image, hashlib.sha256(data).hexdigest(), turn))
            names.append(file.name or str(number))
            colours.append(predictor.histogram(image[None]))
        if not waiting:
            raise HTTPException(422, f"None of the {len(asked.images)} files is an image that can be decoded.")
        rows = np.stack(await asyncio.gather(*waiting))
        seen = None if colours[0] is None else np.concatenate(colours)
        found = await to_thread.run_sync(describe, own, names, rows, coverage, seen, limiter=decoding)
        recent.add(found)
        meters.unusual.inc(sum(item.unusual for item in found))
        meters.seconds.observe(time.perf_counter() - start)
        reply = reply_for_patient(predictor, asked.patient, found, rejected, coverage)
        return reply.model_copy(update={"notes": site_notes(own, site, coverage)})

    @app.get("/healthz")
    async def healthz() -> Health:
        """Report that the server answers, and what it serves."""
        return Health(
            status="ok",
            model=facts.model,
            backbone=facts.preprocessing.backbone.name,
            classes=list(predictor.bundle.classes),
            sites=known_sites(predictor.bundle),
            token=bool(token),
            unusual_from=predictor.bundle.unusual_from,
            unusual_share=predictor.bundle.unusual_share,
            alarm=[] if token else raised(),
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
