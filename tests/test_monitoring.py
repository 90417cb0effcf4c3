"""service/monitoring: a real Prometheus scrapes the real service, and evaluates every query."""

import json
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import requests
import yaml

from service.recognition import figures
from tests.conftest import (
    PROJECT,
    Repository,
    Server,
    free_port,
    pin_artifact,
    program,
    running_server,
    wait_until,
)

MONITORING = PROJECT / "service/monitoring"
GRAFANA = MONITORING / "grafana"
RULES = yaml.safe_load((MONITORING / "rules.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((GRAFANA / "dashboards/mnist.json").read_text())
ALERTS = {rule["alert"]: rule["expr"] for rule in RULES if "alert" in rule}
RECORDED = [rule["expr"] for rule in RULES if "record" in rule]
SHOWN = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
# Durations on the clock of the test.
SCRAPE, RANGE, FOR = "500ms", "4s", "1s"


def shorten(text: str) -> str:
    """Replace the durations of queries and rules."""
    text = re.sub(r"\[(5m|1h|\$__rate_interval)\]", f"[{RANGE}]", text)
    return re.sub(r"for: \d+m", f"for: {FOR}", text)


def promtool(*arguments: object) -> None:
    command = [program("promtool", "prometheus"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_configuration_and_the_rules():
    promtool("check", "config", MONITORING / "prometheus.yml")


def test_every_alert_fires_and_goes_again_in_the_tests_of_the_rules():
    file = PROJECT / "tests/rules_test.yml"
    promtool("test", "rules", file)
    assert set(re.findall(r'alertname="(\w+)"', file.read_text())) == set(ALERTS)


def test_grafana_finds_its_data_source_and_its_dashboard():
    [source] = yaml.safe_load((GRAFANA / "datasources/prometheus.yml").read_text())["datasources"]
    [provider] = yaml.safe_load((GRAFANA / "dashboards/provider.yml").read_text())["providers"]
    assert provider["options"]["path"] == "/etc/grafana/provisioning/dashboards"
    used = {
        each["datasource"]["uid"]
        for panel in DASHBOARD["panels"]
        for each in (panel, *panel["targets"])
    }
    assert used == {source["uid"]}


class Prometheus:
    """A running Prometheus."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, path: str, **params: str) -> Any:
        """Return the data of an answer of the HTTP API."""
        answer = requests.get(f"{self._url}/api/v1/{path}", params=params, timeout=60).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def wait_for_data(self, *queries: str) -> None:
        """Wait until each query has returned a number."""
        for query in queries:
            wait_until(partial(self._has_data, shorten(query)), f"no data for {query}")

    def _has_data(self, query: str) -> bool:
        result = self.get("query", query=query)["result"]
        return any(sample["value"][1] != "NaN" for sample in result)

    def firing(self) -> set[str]:
        """Return the names of the firing alerts."""
        alerts = self.get("alerts")["alerts"]
        return {it["labels"]["alertname"] for it in alerts if it["state"] == "firing"}


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    """Run Prometheus with the project's configuration, for one target and on a faster clock."""
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    config["global"] = dict.fromkeys(config["global"], SCRAPE)
    (folder / "targets.yml").write_text(yaml.safe_dump([{"targets": [target]}]))
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (folder / "rules.yml").write_text(shorten((MONITORING / "rules.yml").read_text()))
    address = f"127.0.0.1:{free_port()}"
    options = {
        "config.file": folder / "prometheus.yml",
        "storage.tsdb.path": folder / "data",
        "web.listen-address": address,
        "log.level": "error",
    }
    command = [f"--{name}={value}" for name, value in options.items()]
    with subprocess.Popen([program("prometheus", "prometheus"), *command]) as process:
        try:
            url = f"http://{address}"
            wait_until(lambda: is_ready(url), "Prometheus does not start")
            yield Prometheus(url)
        finally:
            process.terminate()


def is_ready(url: str) -> bool:
    with suppress(requests.ConnectionError):
        return requests.get(f"{url}/-/ready", timeout=60).ok
    return False


@contextmanager
def repeating(*actions: Callable[[], object]) -> Iterator[None]:
    """Repeat actions meanwhile, each in a thread of its own."""
    done = threading.Event()

    def repeat(action: Callable[[], object]) -> None:
        while not done.wait(0.1):
            action()

    with ThreadPoolExecutor() as pool:
        running = [pool.submit(repeat, action) for action in actions]
        try:
            yield
        finally:
            done.set()
    for each in running:
        each.result()


def recognize(server: Server, *pictures: bytes) -> requests.Response:
    """Send pictures in one form."""
    parts = [("image", ("digit.png", picture)) for picture in pictures]
    return requests.post(f"{server.url}/recognize", files=parts, timeout=60)


def correct(server: Server, picture: bytes) -> requests.Response:
    """Send a correction."""
    part = {"image": ("digit.png", picture)}
    return requests.post(f"{server.url}/feedback", {"label": "1"}, files=part, timeout=60)


def enlarged(image: np.ndarray) -> bytes:
    """Return an image as a picture of 400 x 400 pixels."""
    return cv2.imencode(".png", cv2.resize(image, (400, 400)))[1].tobytes()


def replace(file: Path, content: bytes) -> None:
    """Write a file that may be a link to DVC's cache."""
    file.unlink()
    file.write_bytes(content)


def with_a_defect(repository: Repository, path: Path) -> Path:
    """Return a folder with an artifact for which `GET /model/` fails."""
    folder = repository.clone(path).path
    file = folder / "data/model" / figures.FILE
    content = json.loads(file.read_bytes())
    content["metrics"]["robustness"] = None
    replace(file, json.dumps(content).encode())
    pin_artifact(folder)
    return folder


@pytest.mark.slow
def test_every_query_returns_data_and_every_alert_fires_and_goes_again(
    repository, png_files, testing, tmp_path
):
    pictures = [file.read_bytes() for file in png_files]
    one_by_one = cycle(pictures)
    # A form with so many large pictures takes seconds. All show one digit, so there is drift.
    images, labels = testing
    large = [*islice(cycle([enlarged(image) for image in images[labels == 1]]), len(images))]
    folder = with_a_defect(repository, tmp_path / "served")
    graph = folder / "data/model/saved_model.pb"
    intact = graph.read_bytes()
    port = free_port()
    options = [f"--lock={folder / 'dvc.lock'}", "--workers=1", "--queue=1"]
    options += [f"--feedback={tmp_path / 'inbox'}", "--feedback-max-files=1"]
    options += ["--feedback-per-minute=1000"]  # more than the test sends
    with prometheus(tmp_path, f"127.0.0.1:{port}") as monitor:
        with running_server(PROJECT, *options, port=port) as server:
            assert recognize(server, *pictures).ok
            assert correct(server, pictures[0]).ok
            with repeating(lambda: recognize(server, next(one_by_one))):
                monitor.wait_for_data(*RECORDED, *SHOWN)
                wait_until(lambda: monitor.firing() == set(), "an alert fires")

            replace(graph, intact + b"x")
            pin_artifact(folder)
            replace(graph, intact)  # so it differs from the pinned one
            server.process.send_signal(signal.SIGHUP)
            with repeating(
                lambda: recognize(server, *large),
                lambda: recognize(server, pictures[0]),
                lambda: correct(server, pictures[1]),
                lambda: requests.get(f"{server.url}/model/", timeout=60),
            ):
                during = set(ALERTS) - {"MnistDown"}
                wait_until(lambda: monitor.firing() == during, "not all alerts fire")
                monitor.wait_for_data(*(ALERTS[name] for name in during))
                texts = str([alert["annotations"] for alert in monitor.get("alerts")["alerts"]])
                assert "error expanding template" not in texts

            pin_artifact(folder)
            server.process.send_signal(signal.SIGHUP)
            assert recognize(server, *pictures, *pictures).ok
            wait_until(lambda: monitor.firing() == set(), "an alert still fires")
        wait_until(lambda: monitor.firing() == {"MnistDown"}, "no alert for the stopped service")
        monitor.wait_for_data(ALERTS["MnistDown"])
        with running_server(PROJECT, *options, port=port):
            wait_until(lambda: monitor.firing() == set(), "an alert fires after a restart")
