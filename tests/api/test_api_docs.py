"""The live service does what openapi.json describes."""

import base64
import io
import json
import re
from collections.abc import Iterator

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from PIL import Image
from playwright.sync_api import Page, expect
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

import service
from service.api import api_docs, app
from service.api.limits import Limits
from service.feedback import Inbox
from service.recognition import pin
from service.served_model import Model
from tests.conftest import PROJECT, client_of_server, in_process

TOKEN = "x" * 64


def _png(side: int, background: int, ink: int) -> bytes:
    buffer = io.BytesIO()
    picture = Image.new("L", (side, side), background)
    picture.paste(ink, (side // 2, side // 4, side // 2 + side // 10, side // 4 * 3))
    picture.save(buffer, "PNG")
    return buffer.getvalue()


pictures = st.builds(_png, st.integers(20, 99), st.integers(0, 90), st.integers(160, 255))
schemathesis.openapi.format("binary", pictures)
schemathesis.openapi.format(
    "picture-base64", pictures.map(lambda content: base64.b64encode(content).decode())
)
for kind in ("png", "jpeg", "bmp", "gif", "webp"):
    schemathesis.openapi.media_type(f"image/{kind}", pictures)


openapi = schemathesis.openapi.from_path(api_docs.FILE)


@pytest.fixture(scope="module")
def session(artifact, tmp_path_factory):
    """A session that sends requests to an application that collects corrections."""
    inbox = Inbox(tmp_path_factory.mktemp("inbox"), per_minute=1000)
    collecting = in_process(artifact, inbox=inbox)
    with requests.Session() as opened:
        opened.mount(collecting.url, collecting.adapter)
        yield opened


@openapi.parametrize()
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_route_behaves_as_described(case, server, session):
    if case.path == "/feedback":
        response = case.call(base_url="http://localhost", session=session)
    else:
        response = case.call(base_url=server.url)
    # Whether the model is certain enough of a valid picture depends on the picture.
    is_doubtful = response.status_code == 422 and "no label reaches the required" in response.text
    assert not is_doubtful or {"min_confidence", "digits"} & case.query.keys()
    # The description cannot express that `why` allows one picture and not several.
    is_refused = response.status_code == 400 and "The parameter why allows" in response.text
    assert not is_refused or "why" in case.query
    # Nor that the correction is about an answer of this service.
    is_unknown = response.status_code == 422 and "then correct that answer" in response.text
    # A form omits a field whose invalid value is an empty list, so the service cannot refuse it.
    is_form = case.media_type == "multipart/form-data" and isinstance(case.body, dict)
    is_omitted = is_form and [] in case.body.values()
    excluded = [positive_data_acceptance] if is_doubtful or is_refused or is_unknown else []
    excluded += [negative_data_rejection] if is_omitted else []
    case.validate_response(response, excluded_checks=excluded)


def test_every_query_parameter_of_recognize_is_in_the_readme():
    parameters = json.loads(api_docs.FILE.read_text())["paths"]["/recognize"]["post"]["parameters"]
    readme = (PROJECT / "service/README.md").read_text()
    assert {parameter["name"] for parameter in parameters} == set(re.findall(r"`\?(\w+)=", readme))


def test_the_service_serves_the_file_of_the_repository(client):
    answer = client.get("/openapi.json")
    assert answer.content == api_docs.FILE.read_bytes()


def test_every_route_is_described(artifact, tmp_path):
    """The description omits the pages and the unsupported routes of TensorFlow Serving."""
    described = json.loads(api_docs.FILE.read_text())
    assert described["info"]["version"] == service.__version__
    model = Model(artifact.path / pin.ARTIFACT, artifact.version, artifact.sha256, "litert")
    application = app.create(model, Limits(), inbox=Inbox(tmp_path))
    routes = {
        re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", each.rule)
        for each in application.url_map.iter_rules()
        if each.rule != "/" and not re.search(r"^/(docs|static)/|label|verb", each.rule)
    }
    assert routes == set(described["paths"])


@pytest.fixture(scope="module")
def docs(browser, artifact, tmp_path_factory) -> Iterator[Page]:
    """Yield a tab of Chromium with the page of a service that requires a token."""
    file = tmp_path_factory.mktemp("secret") / "token"
    file.write_text(TOKEN)
    with client_of_server(artifact, f"--token-file={file}") as server:
        page = browser.new_page(viewport={"width": 360, "height": 640})
        page.set_default_timeout(30_000)  # milliseconds; the browser is slow on a busy machine
        hosts: list[str] = []
        page.on("request", lambda request: hosts.append(request.url.split("/")[2]))
        violations: list[str] = []
        page.on(
            "console",
            lambda message: violations.append(message.text) if "policy" in message.text else None,
        )
        page.goto(f"{server.url}/docs/")
        yield page
        assert set(hosts) == {server.url.removeprefix("http://")}  # all assets are the service's
        assert violations == []


def open_recognize(page: Page) -> None:
    """Show the route `/recognize` so that it can be tried."""
    page.evaluate("location.hash = '/Recognize/recognize'")  # the page opens this route
    page.reload()
    page.get_by_role("button", name="Try it out").click()


def execute(page: Page) -> str:
    """Send the request, and return the body of the response."""
    page.get_by_role("button", name="Execute").click()
    body = page.locator(".live-responses-table .response-col_description code").first
    expect(body).to_be_visible()
    return body.inner_text()


def enter(page: Page, token: str) -> None:
    """Fill in the dialog that asks for the token."""
    dialog = page.locator(".dialog-ux")
    dialog.get_by_role("textbox").fill(token)
    dialog.get_by_role("button", name="Apply credentials").click()
    dialog.get_by_role("button", name="Close").first.click()


@pytest.mark.server
def test_the_docs_page_has_a_title_fits_on_a_phone_and_names_its_fields(docs):
    expect(docs).to_have_title("Handwritten digits: the API")
    open_recognize(docs)
    expect(docs.get_by_label("min_confidence")).to_be_visible()
    assert docs.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [360, 360]
    fields = docs.locator(":is(input, select, textarea)")
    # The text of a label around a field includes the options of that field.
    names = fields.evaluate_all(
        """fields => fields.map((field) => {
            const label = field.labels[0]?.cloneNode(true);
            label?.querySelectorAll("input, select, textarea").forEach((each) => each.remove());
            return field.ariaLabel || label?.textContent.trim();
        })"""
    )
    assert len(names) > 7
    assert all(names)


@pytest.mark.server
def test_the_docs_page_sends_a_picture_with_the_token(docs, png_files, artifact):
    label = artifact.predictions[104]
    open_recognize(docs)
    docs.get_by_label("image", exact=True).set_input_files(png_files[104])
    assert "This service requires a token" in execute(docs)
    enter(docs, TOKEN)  # the page has opened the dialog
    expected = {"filename": png_files[104].name, "labels": [label]}
    docs.get_by_role("button", name="Clear").click()
    assert json.loads(execute(docs)) == expected
    # After a reload, the page still has the token. Now the body is the file itself.
    open_recognize(docs)
    docs.get_by_label("Request content type").select_option("image/png")
    docs.get_by_label("Request body").set_input_files(png_files[104])
    docs.get_by_label("probabilities").select_option("true")
    answer = json.loads(execute(docs))
    assert answer["filename"] is None
    assert answer["labels"] == [label]
    assert len(answer["probabilities"][0]) == 10
    docs.get_by_role("button", name="Authorize", exact=True).first.click()
    docs.get_by_role("button", name="Remove authorization").click()
    assert docs.evaluate("sessionStorage.length") == 0


@pytest.mark.server
def test_behind_a_prefix_the_docs_page_sends_to_the_prefix(docs):
    """A proxy adds /app to the paths of the service."""
    docs.route(
        "**/app/**", lambda route: route.continue_(url=route.request.url.replace("/app", ""))
    )
    docs.goto(docs.url.replace("/docs/", "/app/docs/"))
    docs.evaluate("location.hash = '/Operation/healthz'")
    docs.reload()
    docs.get_by_role("button", name="Try it out").click()
    with docs.expect_request("**/app/healthz"):
        docs.get_by_role("button", name="Execute").click()


def test_the_docs_page_needs_no_inline_script(client):
    page = client.get("/docs/")
    assert page.status_code == 200
    assert "'unsafe-inline'" not in page.headers["Content-Security-Policy"].partition("style")[0]
    assert client.get("/docs/swagger-ui-bundle.js").status_code == 200
    assert client.get("/docs/no.js").status_code == 404
