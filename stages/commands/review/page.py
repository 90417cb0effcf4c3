"""The local page of a review, on the loopback interface.

Other web pages in the same browser can send requests to it, and can give their own host name its
address. So each request must name this address as its host, and each change must come from this
page.
"""

import io
import json
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from service.recognition import images
from stages.commands.review.inbox import InboxError, Label
from stages.commands.review.session import Session
from stages.common.runner import StageError

STATIC = Path(__file__).parent / "static"
FILES = {
    "/": ("review.html", "text/html; charset=utf-8"),
    "/review.css": ("review.css", "text/css; charset=utf-8"),
    "/review.js": ("review.js", "text/javascript; charset=utf-8"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
MAX_BODY = 1 << 16  # bytes
PICTURE_SIDE = 320  # pixels


class Action(BaseModel):
    """The body of a request that changes something."""

    model_config = ConfigDict(extra="forbid", strict=True)

    hashes: list[str] = []
    label: Label | None = None


class Server(ThreadingHTTPServer):
    """The server of one review."""

    daemon_threads = True

    def __init__(self, session: Session, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.session = session
        self.hosts = {f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")}


class Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = 30  # seconds

    def do_GET(self) -> None:
        if not self._is_allowed_host():
            return
        folder, _, name = self.path.lstrip("/").partition("/")
        if self.path in FILES:
            file, content_type = FILES[self.path]
            self._send(HTTPStatus.OK, (STATIC / file).read_bytes(), content_type)
        elif self.path == "/state":
            with self.server.session.lock:
                self._send_json(HTTPStatus.OK, self.server.session.state())
        elif folder in ("picture", "image") and name in self.server.session.corrections:
            self._send_picture(folder, name)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "There is nothing at this address.")

    def do_POST(self) -> None:
        if not self._is_allowed_host():
            return
        if self.headers["Origin"] != f"http://{self.headers['Host']}":
            self._refuse(HTTPStatus.FORBIDDEN, "Only the page of the review can change it.")
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The request is too long.")
            return
        try:
            action = Action.model_validate_json(self.rfile.read(int(length)))
        except ValidationError:
            self._refuse(HTTPStatus.BAD_REQUEST, "The request is not valid.")
            return
        with self.server.session.lock:
            try:
                self._act(action)
            except (OSError, StageError) as error:
                self._refuse(HTTPStatus.CONFLICT, f"{error}")

    def _act(self, action: Action) -> None:
        session = self.server.session
        answer: dict[str, Any] = {}
        match self.path:
            case "/accept":
                answer["message"] = session.accept(action.hashes, action.label)
            case "/reject":
                session.reject(action.hashes)
            case "/undo":
                answer["undone"] = session.undo()
            case "/finish":
                self._send_json(HTTPStatus.OK, {"summary": session.finish()})
                # `shutdown` waits for the thread that accepts connections, not for this one.
                Thread(target=self.server.shutdown).start()
                return
            case _:
                self._refuse(HTTPStatus.NOT_FOUND, "There is nothing at this address.")
                return
        self._send_json(HTTPStatus.OK, session.state() | answer)

    def _is_allowed_host(self) -> bool:
        if self.headers["Host"] in self.server.hosts:
            return True
        self._refuse(HTTPStatus.FORBIDDEN, "The host in the address is not the one of this page.")
        return False

    def _send_picture(self, kind: str, sha256: str) -> None:
        """Send a picture as a new PNG file, never in the bytes of its sender."""
        correction = self.server.session.corrections[sha256]
        try:
            if kind == "picture":
                gray = images.decode_gray(correction.content(), images.MAX_PIXELS)
                picture = Image.fromarray(gray)
                picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
            else:
                picture = Image.frombytes("L", (28, 28), correction.image or bytes(28 * 28))
        except InboxError as error:
            self._refuse(HTTPStatus.NOT_FOUND, f"{correction.picture} {error}.")
            return
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        self._send(HTTPStatus.OK, buffer.getvalue(), "image/png")

    def _refuse(self, status: HTTPStatus, sentence: str) -> None:
        self._send_json(status, {"error": sentence})

    def _send_json(self, status: HTTPStatus, content: object) -> None:
        self._send(status, json.dumps(content).encode(), "application/json")

    def _send(self, status: HTTPStatus, content: bytes, content_type: str) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Do not write requests to the terminal."""
