"""The page that the server shows in a browser."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

__all__ = ["browser_page"]


def browser_page() -> tuple[str, str]:
    """Return the page, and a content security policy under which only its own script and style run."""
    page = resources.files("ball_features.deployment").joinpath("page.html").read_text(encoding="utf-8")

    def allowed(tag: str) -> str:
        content = page.split(f"<{tag}>", 1)[1].split(f"</{tag}>", 1)[0]
        return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"

    return page, (
        f"default-src 'none'; script-src {allowed('script')}; style-src {allowed('style')}; img-src blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
