"""What a server admits: sizes and rates, and tokens where other machines can ask."""

from __future__ import annotations

import ipaddress
import re
import time
import urllib.parse
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from ball_features.errors import ConfigError

__all__ = [
    "Limits",
    "Memory",
    "TokenBuckets",
    "bearer",
    "is_loopback",
    "is_of_another_page",
    "media_type",
    "require_token",
    "stated_bytes",
]

_ADDRESSES = 10_000  # whose rates are remembered
_ADDRESS = 64  # characters that tell one address from another; a proxy's header may hold any
_TOKEN = 16  # least number of characters
_MOST = 1e9  # of any limit


@dataclass(frozen=True)
class Limits:
    """What the server accepts.

    Attributes:
        megabytes: size of a file in megabytes.
        megapixels: size of an image in megapixels.
        requests_per_s: requests of one address in a second; twice as many, and at least one, may come at once.
        waiting: number of images that may wait for the network.
        total_megabytes: size in megabytes of all files that have come, whole or in part, and are not answered yet.
        connections: number of connections that are open at once.
        patient_images: number of images of one patient in a request.
        patient_megabytes: size of such a request in megabytes, base64 included.
        headers_s: seconds in which the head of a request must come.
        answer_s: seconds in which a client must take some of its answer.
        ahead: requests in a row that a connection may send before it has the answer to the one before.
    """

    megabytes: float = 20.0
    megapixels: float = 25.0
    requests_per_s: float = 100.0
    waiting: int = 256
    total_megabytes: float = 256.0
    connections: int = 500
    headers_s: float = 10.0
    patient_images: int = 64
    patient_megabytes: float = 100.0
    answer_s: float = 15.0
    ahead: int = 4

    def __post_init__(self) -> None:
        """Check ranges."""
        for name, value in vars(self).items():
            if not 0 < value <= _MOST:
                raise ConfigError(f"Got {name}={value}, expected a number above 0, up to {_MOST:g}.")


class TokenBuckets:
    """A token bucket for each address (Turner 1986).

    Args:
        rate: requests a second of one address; twice as many, and at least one, may come at once.
    """

    def __init__(self, rate: float) -> None:
        self.rate, self.most = rate, max(2 * rate, 1.0)
        self.level: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str) -> bool:
        """Count a request and return whether it is within the rate."""
        now, address = time.monotonic(), address[:_ADDRESS]
        level, then = self.level.pop(address, (self.most, now))
        level = min(self.most, level + (now - then) * self.rate)
        allowed = level >= 1
        self.level[address] = (level - allowed, now)
        while len(self.level) > _ADDRESSES:
            self.level.popitem(last=False)
        return allowed


class Memory:
    """Bytes that all requests in hand hold together.

    Args:
        most: largest number of bytes.
    """

    def __init__(self, most: int) -> None:
        self.most, self.held = most, 0

    async def share(self) -> AsyncGenerator[Callable[[int], bool], None]:
        """The share of one request: a function that takes so many bytes, and returns whether there was room."""
        own = 0

        def take(count: int) -> bool:
            nonlocal own
            if self.held + count > self.most:
                return False
            self.held, own = self.held + count, own + count
            return True

        try:
            yield take
        finally:
            self.held -= own


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def bearer(authorization: str) -> str:
    """The token in an Authorization header of the scheme Bearer, in any letter case (RFC 9110); "" for any other."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def media_type(content_type: str) -> str:
    """The type of a header Content-Type without parameters, in small letters (RFC 9110)."""
    return content_type.partition(";")[0].strip().lower()


def stated_bytes(content_length: str) -> float:
    """The number of bytes that a header Content-Length states; 0 for anything but ASCII digits (RFC 9110)."""
    return float(content_length) if re.fullmatch(r"[0-9]+", content_length) else 0


def is_of_another_page(origin: str, host: str) -> bool:
    """Whether a browser sends a request for a page that this server did not give, by the headers Origin and Host."""
    try:
        return bool(origin) and urllib.parse.urlsplit(origin).netloc.lower() != host.lower()
    except ValueError:  # no address; this server's pages have one
        return True


def require_token(token: str, *, loopback: bool) -> None:
    """Raise `ConfigError` for a token that is short or no header can carry, or for a missing one that is needed.

    Args:
        token: token, or "".
        loopback: True if only this machine can ask, which needs none.
    """
    if token and len(token) < _TOKEN:
        raise ConfigError(f"Got a token of {len(token)} characters, expected {_TOKEN} or more: openssl rand -hex 16")
    if not re.fullmatch("[!-~]*", token):  # others are sent in more than one encoding, or not at all
        raise ConfigError(
            "Got a token with spaces, control characters or others than those of ASCII, expected letters, digits and "
            "punctuation alone: openssl rand -hex 16"
        )
    if not token and not loopback:
        raise ConfigError(
            f"Got no token that other machines must bring, expected {_TOKEN} characters or more: openssl rand -hex 16"
        )
