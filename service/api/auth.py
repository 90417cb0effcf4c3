"""Optional authentication with a bearer token; health checks and the page's files never require it.

curl -H 'Authorization: Bearer <token>' -F image=@104.png localhost:8080/recognize
"""

import hmac
from pathlib import Path

from flask import Request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Unauthorized

# Load balancers and Kubernetes call the health routes without a token. The responses are harmless:
# they contain only the health and the version of the model. The page asks visitors for the token.
PUBLIC_PATHS = {"/", "/healthz", "/v2/health/live", "/v2/health/ready"}
PUBLIC_FILES = "/static/"  # the files of the page


class TokenError(Exception):
    """The token file is unusable; the text is the sentence that the user reads."""


def read(file: Path) -> str:
    """Read the token from a file that contains only the token.

    Args:
        file: The path of the token file.

    Returns:
        The token, without surrounding whitespace.

    Raises:
        TokenError: The file cannot be read, is empty, or contains characters that a header cannot
            carry.
    """
    try:
        token = file.read_text("ascii").strip()
    except OSError as error:
        raise TokenError(f"the token file {file} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise TokenError(f"the token file {file} contains non-ASCII characters") from error
    if not token or not token.isprintable() or " " in token:
        raise TokenError(
            f"the token file {file} must contain exactly one word; create a token with "
            "`openssl rand -hex 32`"
        )
    return token


def allows(token: str | None, path: str, header: str | None) -> bool:
    """Return whether a request may be answered.

    Args:
        token: The token of the service, or None if it admits all requests.
        path: The path of the request.
        header: The request's `Authorization` header, or None if it has none.
    """
    if token is None or path in PUBLIC_PATHS or path.startswith(PUBLIC_FILES):
        return True
    scheme, _, credentials = (header or "").partition(" ")
    # A comparison in constant time does not reveal how many characters match.
    matches = hmac.compare_digest(credentials.strip().encode(), token.encode())
    return matches and scheme.lower() == "bearer"


def check(token: str | None, request: Request) -> None:
    """Check that a request carries the token of the service.

    Args:
        token: The token of the service, or None if it admits all requests.
        request: The request to check.

    Raises:
        Unauthorized: The request does not carry the token (401).
    """
    if not allows(token, request.path, request.environ.get("HTTP_AUTHORIZATION")):
        raise Unauthorized(
            "This service requires a token; send it in the header Authorization: Bearer <token>.",
            www_authenticate=WWWAuthenticate("bearer"),
        )
