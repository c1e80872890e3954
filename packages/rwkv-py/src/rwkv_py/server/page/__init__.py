"""`GET /`: a page to talk on, in the browser of whoever may reach the server.

Its files are plain: HTML, CSS and JavaScript modules in `files/`, which a browser loads as they
stand.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import NamedTuple

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

__all__ = ["PATHS", "router"]

router = APIRouter(include_in_schema=False)

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}

# Nothing from other hosts, nothing inline, no text that becomes markup, no page around this one.
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; object-src 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-cache",  # ask each time: what is not changed is not sent again
}


class _File(NamedTuple):
    data: bytes
    headers: dict[str, str]


def _read_files() -> dict[str, _File]:
    found = {}
    for entry in resources.files(__name__).joinpath("files").iterdir():
        kind = entry.name.rpartition(".")[2]
        if kind in _TYPES:
            data = entry.read_bytes()
            etag = f'"{hashlib.sha256(data).hexdigest()[:24]}"'
            headers = {**_HEADERS, "Content-Type": _TYPES[kind], "ETag": etag}
            found[entry.name] = _File(data, headers)
    return found


_FILES = _read_files()

PATHS = frozenset({"/", *(f"/page/{name}" for name in _FILES)})
"""The paths of the page: what is there is no secret, so that they need no key."""


@router.api_route("/", methods=["GET", "HEAD"])
async def show(request: Request) -> Response:
    """Return the page."""
    return _answer(request, "index.html")


@router.api_route("/page/{name}", methods=["GET", "HEAD"])
async def show_file(name: str, request: Request) -> Response:
    """Return a file of the page."""
    return _answer(request, name)


def _answer(request: Request, name: str) -> Response:
    file = _FILES.get(name)
    if file is None:
        raise HTTPException(404)
    known = {each.strip() for each in request.headers.get("if-none-match", "").split(",")}
    if file.headers["ETag"] in known:
        return Response(status_code=304, headers=file.headers)
    return Response(file.data, headers=file.headers)
