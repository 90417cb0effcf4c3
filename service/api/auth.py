"""Who may ask: with a token, only those who send it, but for the health of the service.

curl -H 'Authorization: Bearer <token>' -F image=@104.png localhost:8080/recognize
"""

import hmac
from pathlib import Path

from flask import Request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Unauthorized

# What asks for these, a load balancer or Kubernetes, has no token, and learns nothing else.
OPEN = {"/healthz", "/v2/health/live", "/v2/health/ready"}


class TokenError(Exception):
    """The file has no token; the text is the one sentence that says why."""


def read(file: Path) -> str:
    """The only line of a file.

    Raises:
        TokenError: it cannot be read, is empty, or holds what no header can.
    """
    try:
        token = file.read_text("ascii").strip()
    except OSError as error:
        raise TokenError(f"the token file {file} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise TokenError(f"the token file {file} holds other characters than ASCII") from error
    if not token or not token.isprintable() or " " in token:
        raise TokenError(
            f"the token file {file} does not hold one word; make one with `openssl rand -hex 32`"
        )
    return token


def allows(token: str | None, path: str, header: str | None) -> bool:
    """Whether a request for `path` with this header `Authorization` may be answered."""
    if token is None or path in OPEN:
        return True
    scheme, _, given = (header or "").partition(" ")
    # In a time that does not tell how much of it was right.
    right = hmac.compare_digest(given.strip().encode(), token.encode())
    return right and scheme.lower() == "bearer"


def check(token: str | None, request: Request) -> None:
    """Raises 401 for a request that is not allowed."""
    if not allows(token, request.path, request.environ.get("HTTP_AUTHORIZATION")):
        raise Unauthorized(
            "This service asks for a token; send it in the header Authorization: Bearer <token>.",
            www_authenticate=WWWAuthenticate("bearer"),
        )
