"""A product's picture, fetched from the shop (`console.pictures`): no page asks another host for anything.

Only that one address is ever asked, for the path that the catalogue names. Where no picture comes, or one
that is too large, the first letter of the title stands for it.
"""

import threading
from urllib.parse import urljoin, urlsplit

import httpx
from markupsafe import Markup
from starlette.responses import Response

from monitoring.merchandising.fittings import fittings
from monitoring.pages.desk import Asked, Desk

PATIENCE_S, MOST_BYTES, KEPT = 2.0, 1 << 20, 400
KINDS = ("image/svg+xml", "image/png", "image/jpeg", "image/webp", "image/gif", "image/avif")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; sandbox",  # also where it is opened as a page
    "Cache-Control": "private, max-age=300",
}
LETTER = Markup(
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100">'
    '<rect width="100" height="100" fill="#e3e7eb"/><text x="50" y="66" font-size="46" '
    'text-anchor="middle" fill="#57616b" font-family="sans-serif">{}</text></svg>'
)
Picture = tuple[bytes, str]  # body, media type


class Pictures:
    """Those of the products that were looked at lately."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._client = httpx.Client(timeout=PATIENCE_S, follow_redirects=False, trust_env=False)
        self._kept: dict[str, Picture] = {}
        self._turn = threading.Lock()

    def of(self, path: str | None) -> Picture | None:
        """The picture at `path` of the shop; None for one elsewhere, or that does not come."""
        address = urljoin(self._base, path or "")
        if not path or urlsplit(address)[:2] != urlsplit(self._base)[:2]:
            return None
        with self._turn:
            if address in self._kept:
                return self._kept[address]
        found = self._fetched(address)
        with self._turn:
            if found and len(self._kept) >= KEPT:
                del self._kept[next(iter(self._kept))]
            if found:
                self._kept[address] = found
        return found

    def _fetched(self, address: str) -> Picture | None:
        try:
            with self._client.stream("GET", address) as answer:
                kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
                if answer.status_code != 200 or kind not in KINDS:
                    return None
                body = b""
                for chunk in answer.iter_bytes():
                    body += chunk
                    if len(body) > MOST_BYTES:
                        return None
                return body, kind
        except (httpx.HTTPError, httpx.InvalidURL):
            return None


def picture(desk: Desk, asked: Asked) -> Response:
    """Of the product `item_id`, whatever becomes of it."""
    item = asked.path["item_id"]
    path, title = fittings(desk).face(item)
    pictures = desk.once(Pictures, lambda: Pictures(desk.params.pictures))
    body, kind = pictures.of(path) or (LETTER.format((title or item)[:1].upper()).encode(), KINDS[0])
    return Response(body, media_type=kind, headers=HEADERS)
