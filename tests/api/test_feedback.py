"""`POST /feedback`: what it accepts, what it keeps, and what it refuses."""

import io
import json
import shutil

import pytest
from PIL import Image

from service.api import app
from service.api.limits import Limits
from service.feedback import Inbox
from service.recognition import pin
from service.reload import ModelStatus
from service.served_model import Model
from tests.conftest import Client, InProcess, in_process

PICTURE = 104


@pytest.fixture(scope="module")
def inbox(tmp_path_factory):
    return tmp_path_factory.mktemp("inbox")


@pytest.fixture(scope="module")
def client(artifact, inbox):
    return in_process(artifact, inbox=Inbox(inbox, per_minute=1000))


@pytest.fixture
def folder(inbox):
    """The folder that `client` writes to, without corrections."""
    for labels in inbox.glob("?"):
        shutil.rmtree(labels)
    return inbox


@pytest.fixture
def picture(png_files):
    return png_files[PICTURE].read_bytes()


def send(client, picture, headers=None, **fields):
    return client.post(
        "/feedback", files={"image": ("x.png", picture)}, data=fields, headers=headers
    )


def encoded(image, form):
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def test_without_the_option_the_route_does_not_exist(artifact, picture):
    answer = send(in_process(artifact), picture, label="7")
    assert answer.status_code == 404
    assert answer.json() == {
        "error": "The path /feedback does not exist; POST a picture to /recognize."
    }


def test_the_facts_have_what_the_service_says_itself(client, artifact, folder, picture):
    found = client.post("/recognize?probabilities=true", files={"image": picture}).json()
    [label], [probabilities] = found["labels"], found["probabilities"]
    wrong = (label + 1) % 10
    answer = send(client, picture, label=str(wrong), answered=str(label), version=artifact.version)
    assert answer.status_code == 200
    sha256 = answer.json()["sha256"]
    assert answer.json() == {"kept": True, "sha256": sha256}
    assert (folder / f"{wrong}/{sha256}.png").read_bytes() == picture
    facts = json.loads((folder / f"{wrong}/{sha256}.json").read_text())
    assert facts.pop("time")
    assert facts == {
        "sha256": sha256,
        "label": wrong,
        "answered": label,
        "confidence": pytest.approx(probabilities[label], abs=1e-6),
        "version": artifact.version,
    }


@pytest.mark.parametrize(
    ("form", "extension"), [("JPEG", "jpg"), ("GIF", "gif"), ("WEBP", "webp"), ("BMP", "bmp")]
)
def test_the_name_has_the_format_of_the_picture(client, folder, testing, form, extension):
    content = encoded(Image.fromarray(testing[0][PICTURE]).resize((60, 60)), form)
    sha256 = send(client, content, label="9").json()["sha256"]
    assert (folder / f"9/{sha256}.{extension}").read_bytes() == content


def test_a_correction_is_no_recognition(client, picture):
    def images():
        lines = client.get("/metrics").text.splitlines()
        return [line for line in lines if line.startswith(("mnist_images_total{", "mnist_conf"))]

    before = images()
    assert send(client, picture, label="7").status_code == 200
    assert images() == before


@pytest.mark.parametrize(
    ("fields", "status", "sentence"),
    [
        ({}, 400, "The form has no field named label, with the right digit."),
        ({"label": "10"}, 400, "The field label must be a digit, not '10'."),
        ({"label": "-1"}, 400, "The field label must be a digit, not '-1'."),
        ({"label": "\u0667"}, 400, "The field label must be a digit, not '\u0667'."),
        ({"label": "7\n"}, 400, "The field label must be a digit, not '7\\n'."),
        ({"label": ["7", "1"]}, 400, "The form has more than one field named label."),
        ({"label": "7", "answered": "x"}, 400, "The field answered must be a digit, not 'x'."),
        (
            {"label": "7", "version": "1"},
            400,
            "The field version must be a version, as X-Model-Version names it, not '1'.",
        ),
        (
            {"label": "7", "version": "0" * 32},
            422,
            f"This service does not serve the version {'0' * 32}; send the picture to /recognize "
            "again, and then correct that answer.",
        ),
        (
            {"label": "7", "path": "../7"},
            400,
            "The form has a field named path; its fields are image, label, answered, version.",
        ),
    ],
)
def test_wrong_fields_are_refused_in_one_sentence(
    client, folder, picture, fields, status, sentence
):
    answer = send(client, picture, **fields)
    assert (answer.status_code, answer.json()) == (status, {"error": sentence})
    assert list(folder.glob("*/*")) == []


def test_an_answer_that_the_version_does_not_give_is_refused(client, artifact, folder, picture):
    [label] = client.post("/recognize", files={"image": picture}).json()["labels"]
    other = str((label + 1) % 10)
    for version in ({}, {"version": artifact.version}):
        answer = send(client, picture, label=other, answered=other, **version)
        assert answer.status_code == 422
        assert answer.json()["error"].startswith(
            f"The answer for this picture is {label}, not {other}; send"
        )
    assert list(folder.glob("*/*")) == []


