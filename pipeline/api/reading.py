"""A request's body: read up to its bound, and taken as strict JSON.

Strict: UTF-8, every name once in its object, no NaN or Infinity. What two
readers could understand differently is refused, so that what was checked is what is recorded.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Final, NoReturn

from pipeline.api.problems import Kind, Refusal

JSON: Final = "application/json"
TEXT: Final = "text/plain"  # what a page may send without asking first (CORS)


def check_type(content_type: str, content_encoding: str) -> None:
    """Raise ``Refusal`` unless a body of this type is taken."""
    media_type, _, rest = content_type.partition(";")
    if media_type.strip().lower() not in (JSON, TEXT):
        raise Refusal(Kind.CONTENT_TYPE, f"send {JSON} or {TEXT}")
    parameters = [part.strip().lower() for part in rest.split(";") if part.strip()]
    if any(part.replace('"', "") not in ("charset=utf-8", "charset=utf8") for part in parameters):
        raise Refusal(Kind.CONTENT_TYPE, "the only parameter is charset=utf-8")
    if content_encoding.strip().lower() not in ("", "identity"):
        raise Refusal(Kind.CONTENT_TYPE, "compressed bodies are not taken")


async def read_body(
    stream: AsyncIterator[bytes], content_length: str, *, max_bytes: int, timeout_s: float
) -> bytes:
    """The whole body; never more than ``max_bytes`` of it is held, whatever the header says.

    Raises:
        Refusal: Too large, or not there after ``timeout_s``.
    """
    too_large = Refusal(Kind.BODY_TOO_LARGE, f"at most {max_bytes} bytes")
    if content_length.isdecimal() and (len(content_length) > 18 or int(content_length) > max_bytes):
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for piece in stream:
                body += piece
                if len(body) > max_bytes:
                    raise too_large
    except TimeoutError:
        raise Refusal(Kind.BODY_TIMEOUT, f"it must be there after {timeout_s:g} s") from None
    return bytes(body)


def parse(body: bytes) -> dict[str, Any]:
    """The body's object.

    Raises:
        Refusal: It is not strict JSON, or no object.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise Refusal(Kind.MALFORMED_BODY, "it is not UTF-8") from None
    try:
        parsed = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except Refusal:
        raise
    except RecursionError:
        raise Refusal(Kind.MALFORMED_BODY, "lists and objects nest too deep") from None
    except ValueError:
        raise Refusal(Kind.MALFORMED_BODY, "it is not JSON") from None
    if not isinstance(parsed, dict):
        raise Refusal(Kind.MALFORMED_BODY, "it is not a JSON object")
    return parsed


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Refusal(Kind.MALFORMED_BODY, "an object has a name twice")
    return found


def _no_constant(_name: str) -> NoReturn:
    raise Refusal(Kind.MALFORMED_BODY, "NaN and Infinity are no JSON")
