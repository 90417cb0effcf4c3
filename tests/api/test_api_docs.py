"""The live service does what openapi.json describes."""

import base64
import io
import json
import re

import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis.specs.openapi.checks import positive_data_acceptance

import service
from service.api import api_docs
from tests.conftest import PROJECT


def _png(side: int, background: int, ink: int) -> bytes:
    buffer = io.BytesIO()
    picture = Image.new("L", (side, side), background)
    picture.paste(ink, (side // 2, side // 4, side // 2 + side // 10, side // 4 * 3))
    picture.save(buffer, "PNG")
    return buffer.getvalue()


pictures = st.builds(_png, st.integers(20, 99), st.integers(0, 90), st.integers(160, 255))
schemathesis.openapi.format("picture", pictures)
schemathesis.openapi.format(
    "picture-base64", pictures.map(lambda content: base64.b64encode(content).decode())
)
for kind in ("png", "jpeg", "bmp", "gif", "webp"):
    schemathesis.openapi.media_type(f"image/{kind}", pictures)


openapi = schemathesis.openapi.from_path(api_docs.FILE)


@openapi.parametrize()
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_route_behaves_as_described(case, server):
    response = case.call(base_url=server.url)
    # Whether the model is certain enough of a valid picture depends on the picture.
    is_doubtful = response.status_code == 422 and "no label reaches the required" in response.text
    assert not is_doubtful or {"min_confidence", "digits"} & case.query.keys()
    # The description cannot express that `why` allows one picture and not several.
    is_refused = response.status_code == 400 and "The parameter why allows" in response.text
    assert not is_refused or "why" in case.query
    excluded = [positive_data_acceptance] if is_doubtful or is_refused else []
    case.validate_response(response, excluded_checks=excluded)


def test_every_query_parameter_of_recognize_is_in_the_readme():
    parameters = json.loads(api_docs.FILE.read_text())["paths"]["/recognize"]["post"]["parameters"]
    readme = (PROJECT / "service/README.md").read_text()
    assert {parameter["name"] for parameter in parameters} == set(re.findall(r"`\?(\w+)=", readme))


def test_the_service_serves_the_file_of_the_repository(client):
    answer = client.get("/openapi.json")
    assert answer.content == api_docs.FILE.read_bytes()


def test_every_route_is_described(artifact):
    """The description omits the pages and the unsupported routes of TensorFlow Serving."""
    described = json.loads(api_docs.FILE.read_text())
    assert described["info"]["version"] == service.__version__
    application = service.create_app(artifact.path / "dvc.lock")
    routes = {
        re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", each.rule)
        for each in application.url_map.iter_rules()
        if each.rule != "/" and not re.search(r"^/(docs|static)/|label|verb", each.rule)
    }
    assert routes == set(described["paths"])


def test_the_docs_page_needs_no_other_host(client):
    page = client.get("/docs/")
    assert page.status_code == 200
    assert "swagger-ui" in page.text
    assert "//unpkg.com" not in page.text
    assert "cdn" not in page.text.lower()
    script = client.get("/docs/swagger-ui-bundle.js")
    assert script.status_code == 200
