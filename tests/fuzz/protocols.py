"""The server must answer any request without status 500, and an error in one sentence of JSON.

The responses of the fast path must equal those of Flask.

python -m tests.fuzz.protocols /tmp/protocols -max_total_time=600

The script needs data/model. An input is a request as text: the path, the headers, an empty line and
the body.
"""

import json
import os
from base64 import b64encode
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import BytesIO
from pathlib import Path

import atheris
import orjson

from tests import fuzz

with atheris.instrument_imports(include=["service", "PIL", "multipart", "werkzeug", "flask"]):
    from service import connections, scheduler
    from service.api import fast_path, open_inference
    from service.api.limits import Limits
    from service.served_model import Model

PNG = next(fuzz.PROJECT.glob("service/api/static/samples/*.png")).read_bytes()
IMAGE = [[0] * 28 for _ in range(28)]
TENSORFLOW, OPEN = "/v1/models/mnist:predict", "/v2/models/mnist/infer"
WORDS = (
    *("inputs", "instances", "image", "png_bytes", "b64", "signature_name", "recognize_png"),
    *("name", "shape", "datatype", "UINT8", "FP32", "BYTES", "data", "id", "outputs", "label"),
    *("parameters", "binary_data_size", "binary_data", "binary_data_output", "null", "true", "[]"),
    *("{}", "1e400", "-1", "0.5", "18446744073709551616", "[[", "]]", "[28,28]", "--x--"),
    *("Content-Disposition: form-data; name=image; filename=a", "filename*=UTF-8''a", "boundary"),
    *("Content-Type: ", "Content-Encoding: gzip", "charset=utf-16", "multipart/form-data"),
    *("?digits=many", "&preprocessed=true", "&probabilities=true", "/versions/", "/labels/", "%00"),
    *("?min_confidence=0.9", "&min_confidence=1", "1e-1"),
)


def target(content: bytes) -> None:
    head, _, body = content.partition(b"\n\n")
    request_target, *lines = head.decode("utf-8", "replace").split("\n")
    path, _, query = request_target.partition("?")
    # The HTTP parser refuses all other headers.
    pairs = (line.split(": ", 1) for line in lines if ": " in line and line.isascii())
    headers = {name.lower(): value for name, value in pairs if value.isprintable()}
    path = f"/{path[1:]}"
    status, answer_headers, answer = SCHEDULER._answer(_environ(path, query, headers, body))
    if path == fast_path.ROUTE and not query:
        # A query bypasses the fast path.
        from_flask = SCHEDULER._answer(_environ(path, "digits=one", headers, body))
        assert (status, answer) == from_flask[::2], from_flask
    assert status < 500, (status, answer)
    if status >= 400:
        assert dict(answer_headers)["Content-Type"] == "application/json"
        parsed = json.loads(answer)
        assert list(parsed) == ["error"]
        assert isinstance(parsed["error"], str)
        assert parsed["error"]
    elif status == 200:
        length = int(dict(answer_headers).get(open_inference.LENGTH, len(answer)))
        assert isinstance(json.loads(answer[:length]), dict)


def _environ(path: str, query: str, headers: dict[str, str], body: bytes) -> dict[str, object]:
    """Return the WSGI environ of a request that `service.connections` has read."""
    return {
        **connections.BASE,
        "REQUEST_METHOD": "POST",
        "PATH_INFO": path.encode().decode("latin-1"),
        "QUERY_STRING": query.encode().decode("latin-1"),
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8080",
        "SERVER_PROTOCOL": "HTTP/1.1",
        **{connections._key(name.encode()): value for name, value in headers.items()},
        "wsgi.input": BytesIO(body),
        "CONTENT_LENGTH": str(len(body)),
    }


def seeds() -> Iterator[bytes]:
    yield _request("/recognize?digits=many&preprocessed=true", {"Content-Type": "image/png"}, PNG)
    yield _request("/recognize?probabilities=true", *_form(PNG))
    yield _request("/recognize?min_confidence=1", *_form(PNG, PNG))
    yield _request("/recognize?digits=many&min_confidence=0.5", {"Content-Type": "image/png"}, PNG)
    yield _request("/recognize", *_form(PNG))
    yield _request("/recognize", {"Content-Type": "image/png"}, PNG)
    yield _request("/recognize", *_form(PNG, PNG, b""))
    for path, payload in (
        (TENSORFLOW, {"instances": [IMAGE]}),
        (TENSORFLOW, {"instances": [{"image": IMAGE}]}),
        (TENSORFLOW, {"inputs": {"image": [IMAGE, IMAGE]}}),
        (TENSORFLOW, {"signature_name": "recognize_png", "instances": [_named(_text(PNG))]}),
        (TENSORFLOW, {"signature_name": "recognize_png", "inputs": [{"b64": _text(PNG)}]}),
        ("/v1/models/mnist/versions/1:predict", {"inputs": [IMAGE]}),
        ("/v1/models/mnist/labels/x:classify", {"examples": []}),
        (OPEN, {"id": "1", "inputs": [_tensor("UINT8", [1, 28, 28], data=IMAGE)]}),
        (OPEN, {"inputs": [_tensor("FP32", [1, 28, 28], data=[0.5] * 784)]}),
        (OPEN, {"inputs": [_tensor("BYTES", [1], data=[_text(PNG)])], "outputs": OUTPUTS}),
    ):
        yield _request(path, {"Content-Type": "application/json"}, orjson.dumps(payload))
    element = len(PNG).to_bytes(4, "little") + PNG
    for datatype, shape, binary in (
        ("UINT8", [1, 28, 28], bytes(784)),
        ("FP32", [1, 28, 28], bytes(4 * 784)),
        ("BYTES", [2], 2 * element),
    ):
        parameters = {"binary_data_size": len(binary)}
        tensor = _tensor(datatype, shape, parameters=parameters)
        header = orjson.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
        yield _request(OPEN, {open_inference.LENGTH: str(len(header))}, header + binary)


OUTPUTS = [{"name": "label", "parameters": {"binary_data": True}}, {"name": "probabilities"}]


def _request(request_target: str, headers: dict[str, str], body: bytes) -> bytes:
    lines = [request_target, *(f"{name}: {value}" for name, value in headers.items())]
    return "\n".join(lines).encode() + b"\n\n" + body


def _form(*contents: bytes) -> tuple[dict[str, str], bytes]:
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="1.png"\r\n\r\n'
    parts = b"".join(head + content + b"\r\n" for content in contents)
    return {"Content-Type": "multipart/form-data; boundary=x"}, parts + b"--x--\r\n"


def _text(content: bytes) -> str:
    return b64encode(content).decode()


def _named(text: str) -> dict[str, object]:
    return {"png_bytes": {"b64": text}}


def _tensor(datatype: str, shape: list[int], **rest: object) -> dict[str, object]:
    return {"name": "image", "datatype": datatype, "shape": shape, **rest}


if __name__ == "__main__":
    MODEL = Model(fuzz.PROJECT / "data/model", "0" * 32, "", "litert")
    SCHEDULER = scheduler.Scheduler(MODEL, Path(), Limits(), token=None, log_format="text")
    with Path(os.devnull).open("w") as null, redirect_stdout(null):  # discard the access log
        fuzz.run(target, seeds(), WORDS)
