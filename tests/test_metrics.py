"""`GET /metrics`: the values with several workers, and the format of Prometheus."""

import os
import shutil
import signal
import subprocess

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import (
    ENVIRONMENT,
    PROJECT,
    pin_artifact,
    pinned_version,
    program,
    running_server,
    wait_until,
    wait_until_ready,
)


@pytest.fixture(scope="module")
def served(repository):
    with running_server(repository.path, "--workers=2") as started:
        yield started


def figures(server):
    """Return the value of each sample by name and labels."""
    text = requests.get(f"{server.url}/metrics", timeout=30).text
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def send(server, files):
    parts = [("image", (file.name, file.read_bytes())) for file in files]
    return requests.post(f"{server.url}/recognize", files=parts, timeout=30)


def test_metrics_are_summed_over_all_workers(served, png_files, predictions, version):
    before = figures(served)
    for file in png_files[:30]:  # each on a new connection, so either worker may answer it
        send(served, [file])
    send(served, png_files[30:50])
    send(served, [])
    after = figures(served)

    def increase(name, **labels):
        key = (name, *sorted(labels.items()))
        return after[key] - before.get(key, 0)

    of_version = {"version": version}
    route = of_version | {"method": "POST", "route": "/recognize"}
    assert increase("mnist_requests_total", **route, status="200") == 31
    assert increase("mnist_requests_total", **route, status="415") == 1
    assert increase("mnist_request_seconds_count", **of_version, route="/recognize") == 32
    assert increase("mnist_request_images_count") == 31
    assert increase("mnist_request_images_sum") == 50
    assert increase("mnist_confidence_ratio_count", **of_version) == 50
    for label in range(10):
        expected = int((predictions[:50] == label).sum())
        assert increase("mnist_images_total", **of_version, label=str(label)) == expected


def test_metrics_name_the_artifact(served, version, sha256):
    labels = ("sha256", sha256), ("version", version)
    assert figures(served)["mnist_model_info", *labels] == 1


def test_only_the_request_for_the_metrics_is_in_flight(served):
    # The workers write the number once a second.
    wait_until(lambda: figures(served)["mnist_requests_in_flight",] == 1)


@pytest.mark.parametrize("status", [500, 503])
def test_errors_have_a_series_before_the_first_one(served, version, status):
    labels = {"method": "POST", "route": "/recognize", "status": str(status), "version": version}
    assert figures(served)["mnist_requests_total", *sorted(labels.items())] == 0


def test_unknown_paths_share_one_series(served):
    for number in range(3):
        requests.get(f"{served.url}/nothing/{number}", timeout=30)
    routes = {dict(key[1:]).get("route") for key in figures(served)}
    assert "none" in routes
    assert not any(route and "nothing" in route for route in routes)


def test_rare_methods_share_one_series(served):
    for method in ("PROPFIND", "MKCOL", "LOCK"):
        requests.request(method, f"{served.url}/recognize", timeout=30)
    methods = {dict(key[1:]).get("method") for key in figures(served)}
    assert "other" in methods
    assert methods.isdisjoint({"PROPFIND", "MKCOL", "LOCK"})


def test_the_series_of_two_versions_are_kept(repository, png_files, tmp_path, monkeypatch):
    """Each artifact has another file, which no engine reads."""
    folder = tmp_path / "folder"
    shutil.copytree(repository.path / "data/model", folder / "data/model")
    pin_artifact(folder)
    monkeypatch.setitem(ENVIRONMENT, "TMPDIR", str(tmp_path))

    def kept(found, name):
        return {dict(key[1:])["version"]: value for key, value in found.items() if key[0] == name}

    options = "--workers=2", f"--lock={folder}/dvc.lock"
    with running_server(PROJECT, *options) as server:
        pids, served = server.workers(), [pinned_version(folder)]
        for number in range(3):
            (folder / "data/model/assets.extra/number").write_text(str(number))
            pin_artifact(folder)
            served.append(pinned_version(folder))
            server.process.send_signal(signal.SIGHUP)
            new = {served[-2]: 0, served[-1]: 1}
            wait_until(
                lambda: kept(figures(server), "mnist_model_info") == new,  # noqa: B023  # called at once
                "the workers do not serve the new artifact",
            )
            for _ in range(10):
                assert send(server, png_files[:1]).headers["X-Model-Version"] == served[-1]
            found = figures(server)
            labels = [dict(key[1:]) for key in found if "version" in dict(key[1:])]
            assert {each["version"] for each in labels} == set(served[-2:])
            assert set(kept(found, "mnist_drift_images")) == set(served[-2:])
            answered = kept(found, "mnist_confidence_ratio_count")
            assert answered[served[-1]] >= 10
        [metrics] = tmp_path.glob("mnist-service-*/metrics")
        files = [file.name for file in metrics.iterdir()]
        # The replacement of a dead worker does not know the version before, and keeps its series.
        before = kept(figures(server), "mnist_confidence_ratio_count")
        killed = min(server.workers())
        os.kill(killed, signal.SIGKILL)
        wait_until(
            lambda: any(
                file.stem.endswith(f"{served[-1]}_{worker}")
                for worker in server.workers()
                if worker not in pids
                for file in metrics.iterdir()
            ),
            "no worker has replaced the killed one",
        )
        assert kept(figures(server), "mnist_confidence_ratio_count") == before
        for _ in range(5):  # either worker may answer
            assert set(kept(figures(server), "mnist_drift_images")) == set(served[-2:])
    assert not any(version in name for version in served[:-2] for name in files)
    assert all(any(version in name for name in files) for version in served[-2:])


@pytest.mark.slow
def test_counts_of_a_killed_worker_stay_and_its_requests_are_not_in_flight(repository, png_files):
    with running_server(repository.path, "--workers=1") as server:
        send(server, png_files[:5])
        os.kill(server.worker(), signal.SIGKILL)
        wait_until_ready(server)
        after = figures(server)
        assert after["mnist_request_images_sum",] == 5
        assert after["mnist_requests_in_flight",] == 1


def test_promtool_reports_no_problem(served, png_files):
    send(served, png_files[:2])
    text = requests.get(f"{served.url}/metrics", timeout=30).text
    done = subprocess.run(
        [program("promtool", "prometheus"), "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
