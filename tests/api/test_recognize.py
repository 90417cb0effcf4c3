"""`POST /recognize` over HTTP."""

import io
import json
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from PIL import Image

import service
from service.api.limits import ON_LOOP, Limits, LongRequestError
from service.recognition import engines, images, occlusion, pin


def recognize(client, query="", **options):
    return client.post(f"/recognize{query}", **options)


def field(*contents):
    return [("image", (f"{n}.png", content)) for n, content in enumerate(contents)]


def test_one_picture_returns_exactly_this_json(client, png_files, artifact):
    with png_files[104].open("rb") as file:
        answer = recognize(client, files={"image": file})
    assert answer.status_code == 200
    assert answer.content == b'{"filename":"104.png","labels":[%d]}' % artifact.predictions[104]
    assert answer.headers["Content-Type"] == "application/json"


def test_a_raw_body_returns_no_filename(client, png_files, artifact):
    content = png_files[104].read_bytes()
    answer = recognize(client, data=content, headers={"Content-Type": "image/png"})
    assert answer.content == b'{"filename":null,"labels":[%d]}' % artifact.predictions[104]


def test_a_chunked_body_is_read_completely(client, png_files, artifact):
    content = png_files[104].read_bytes()
    chunks = Chunked([content[:99], content[99:]])
    answer = recognize(client, data=chunks, headers={"Content-Type": "image/png"})
    assert answer.json() == {"filename": None, "labels": [artifact.predictions[104]]}


def test_results_have_the_order_of_the_pictures(client, png_files, artifact):
    files = [("image", (file.name, file.read_bytes())) for file in png_files]
    answer = recognize(client, files=files)
    assert answer.json()["results"] == [
        {"filename": file.name, "labels": [label]}
        for file, label in zip(png_files, artifact.predictions.tolist(), strict=True)
    ]


def test_probabilities_are_returned_on_request(client, png_files, artifact):
    content = png_files[104].read_bytes()
    answer = recognize(client, "?probabilities=true", files=field(content)).json()
    assert list(answer) == ["filename", "labels", "probabilities"]
    (row,) = answer["probabilities"]
    assert len(row) == 10
    assert sum(row) == pytest.approx(1, abs=1e-5)
    assert int(np.argmax(row)) == answer["labels"][0] == artifact.predictions[104]


def test_each_of_several_pictures_has_its_own_probabilities(client, png_files):
    contents = [file.read_bytes() for file in png_files[:3]]
    together = recognize(client, "?probabilities=true", files=field(*contents)).json()["results"]
    for content, result in zip(contents, together, strict=True):
        alone = recognize(client, "?probabilities=true", files=field(content)).json()
        np.testing.assert_allclose(result["probabilities"], alone["probabilities"], atol=1e-6)


def test_probabilities_false_returns_no_probabilities(client, png_files):
    answer = recognize(client, "?probabilities=false", files=field(png_files[0].read_bytes()))
    assert "probabilities" not in answer.json()


def test_a_filename_in_any_script_is_returned(client, png_files):
    content = png_files[0].read_bytes()
    answer = recognize(client, files={"image": ('drei "3" ü数.png', content)})
    assert answer.json()["filename"].endswith("ü数.png")


@pytest.mark.parametrize("kind", ["JPEG", "BMP", "GIF", "WEBP"])
def test_other_formats_are_recognized(client, png_files, artifact, kind):
    buffer = io.BytesIO()
    Image.open(png_files[0]).convert("RGB").save(buffer, kind, quality=95)
    headers = {"Content-Type": f"image/{kind.lower()}"}
    answer = recognize(client, data=buffer.getvalue(), headers=headers)
    assert answer.json()["labels"] == [artifact.predictions[0]]


def big_png():
    buffer = io.BytesIO()
    Image.new("L", (6000, 6000)).save(buffer, "PNG")
    return buffer.getvalue()


