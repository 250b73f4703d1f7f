"""The status page: one HTML file without foreign parts, which fetches `/api/status` each second."""

import base64
import hashlib
import re
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


class Page:
    """The page and a policy that lets only its own script and style run."""

    def __init__(self) -> None:
        html = files("router.admin").joinpath("page.html").read_text(encoding="utf-8")
        hashes = {kind: _source_hash(text) for kind, text in _INLINE.findall(html)}
        self._content = html.encode()
        self._headers = {
            "content-security-policy": (
                f"default-src 'none'; connect-src 'self'; img-src data:; script-src {hashes['script']}; "
                f"style-src {hashes['style']}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            ),
            "cache-control": "no-store",
            "referrer-policy": "no-referrer",
            "x-content-type-options": "nosniff",
        }

    async def show(self, _request: Request) -> Response:
        return Response(self._content, headers=self._headers, media_type="text/html")


def _source_hash(text: str) -> str:
    """How a content security policy names an inline element: the digest of its text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
