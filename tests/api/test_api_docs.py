"""The live service does what openapi.json describes."""

import base64
import io
import json
import re

import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from PIL import Image

import service
from service.api import api_docs


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
    case.call_and_validate(base_url=server.url)


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