def png(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def stroke(mode="L", size=(28, 28), ink=255):
    picture = Image.new(mode, size)
    left, top = size[0] // 2, size[1] // 4
    picture.paste(ink, (left, top, left + max(size[0] // 10, 1), 3 * top))
    return picture


@dataclass(frozen=True)
class Chunked:
    """A body that `requests` sends in chunks, without Content-Length."""

    chunks: list[bytes]

    def __iter__(self):
        return iter(self.chunks)


VALID = png(stroke())
PART = b"--x\r\nContent-Disposition: form-data; name=image; filename=a\r\n\r\n"
RAW = {"headers": {"Content-Type": "image/png"}}

INVALID = {
    "no field image": ({"files": {"picture": VALID}}, 400, "no file in a field named image"),
    "a text in the field": ({"files": {"x": b""}, "data": {"image": "9"}}, 400, "no file"),
    "an empty file": ({"files": field(b"")}, 400, "The picture is empty."),
    "an empty body": ({"data": b"", **RAW}, 400, "The picture is empty."),
    "not a picture": ({"files": field(b"<html>")}, 400, "not a picture"),
    "a truncated file": ({"files": field(VALID[:50])}, 400, "damaged or cut off"),
    "a damaged file": ({"files": field(VALID[:45] + b"\0\0" + VALID[47:])}, 400, "damaged"),
    "a blank picture": ({"files": field(png(Image.new("L", (28, 28))))}, 422, "No digit was found"),
    "one blank picture of two": (
        {"files": field(VALID, png(Image.new("L", (90, 90), 255)))},
        422,
        "Picture 2 (1.png): No digit was found",
    ),
    "too many pixels": ({"files": field(big_png())}, 400, "6000 x 6000 pixels"),
    "one invalid picture of three": (
        {"files": field(VALID, b"", VALID)},
        400,
        "Picture 2 (1.png): The picture is",
    ),
    "a body over the limit": ({"data": bytes(Limits.body + 1), **RAW}, 413, "too large"),
    "a chunked body over the limit": (
        {"data": Chunked([bytes(Limits.body), b"x"]), **RAW},
        413,
        "too large",
    ),
    "a chunked form over the limit": (
        {
            "data": Chunked([PART, bytes(Limits.body)]),
            "headers": {"Content-Type": "multipart/form-data; boundary=x"},
        },
        413,
        "too large",
    ),
    "too many files": ({"files": field(*[b"x"] * 1001)}, 413, "more than 1,000 parts"),
    "no media type": ({"data": VALID}, 415, "multipart/form-data"),
    "JSON": ({"json": [1]}, 415, "multipart/form-data"),
    "a form without files": ({"data": {"image": "9"}}, 415, "multipart/form-data"),
    "a filename that is not UTF-8": (
        {
            "data": PART.replace(b"=a", b"=\xff") + b"\r\n--x--\r\n",
            "headers": {"Content-Type": "multipart/form-data; boundary=x"},
        },
        400,
        "The form is damaged or cut off: Segment header failed to decode.",
    ),
    "a broken form": (
        {"data": b"x", "headers": {"Content-Type": "multipart/form-data"}},
        400,
        "The form is damaged or cut off",
    ),
}


@pytest.mark.parametrize(("request_", "status", "sentence"), INVALID.values(), ids=INVALID)
def test_invalid_input_returns_one_sentence_and_the_service_still_works(
    client, artifact, request_, status, sentence
):
    answer = recognize(client, **request_)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert sentence in answer.json()["error"]
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Model-Version"] == artifact.version
    assert recognize(client, files=field(VALID)).status_code == 200


def test_the_preprocessed_image_is_returned_on_request(client, png_files, testing):
    for name in ("preprocessed", "seen"):
        files = field(png_files[104].read_bytes())
        answer = recognize(client, f"?{name}=true", files=files)
        np.testing.assert_array_equal(answer.json()[name], testing[0][104:105])


def test_many_digits_are_returned_from_left_to_right(client, testing):
    page = Image.new("L", (300, 120), 255)
    for index, image in enumerate(testing[0][:3]):
        page.paste(Image.fromarray(255 - image).resize((90, 90)), (100 * index + 5, 10))
    query = "?digits=many&probabilities=true&preprocessed=true&min_confidence=0"
    result = recognize(client, query, files=field(png(page))).json()
    assert list(result) == ["filename", "labels", "boxes", "probabilities", "preprocessed"]
    assert len(result["labels"]) == len(result["boxes"]) == 3
    assert np.shape(result["probabilities"]) == (3, 10)
    assert np.shape(result["preprocessed"]) == (3, 28, 28)
    assert [left // 100 for left, *_ in result["boxes"]] == [0, 1, 2]


def test_a_number_with_a_part_that_is_probably_no_digit_is_refused(client, testing):
    """The artifact of these tests is uncertain of some digits."""
    for start in range(0, 100, 5):
        page = Image.new("L", (500, 120), 255)
        for index, image in enumerate(testing[0][start : start + 5]):
            page.paste(Image.fromarray(255 - image).resize((90, 90)), (100 * index + 5, 10))
        query = "?digits=many&probabilities=true&min_confidence=0"
        rows = recognize(client, query, files=field(png(page))).json()["probabilities"]
        if min(map(max, rows)) < 0.5:
            break
    answer = recognize(client, "?digits=many", files=field(png(page)))
    assert answer.status_code == 422
    assert "no label reaches the required confidence of 0.5" in answer.json()["error"]


def test_an_unknown_value_of_a_parameter_returns_400(client):
    answer = recognize(client, "?probabilities=maybe", files=field(VALID))
    assert answer.status_code == 400
    assert (
        answer.json()["error"] == "The parameter probabilities must be true or false, not 'maybe'."
    )


@pytest.fixture
def by_confidence(client, png_files):
    """Return the name, the content and the confidence of 50 pictures, the least certain first."""
    contents = [(file.name, file.read_bytes()) for file in png_files[:50]]
    files = [("image", each) for each in contents]
    results = recognize(client, "?probabilities=true", files=files).json()["results"]
    confidences = [max(result["probabilities"][0]) for result in results]
    pictures = [(*each, sure) for each, sure in zip(contents, confidences, strict=True)]
    return sorted(pictures, key=lambda picture: picture[2])


def body_of(content, kind):
    """Return the options of `recognize` that send a picture: a form, or a raw body of a format."""
    if kind == "form":
        return {"files": field(content)}
    buffer = io.BytesIO()
    Image.open(io.BytesIO(content)).convert("RGB").save(buffer, kind, lossless=True, quality=100)
    return {"data": buffer.getvalue(), "headers": {"Content-Type": f"image/{kind.lower()}"}}


@pytest.mark.parametrize("kind", ["form", "PNG", "JPEG", "BMP", "GIF", "WEBP"])
@pytest.mark.parametrize("others", ["", "&probabilities=true", "&preprocessed=true&digits=one"])
def test_min_confidence_refuses_a_picture_below_it_and_no_other(
    client, by_confidence, kind, others
):
    _, content, _ = by_confidence[0]
    body = body_of(content, kind)
    (probabilities,) = recognize(client, "?probabilities=true", **body).json()["probabilities"]
    sure = max(probabilities)  # JPEG changes the picture a little
    refused = recognize(client, f"?min_confidence={sure + 1e-6}{others}", **body)
    assert refused.status_code == 422
    assert list(refused.json()) == ["error"]
    sentence = refused.json()["error"]
    label = probabilities.index(sure)
    assert sentence.startswith("The picture is unclear: it ")
    assert f" {label} ({int(100 * sure)}%)" in sentence
    assert sentence.endswith(f"; no label reaches the required confidence of {sure + 1e-6}.")
    accepted = recognize(client, f"?min_confidence={sure}{others}", **body)
    assert accepted.status_code == 200
    assert accepted.content == recognize(client, f"?{others}", **body).content


def test_without_min_confidence_the_likelier_label_is_returned(client, by_confidence):
    _, content, sure = by_confidence[0]
    assert sure < 0.9
    for query in ("", "?min_confidence=0", "?probabilities=true"):
        assert recognize(client, query, files=field(content)).status_code == 200


def test_min_confidence_names_the_first_doubtful_picture_of_several(client, by_confidence):
    first, second, *_, last = by_confidence
    limit = (second[2] + last[2]) / 2
    files = [("image", each[:2]) for each in (last, second, first, last)]
    answer = recognize(client, f"?min_confidence={limit}", files=files)
    assert answer.status_code == 422
    assert answer.json()["error"].startswith(
        f"Picture 2 ({second[0]}): The picture is unclear: it "
    )
    files = [("image", last[:2])] * 3
    answer = recognize(client, f"?min_confidence={limit}", files=files)
    assert answer.content == recognize(client, files=files).content


def test_an_invalid_picture_is_reported_before_a_doubtful_one(client, by_confidence):
    files = field(by_confidence[0][1], b"")
    answer = recognize(client, "?min_confidence=1", files=files)
    assert answer.status_code == 400
    assert answer.json()["error"] == "Picture 2 (1.png): The picture is empty."


def test_min_confidence_names_the_doubtful_digit_of_many(client, testing):
    content = number_of(*testing[0][:10])
    files = field(content)
    many = "?digits=many&probabilities=true"
    rows = recognize(client, f"{many}&min_confidence=0", files=files).json()["probabilities"]
    sure = [max(row) for row in rows]
    lowest, next_ = sorted(sure)[:2]
    limit = (lowest + next_) / 2
    answer = recognize(client, f"{many}&min_confidence={limit}", files=files)
    assert answer.status_code == 422
    number = sure.index(lowest) + 1
    start = f"Digit {number} from the left is unclear: it "
    assert answer.json()["error"].startswith(start)
    answer = recognize(client, f"{many}&min_confidence={lowest}", files=files)
    assert answer.json()["probabilities"] == rows
    files = [("image", ("a.png", content)), ("image", ("b.png", content))]
    answer = recognize(client, f"{many}&min_confidence={limit}", files=files)
    assert answer.json()["error"].startswith(f"Picture 1 (a.png): {start}")


@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/html", "image/png"])
def test_the_error_of_a_doubtful_picture_is_json_for_every_accept_header(
    client, by_confidence, accept
):
    files = field(by_confidence[0][1])
    headers = {"Accept": accept}
    answer = recognize(client, "?min_confidence=1", files=files, headers=headers)
    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/json"
    assert list(answer.json()) == ["error"]


@pytest.mark.parametrize("value", ["0", "1", "1.0", "0.", ".5", "5e-1", "0.50", "-0", "1e-999"])
def test_min_confidence_is_any_number_from_0_to_1(client, png_files, value):
    files = field(png_files[0].read_bytes())
    answer = recognize(client, f"?min_confidence={value}", files=files)
    assert answer.status_code in (200, 422)


@pytest.mark.parametrize(
    "value",
    [
        *("", "high", "true", "nan", "inf", "-0.1", "1.01", "90", "1e400", "0,9", "0x1", "."),
        *(" 0.9", "0.9 ", "0_1", "\u0660", "90%", "0.9;", "9" * 5000 + "x"),
    ],
)
def test_another_value_of_min_confidence_returns_400(client, value):
    answer = client.post(
        "/recognize", params={"min_confidence": value, "digits": "one"}, files=field(VALID)
    )
    assert answer.status_code == 400
    sentence = f"The parameter min_confidence must be a number from 0 to 1, not {value!r}."
    assert answer.json()["error"] == (sentence if len(sentence) < 1000 else f"{sentence[:1000]}...")


def number_of(*digits):
    """Return a picture of digits side by side."""
    page = Image.new("L", (100 * len(digits), 120), 255)
    for index, image in enumerate(digits):
        page.paste(Image.fromarray(255 - image).resize((90, 90)), (100 * index + 5, 10))
    return png(page)


def test_why_returns_where_the_network_looked(client, testing, png_files, artifact):
    answer = recognize(client, "?why=true", files=field(png_files[7].read_bytes())).json()
    assert list(answer) == ["filename", "labels", "why"]
    assert answer["labels"] == [artifact.predictions[7]]
    recognizer = engines.load(artifact.path / pin.ARTIFACT, "litert")
    expected = occlusion.explain(recognizer, testing[0][7])
    assert expected.any()
    np.testing.assert_allclose(answer["why"], [expected], atol=1e-6)


def test_why_returns_a_map_for_each_digit_of_a_number(client, testing):
    body = {"files": field(number_of(*testing[0][:3]))}
    query = "?digits=many&min_confidence=0&preprocessed=true&why=true"
    answer = recognize(client, query, **body).json()
    assert np.shape(answer["why"]) == (len(answer["labels"]), 28, 28)
    for image, found in zip(answer["preprocessed"], answer["why"], strict=True):
        far_from_ink = cv2.dilate(np.array(image, np.uint8), np.ones((13, 13))) == 0
        assert not np.array(found)[far_from_ink].any()


@pytest.mark.parametrize("query", ["why=true", "digits=many"])
def test_a_request_that_takes_long_leaves_the_event_loop(artifact, query):
    client = service.create_app(artifact.path / "dvc.lock").test_client()
    request = {"data": VALID, "content_type": "image/png", "environ_overrides": {ON_LOOP: True}}
    assert client.post("/recognize?probabilities=true", **request).status_code == 200
    with pytest.raises(LongRequestError):
        client.post(f"/recognize?{query}", **request)


def test_why_accepts_only_one_picture(client):
    answer = recognize(client, "?why=true", files=field(VALID, VALID))
    assert answer.status_code == 400
    assert answer.json()["error"] == (
        "The parameter why allows one picture per request, not 2; send each picture in a request "
        "of its own."
    )


def test_why_accepts_ten_digits(client):
    strokes = [np.asarray(stroke())] * 11
    query = "?digits=many&min_confidence=0&why=true"
    answer = recognize(client, query, files=field(number_of(*strokes[:10])))
    assert len(answer.json()["why"]) == 10
    answer = recognize(client, query, files=field(number_of(*strokes)))
    assert answer.status_code == 400
    assert answer.json()["error"] == (
        "The parameter why allows 10 digits in a picture, and this one has 11; cut the picture, "
        "or leave out why."
    )


def test_every_mode_and_size_returns_a_label(client):
    pictures = [
        stroke("RGB", ink="white"),
        stroke("RGBA", ink="white"),
        stroke("L", (100, 100)),
        stroke("L", (56, 14)),
        Image.fromarray(np.asarray(stroke()).astype(np.uint16) * 257),
        stroke().convert("P"),
    ]
    for picture in pictures:
        answer = recognize(client, files=field(png(picture)))
        assert answer.status_code == 200
        assert len(json.loads(answer.content)["labels"]) == 1


def test_the_service_decodes_the_files_of_the_pipeline_exactly(repository, testing):
    folder = repository.path / "data/png/testing"
    for number, (image, label) in enumerate(zip(*testing, strict=True)):
        file = folder / str(label) / f"{number}.png"
        np.testing.assert_array_equal(images.decode(file.read_bytes()), image)
