"""`GET /model/` shows the figures that the pipeline wrote into the artifact."""

import json
import re
import shutil
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest

import service
from service.recognition import figures, pin
from tests.conftest import pin_artifact, pinned_version


class Tables(HTMLParser):
    """The texts of the cells of each table."""

    def __init__(self, page):
        super().__init__()
        self.tables = []
        self._is_open = False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        self._is_open = tag in ("td", "th")

    def handle_endtag(self, tag):
        self._is_open = False

    def handle_data(self, data):
        if self._is_open:
            self.tables[-1][-1][-1] += data


def client_of(folder):
    return service.create_app(folder / "dvc.lock").test_client()


@pytest.fixture(scope="module")
def client(repository):
    return client_of(repository.path)


@pytest.fixture(scope="module")
def page(client):
    answer = client.get("/model/")
    assert answer.status_code == 200
    assert answer.mimetype == "text/html"
    return answer.text


def test_the_page_names_the_model(page, version, sha256):
    assert f"<code>{version}</code>" in page
    assert f"<code>{sha256}</code>" in page


def test_the_page_shows_the_metrics_of_evaluate(page, repository):
    metrics = json.loads((repository.path / "data/evaluation/metrics.json").read_text())
    table, _ = Tables(page).tables
    accuracies = dict(table[1:])
    assert accuracies["MNIST, the test split"] == f"{metrics['accuracy']:.2%}"
    assert accuracies["mean over the corruptions below"] == f"{metrics['robustness_mean']:.2%}"
    for name, accuracy in metrics["robustness"].items():
        assert accuracies[name.replace("_", " ")] == f"{accuracy:.2%}"
    for name, found in metrics["handwriting"].items():
        assert accuracies[f"other handwriting: {name}"] == f"{found['accuracy']:.2%}"
    assert f"{metrics['errors']} are not" in page


def test_the_confusion_matrix_counts_the_test_images(page, testing, predictions):
    _, table = Tables(page).tables
    expected = np.zeros((10, 10), int)
    np.add.at(expected, (testing[1], predictions), 1)
    assert [row[1:11] for row in table[1:11]] == expected.astype(str).tolist()
    assert [row[0] for row in table[1:11]] == table[0][1:11] == [str(label) for label in range(10)]
    wrong = int((testing[1] != predictions).sum())
    assert f"{wrong} are not" in page


def test_the_page_shows_the_mistakes_as_pictures(page, repository, testing, predictions):
    shown = re.findall(
        r"base64,([^\"]+)\".*?<strong>(\d)</strong> taken for <strong>(\d)</strong>.*?#(\d+)<",
        page,
        re.S,
    )
    wrong = np.flatnonzero(testing[1] != predictions)
    assert len(shown) == min(len(wrong), 32) > 3
    for _, label, prediction, number in shown:
        assert int(number) in wrong
        assert (int(label), int(prediction)) == (testing[1][int(number)], predictions[int(number)])


def test_the_page_shows_the_card_and_links_to_it(page, repository, client):
    answer = client.get("/model/card.md")
    assert answer.status_code == 200
    assert answer.mimetype == "text/markdown"
    assert answer.text == (repository.path / "data/model" / figures.CARD).read_text()
    assert answer.text in unescape(page)
    assert 'href="card.md"' in page


def test_the_page_has_no_inline_script_or_style(page, client):
    policy = client.get("/model/").headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert not re.search(r"<script|<style|style=|\son\w+=", page)
    assert client.get("/static/model.css").status_code == 200


def test_a_browser_shows_the_page_on_a_narrow_screen(browser, server):
    tab = browser.new_page(viewport={"width": 320, "height": 640}, color_scheme="dark")
    messages: list[str] = []  # such as violations of the page's policy
    tab.on("console", lambda message: messages.append(message.text))
    tab.goto(f"{server.url}/model/")
    assert tab.evaluate("document.documentElement.scrollWidth") == 320
    widths = tab.locator("img").evaluate_all("images => images.map((each) => each.naturalWidth)")
    assert set(widths) == {28}
    matrix = tab.get_by_role("table", name="Label in the rows, prediction in the columns")
    assert matrix.get_by_role("rowheader").all_inner_texts()[:10] == list("0123456789")
    assert messages == []


def test_an_artifact_without_figures_is_served_and_the_page_says_so(artifact):
    client = client_of(artifact.path)
    answer = client.get("/model/")
    assert answer.status_code == 200
    assert artifact.version in answer.text
    assert "The artifact of this model has no figures." in answer.text
    assert "<table" not in answer.text
    card = client.get("/model/card.md")
    assert card.status_code == 404
    assert card.json["error"].startswith("The artifact has no model card;")


def test_the_figures_are_escaped(repository, tmp_path):
    shutil.copytree(repository.path / pin.ARTIFACT, tmp_path / pin.ARTIFACT)
    file = tmp_path / pin.ARTIFACT / figures.FILE
    content = json.loads(file.read_text())
    content["classes"][3] = "<script>alert(1)</script>"
    content["metrics"]["recall"]["<script>alert(1)</script>"] = 1.0
    content["metrics"]["precision"]["<script>alert(1)</script>"] = 1.0
    content["mistakes"][0]["png"] = '"><script>'
    file.unlink()  # it may be a link to DVC's cache
    file.write_text(json.dumps(content))
    pin_artifact(tmp_path)
    page = client_of(tmp_path).get("/model/").text
    assert pinned_version(tmp_path) in page
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
