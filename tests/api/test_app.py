"""The headers that all responses share."""

import shutil

import pytest

import service
from service.recognition import pin
from tests.conftest import pin_by_md5_only


@pytest.mark.parametrize("path", ["/", "/healthz", "/docs/", "/metrics", "/no", "/recognize"])
def test_every_response_has_the_security_headers_and_hides_the_software(client, path):
    answer = client.get(path)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Server"] == "mnist"


def test_a_page_does_not_repeat_the_host_header(client):
    answer = client.get("/docs/", headers={"Host": "elsewhere.example"})
    assert "elsewhere" not in answer.text


def test_the_application_without_our_server_names_the_pinned_version(artifact):
    application = service.create_app(artifact.path / "dvc.lock")
    answer = application.test_client().get("/healthz")
    assert answer.headers["X-Model-Version"] == artifact.version


def test_the_application_serves_an_artifact_without_a_manifest_if_the_caller_allows_it(
    artifact, tmp_path
):
    shutil.copytree(artifact.path, tmp_path, dirs_exist_ok=True)
    pin_by_md5_only(tmp_path)
    with pytest.raises(pin.PinError, match="by MD5 only"):
        service.create_app(tmp_path / "dvc.lock")
    client = service.create_app(tmp_path / "dvc.lock", allow_md5_only=True).test_client()
    assert '"sha256":""' in client.get("/healthz").text
    assert '"properties":{"sha256":""}' in client.get("/v2/models/mnist").text