def test_an_answer_of_the_version_before_is_corrected_by_what_the_service_says_now(
    artifact, tmp_path, picture
):
    model = Model(artifact.path / pin.ARTIFACT, artifact.version, artifact.sha256, "litert")
    application = app.create(model, Limits(), inbox=Inbox(tmp_path))
    client = Client("http://localhost", InProcess(application))
    before, refused = "0" * 32, "1" * 32
    model.statuses = [
        ModelStatus(before, "END"),
        ModelStatus(refused, "END", "cannot be loaded"),
        *model.statuses,
    ]
    for answered in "01":  # one of them is another answer than now
        answer = send(client, picture, label="7", answered=answered, version=before)
        assert answer.status_code == 200
        facts = json.loads((tmp_path / f"7/{answer.json()['sha256']}.json").read_text())
        assert facts["version"] == artifact.version
    assert send(client, picture, label="7", version=refused).status_code == 422


NO_PICTURES = {
    "empty": (b"", 400, "The picture is empty."),
    "text": (b"7", 400, "The file is not a picture; send one of PNG"),
    "blank": (encoded(Image.new("L", (50, 50), 255), "PNG"), 422, "No digit was found"),
    "large": (encoded(Image.new("L", (6000, 6000)), "PNG"), 400, "The picture has 6000 x 6000"),
    "another format": (encoded(Image.new("L", (50, 50)), "TIFF"), 400, "The file is not a picture"),
}


@pytest.mark.parametrize(("content", "status", "sentence"), NO_PICTURES.values(), ids=NO_PICTURES)
def test_what_is_no_picture_of_a_digit_is_refused_as_by_recognize(
    client, folder, content, status, sentence
):
    answer = send(client, content, label="7")
    assert answer.status_code == status
    assert answer.json()["error"].startswith(sentence)
    recognized = client.post("/recognize", files={"image": ("x.png", content)})
    assert (recognized.status_code, recognized.json()) == (status, answer.json())
    assert list(folder.glob("*/*")) == []


def test_other_forms_and_bodies_are_refused(client, picture):
    raw = client.post("/feedback", data=picture, headers={"Content-Type": "image/png"})
    assert raw.status_code == 415
    no_image = client.post("/feedback", files={"label": (None, "7")})
    assert no_image.json() == {"error": "The form has no file in a field named image."}
    as_text = client.post("/feedback", files={"image": (None, picture), "label": (None, "7")})
    assert as_text.json() == no_image.json()
    label_as_file = client.post(
        "/feedback", files={"image": ("x.png", picture), "label": ("x", "7")}
    )
    assert (label_as_file.status_code, client.get("/feedback").status_code) == (400, 405)


def test_a_refused_correction_counts_as_an_attempt_if_its_picture_was_decoded(artifact, tmp_path):
    client = in_process(artifact, inbox=Inbox(tmp_path, per_minute=1))
    assert send(client, b"7").status_code == 400  # no label
    assert send(client, b"7", label="7").status_code == 400  # no picture
    answer = send(client, b"7", label="7")
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert answer.json()["error"].startswith("The service takes 1 corrections a minute; try again")


def test_no_page_of_another_origin_may_send_corrections_unless_it_is_named(
    artifact, client, tmp_path, picture
):
    """A page may send a form to any address, also to a service on the visitor's own machine."""
    page = "https://example.com"
    named, open_to_all = (
        in_process(artifact, inbox=Inbox(tmp_path), cors_origin=origin) for origin in (page, "*")
    )
    for receiver, origin, site, status in [
        (client, page, "cross-site", 403),
        (client, page, "same-site", 403),
        (client, None, "cross-site", 403),
        (client, page, "same-origin", 200),
        (client, page, "none", 200),
        (named, page, "cross-site", 200),
        (named, "https://example.org", "cross-site", 403),
        (open_to_all, page, "cross-site", 200),
    ]:
        headers = {"Origin": origin, "Sec-Fetch-Site": site}
        assert send(receiver, picture, headers, label="7").status_code == status


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.8.0.1:8080", "[::1]", "[::1]:8080"]
)
def test_a_page_of_the_service_itself_may_send_corrections(client, picture, host):
    assert send(client, picture, {"Host": host}, label="7").status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *(
            "attacker.example",
            "attacker.example:8080",
            "localhost.attacker.example",
            "0.0.0.0:8080",
        ),
        *("127.0.0.1.attacker.example", "192.168.0.1", "[fe80::1]:8080", "[::1", ":8080", "x@y"),
    ],
)
def test_without_a_token_a_page_may_not_rename_the_machine(
    artifact, client, folder, tmp_path, picture, host
):
    """A page may give its own host name the address of the visitor's machine (DNS rebinding)."""
    answer = send(client, picture, {"Host": host, "Sec-Fetch-Site": "same-origin"}, label="7")
    assert (answer.status_code, list(folder.glob("*/*"))) == (403, [])
    assert answer.json() == {
        "error": "Without a token, this service takes corrections only if the host in the address "
        f"is localhost or a loopback address, not {host!r}; start it with --token-file, also "
        "behind a proxy."
    }
    locked = in_process(artifact, inbox=Inbox(tmp_path), token="t" * 32)
    headers = {"Host": host, "Authorization": f"Bearer {'t' * 32}"}
    assert send(locked, picture, headers, label="7").status_code == 200
