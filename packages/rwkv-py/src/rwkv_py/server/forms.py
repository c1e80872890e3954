"""Files that come in forms."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from .errors import ApiError

__all__ = ["form_with_file"]


@contextlib.asynccontextmanager
async def form_with_file(
    request: Request, what: str
) -> AsyncIterator[tuple[UploadFile, dict[str, str]]]:
    """Yield the file of a form, and the texts beside it.

    Args:
        request: whose body is the form.
        what: what the file is to be, such as "a state file".

    Raises:
        ApiError: there is no form, or no file in it.
    """
    try:
        form = await request.form(max_files=1, max_fields=16)
    except (HTTPException, FormParserError):
        raise ApiError(400, "body: expected a form with one file, got another") from None
    try:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            got = "none" if file is None else "a text"
            raise ApiError(400, f"file: expected {what}, got {got}")
        yield file, {key: value for key, value in form.items() if isinstance(value, str)}
    finally:
        await form.close()
