"""Requests from pages of another origin, by the rules that browsers follow."""

import pytest

from tests.conftest import TRANSPORTS, client_of_server, in_process

ORIGIN = "https://pages.example"
TOKEN = "x" * 64
PREFLIGHT = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type",
}


@pytest.fixture(scope="module", params=TRANSPORTS)
def shared(request, artifact, tmp_path_factory):
    """A client of a service with a token, to which the pages of an origin may send requests."""
    if request.param == "in process":
        yield in_process(artifact, token=TOKEN, cors_origin=ORIGIN)
        return
    file = tmp_path_factory.mktemp("secret") / "token"
    file.write_text(TOKEN)
    with client_of_server(artifact, f"--token-file={file}", f"--cors-origin={ORIGIN}") as client:
        yield client


@pytest.mark.parametrize("path", ["/recognize", "/v1/models/mnist:predict", "/v2/health/ready"])
def test_a_browser_may_ask_before_a_request_without_the_token(shared, path):
    answer = shared.request("OPTIONS", path, headers=PREFLIGHT)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    allowed = answer.headers["Access-Control-Allow-Headers"].lower().split(", ")
    assert {"authorization", "content-type"} <= set(allowed)


def test_only_a_preflight_needs_no_token(shared):
    assert shared.request("OPTIONS", "/recognize").status_code == 401


def test_a_page_may_read_answers_and_errors(shared, png_files):
    body = {"data": png_files[0].read_bytes()}
    for token, status in ((TOKEN, 200), ("wrong", 401)):
        headers = {
            "Origin": ORIGIN,
            "Authorization": f"Bearer {token}",
            "Content-Type": "image/png",
        }
        answer = shared.post("/recognize", headers=headers, **body)
        assert answer.status_code == status
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert "X-Model-Version" in answer.headers["Access-Control-Expose-Headers"]


def test_no_origin_is_allowed_by_default(client):
    answers = [
        client.request("OPTIONS", "/recognize", headers=PREFLIGHT),
        client.get("/healthz", headers={"Origin": ORIGIN}),
    ]
    for answer in answers:
        assert not any(name.startswith("Access-Control") for name in answer.headers)
