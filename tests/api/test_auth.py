"""Who may ask, and what an answer tells of the service."""

import re
import socket

import pytest

from service.api import auth
from tests.conftest import PROJECT, TRANSPORTS, client_of_server, in_process, start

TOKEN = "x" * 64
HEALTH = ["/healthz", "/v2/health/live", "/v2/health/ready"]
REST = ["/", "/recognize", "/metrics", "/openapi.json", "/docs/", "/v1/models/mnist", "/v2", "/no"]


@pytest.fixture(scope="module", params=TRANSPORTS)
def guarded(request, artifact, tmp_path_factory):
    if request.param == "in process":
        yield in_process(artifact, token=TOKEN)
        return
    file = tmp_path_factory.mktemp("secret") / "token"
    file.write_text(f"{TOKEN}\n")
    with client_of_server(artifact, f"--token-file={file}") as made:
        yield made


def get(client, path, header=None):
    return client.get(path, headers={"Authorization": header} if header else {})


@pytest.mark.parametrize("path", HEALTH)
def test_health_is_for_everybody(guarded, path):
    assert get(guarded, path).status_code == 200


@pytest.mark.parametrize("path", REST)
@pytest.mark.parametrize(
    "header",
    [None, TOKEN, f"Basic {TOKEN}", "Bearer", "Bearer ", f"Bearer {TOKEN}0", "Bearer \xfc"],
)
def test_nothing_else_is_without_the_token(guarded, path, header):
    answer = get(guarded, path, header)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json() == {
        "error": "This service asks for a token; send it in the header "
        "Authorization: Bearer <token>."
    }


@pytest.mark.parametrize("header", [f"Bearer {TOKEN}", f"bearer  {TOKEN}"])
def test_with_the_token_all_is_answered(guarded, png_files, header):
    answer = guarded.post(
        "/recognize",
        files={"image": png_files[0].read_bytes()},
        headers={"Authorization": header},
    )
    assert answer.status_code == 200
    assert get(guarded, "/metrics", header).status_code == 200


@pytest.mark.parametrize("guarded", TRANSPORTS[1:], indirect=True)
def test_the_body_of_a_stranger_is_not_waited_for(guarded):
    host, _, port = guarded.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as client:
        client.sendall(b"POST /recognize HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\nx")
        assert client.recv(4096).startswith(b"HTTP/1.1 401 Unauthorized\r\n")


NO_TOKENS = [
    (None, "cannot be read (No such file or directory)"),
    (b"", "does not hold one word; make one with `openssl rand -hex 32`"),
    (b"two words", "does not hold one word"),
    (b"two\nlines", "does not hold one word"),
    (b"\xff", "holds other characters than ASCII"),
]


@pytest.fixture
def token_file(tmp_path):
    """Make a file, or only its name where there is no content."""

    def make(content):
        file = tmp_path / "token"
        if content is not None:
            file.write_bytes(content)
        return file

    return make


@pytest.mark.parametrize(("content", "reason"), NO_TOKENS)
def test_a_file_without_a_token_raises(token_file, content, reason):
    with pytest.raises(auth.TokenError, match=re.escape(reason)):
        auth.read(token_file(content))


@pytest.mark.server
@pytest.mark.parametrize(("content", "reason"), NO_TOKENS)
def test_a_file_without_a_token_is_refused(token_file, content, reason):
    file = token_file(content)
    done = start(PROJECT, f"--token-file={file}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("service: the token file ")
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1
