import pytest

from tests.conftest import in_process

READY = ["/readyz", "/v2/health/ready"]


def test_health_names_the_pinned_hashes(client, artifact):
    answer = client.get("/healthz")
    assert answer.status_code == 200
    hashes = {"version": artifact.version, "sha256": artifact.sha256}
    assert answer.json() == {"status": "ok", **hashes}


@pytest.mark.parametrize("path", READY)
def test_the_service_is_ready_after_its_start(client, path):
    answer = client.get(path)
    assert (answer.status_code, answer.json()) == (200, {"ready": True})


@pytest.fixture(scope="module")
def draining(artifact):
    return in_process(artifact, is_draining=lambda: True)


@pytest.mark.parametrize("path", READY)
def test_a_service_that_is_about_to_stop_is_alive_but_not_ready(draining, path):
    answer = draining.get(path)
    assert answer.status_code == 503
    assert answer.json() == {"error": "The service is about to stop; send requests to another one."}
    assert draining.get("/healthz").status_code == 200
    assert draining.get("/v2/models/mnist/ready").status_code == 200
