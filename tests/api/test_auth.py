"""Which requests the service admits with and without the token."""

import re
import socket

import pytest

from service.api import auth
from tests.conftest import PROJECT, TRANSPORTS, client_of_server, in_process, start

TOKEN = "x" * 64
HEALTH = ["/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"]
PAGES = [
    *(
        "/",
        "/static/page.js",
        "/static/languages/en.js",
        "/docs",
        "/docs/",
        "/docs/swagger-ui.css",
        "/openapi.json",
    ),
    *("/model", "/model/"),
]
PROTECTED = [
    *("/recognize", "/metrics", "/v1/models/mnist", "/v2", "/no"),
    # Only whole names are public.
    *("/static", "/docs2", "/openapi.json/", "/models", "/healthz/"),
]


@pytest.fixture(scope="module", params=TRANSPORTS)
def guarded(request, artifact, tmp_path_factory):
    if request.param == "in process":
        yield in_process(artifact, token=TOKEN)
        return
    file = tmp_path_factory.mktemp("secret") / "token"
    file.write_text(f"{TOKEN}\n")
    with client_of_server(artifact, f"--token-file={file}") as client:
        yield client


def get(client, path, header=None):
    return client.get(path, headers={"Authorization": header} if header else {})


@pytest.mark.parametrize("path", HEALTH + PAGES)
def test_health_checks_and_pages_need_no_token(guarded, path):
    assert get(guarded, path).status_code == 200


@pytest.mark.parametrize("path", PROTECTED)
@pytest.mark.parametrize(
    "header",
    [None, TOKEN, f"Basic {TOKEN}", "Bearer", "Bearer ", f"Bearer {TOKEN}0", "Bearer \xfc"],
)
def test_every_other_route_requires_the_token(guarded, path, header):
    answer = get(guarded, path, header)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json() == {
        "error": "This service requires a token; send it in the header "
        "Authorization: Bearer <token>."
    }


@pytest.mark.parametrize("path", ["/docs/../metrics", "/static/../metrics", "/docs/%2e%2e/metrics"])
def test_no_path_below_a_page_leads_to_another_route(guarded, path):
    assert get(guarded, path).status_code in (401, 404)


@pytest.mark.parametrize("header", [f"Bearer {TOKEN}", f"bearer  {TOKEN}"])
def test_the_token_admits_requests(guarded, png_files, header):
    answer = guarded.post(
        "/recognize",
        files={"image": png_files[0].read_bytes()},
        headers={"Authorization": header},
    )
    assert answer.status_code == 200
    assert get(guarded, "/metrics", header).status_code == 200


@pytest.mark.parametrize("guarded", TRANSPORTS[1:], indirect=True)
def test_an_unauthorized_request_is_answered_before_its_body_arrives(guarded):
    host, _, port = guarded.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as client:
        client.sendall(b"POST /recognize HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\nx")
        assert client.recv(4096).startswith(b"HTTP/1.1 401 Unauthorized\r\n")


INVALID = [
    (None, "cannot be read (No such file or directory)"),
    (b"", "must contain exactly one word; create a token with `openssl rand -hex 32`"),
    (b"two words", "must contain exactly one word"),
    (b"two\nlines", "must contain exactly one word"),
    (b"\xff", "contains non-ASCII characters"),
]


@pytest.fixture
def token_file(tmp_path):
    """Return a function that writes a token file, or only returns its path if content is None."""

    def write(content):
        file = tmp_path / "token"
        if content is not None:
            file.write_bytes(content)
        return file

    return write


@pytest.mark.parametrize(("content", "reason"), INVALID)
def test_read_rejects_an_invalid_token_file(token_file, content, reason):
    with pytest.raises(auth.TokenError, match=re.escape(reason)):
        auth.read(token_file(content))


@pytest.mark.server
@pytest.mark.parametrize(("content", "reason"), INVALID)
def test_the_service_does_not_start_with_an_invalid_token_file(token_file, content, reason):
    file = token_file(content)
    result = start(PROJECT, f"--token-file={file}")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("service: the token file ")
    assert reason in result.stderr
    assert result.stderr.count("\n") == 1
