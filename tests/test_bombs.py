"""Small requests that would take much memory or time are refused before they do.

Peaks of memory are those of the one worker of a real service, as Linux counts them.
"""

import base64
import gzip
import io
import re
import struct
import sys
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import orjson
import pytest
import requests
from PIL import Image

from service.api.errors import LONGEST
from service.api.limits import Limits
from service.api.open_inference import LENGTH
from service.recognition.images import MAX_SEGMENTS
from tests.conftest import running_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="needs /proc"),
]

MAX_BODY, MAX_PIXELS = Limits.body, Limits.pixels
TENSORFLOW, OPEN = "/v1/models/mnist:predict", "/v2/models/mnist/infer"
FORM = {"Content-Type": "multipart/form-data; boundary=x"}
MIB = 1 << 20
# What a body costs: it is gathered in a buffer that doubles as it grows, then copied to Python, to
# the request and to the part of a form.
BODY = 6 * MAX_BODY // MIB
KEPT = BODY  # more by the allocator, of the bodies before
# What JSON costs besides: the eight million numbers that fill a body are eight bytes each in a
# list, again as objects, and again as an array.
JSON = BODY + 3 * 8 * (MAX_BODY // 2) // MIB
# What a picture costs: WebP's two canvases, a frame, the picture and its RGBA form of four bytes a
# pixel, and four in grey.
PICTURE = (5 * 4 + 4) * MAX_PIXELS // MIB


@pytest.fixture(scope="module")
def send(repository):
    """Send a body; return the answer, and by how many MiB the worker was at most above its rest."""
    with running_server(repository.path, "--workers=1") as started:

        def post(path, body, headers=None):
            (folder / "clear_refs").write_text("5")  # the peak begins anew
            url = f"{started.url}{path}"
            answer = requests.post(url, data=body, headers=headers, timeout=300)
            return answer, mebibytes(folder, "VmHWM") - rest

        folder, rest = Path(f"/proc/{started.worker()}"), 0
        post("/recognize", PNG, kind("png"))
        rest = mebibytes(folder, "VmRSS")
        yield post


def mebibytes(folder, name):
    (kibibytes,) = re.findall(rf"{name}:\s+(\d+) kB", (folder / "status").read_text())
    return int(kibibytes) / 1024


def kind(name):
    return {"Content-Type": f"image/{name}"}


def encoded(picture, name, **options):
    buffer = io.BytesIO()
    picture.save(buffer, name, **options)
    return buffer.getvalue()


def png(*chunks, size=(28, 28), depth=8):
    """A PNG file of nothing, with more chunks between its head and its pixels."""
    width, height = size
    pixels = zlib.compress(bytes((width * depth // 8 + 1) * height)) if width < 100 else b""
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    whole = (b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in whole
    )


def webp(width, height):
    """The head of a WebP file."""
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    return b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X\x0a\0\0\0\x12\0\0\0" + size


def gif(width, height, *frames):
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0)
    return head + b"".join(frames)


def stroke(side, mode="L", ink=255):
    picture = Image.new(mode, (side, side))
    picture.paste(ink, (side // 2, side // 4, side // 2 + side // 10, side // 4 * 3))
    return picture


def animation(name):
    frames = [Image.new("L", (64, 64), number % 200) for number in range(3000)]
    return encoded(frames[0], name, save_all=True, append_images=frames[1:])


def progressive(scans):
    """A JPEG file of the most pixels that goes over its last scan again and again."""
    content = encoded(stroke(int(MAX_PIXELS**0.5)), "JPEG", progressive=True)
    last = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + last * scans + content[-2:]


@cache
def zeros():
    """A compressed GiB, of one megabyte."""
    return zlib.compress(bytes(1 << 30), 9)


def rows(text):
    return b'{"instances":[%b]}' % text


def tensor(datatype="UINT8", **rest):
    return orjson.dumps({"inputs": [{"name": "image", "datatype": datatype} | rest]})


PNG = encoded(stroke(28), "PNG")
CUT = "damaged or cut off"
LISTS = "more than 33,000 lists and objects"

# Made one by one, when it is their turn: most are large.
PICTURES = {
    "a PNG file of many pixels": lambda: (png(size=(30000, 30000)), "more than 25,000,000 pixels"),
    "a PNG file of more pixels than there are": lambda: (
        png(size=(2**31 - 1,) * 2),
        "25,000,000 pixels",
    ),
    "a WebP file of many pixels": lambda: (webp(13000, 13000), CUT),
    "a WebP file of all pixels": lambda: (webp(1 << 24, 255), "more than 25,000,000 pixels"),
    "a GIF file of many pixels": lambda: (
        gif(1, 1, b"," + struct.pack("<HHHHBB", 0, 0, 65535, 65535, 0, 2) + b"\0;"),
        "more than 25,000,000 pixels",
    ),
    "a TIFF file": lambda: (
        encoded(Image.new("1", (9999, 9999)), "TIFF", compression="group4"),
        "not an",
    ),
    "more pixels than a PNG file says": lambda: (png((b"IDAT", zeros())), "No digit was found"),
    "a text of 1 GiB": lambda: (png((b"zTXt", b"a\0\0" + zeros())), CUT),
    "an international text of 1 GiB": lambda: (png((b"iTXt", b"a\0\1\0\0\0" + zeros())), CUT),
    "a colour profile of 1 GiB": lambda: (png((b"iCCP", b"a\0\0" + zeros())), CUT),
    "thousands of texts": lambda: (
        png(*[(b"zTXt", b"a\0\0" + zlib.compress(bytes(MIB), 9))] * 8000),
        "Too much memory used in text chunks",
    ),
    "an animated GIF file of nothing": lambda: (animation("GIF"), "No digit was found"),
    "an animated WebP file of nothing": lambda: (animation("WEBP"), "No digit was found"),
    "an animated PNG file of nothing": lambda: (animation("PNG"), "No digit was found"),
    "a progressive JPEG file without end": lambda: (
        progressive(MAX_SEGMENTS),
        "more than 500 segments",
    ),
    "a JPEG file of many notes": lambda: (
        b"\xff\xd8" + b"\xff\xe1\0\x09Exif\0\0a" * (MAX_BODY // 11 - 1),
        "more than 500 segments",
    ),
}


def test_pictures(send, subtests):
    for name, make in PICTURES.items():
        with subtests.test(name):
            content, sentence = make()
            refused(send, "/recognize", content, sentence, BODY, kind("png"), {400, 422})


def test_a_chunk_takes_no_more_memory_than_it_has(send, subtests):
    """The pixels are whole, so these are pictures, however long a chunk says that it is."""
    length = b"\x7f\xff\xff\xff"
    for name, content in (
        ("the pixels", PNG[:33] + length + PNG[37:]),
        ("the end", PNG[:-12] + length + PNG[-8:]),
    ):
        with subtests.test(name):
            answer, grown = send("/recognize", content, kind("png"))
            assert answer.status_code == 200
            assert grown < KEPT + BODY


BODIES = {
    "lists in lists": lambda: (TENSORFLOW, b"[" * MAX_BODY, LISTS, BODY),
    "lists in lists, closed": lambda: (
        TENSORFLOW,
        rows(b",".join([b"[" * 1000 + b"]" * 1000] * (MAX_BODY // 2001 - 1))),
        LISTS,
        BODY,
    ),
    "deep nesting": lambda: (TENSORFLOW, b"[" * 30_000, "JSON Parse error", BODY),
    "empty objects": lambda: (OPEN, rows(b",".join([b"{}"] * (MAX_BODY // 3 - 9))), LISTS, BODY),
    "as many lists as may be": lambda: (
        TENSORFLOW,
        rows(b",".join([b"[]"] * 32_998)),
        "The shape of image is [32998, 0]",
        JSON,
    ),
    "eight million numbers in a row": lambda: (
        TENSORFLOW,
        rows(b",".join([b"0"] * (MAX_BODY // 2 - 50))),
        "The shape of",
        JSON,
    ),
    "eight million numbers in a tensor": lambda: (
        OPEN,
        tensor(shape=[1, 28, 28], data=[0] * (MAX_BODY // 2 - 100)),
        "its data has 8388508 numbers",
        JSON,
    ),
    "eight million sizes": lambda: (
        OPEN,
        tensor(shape=[0] * (MAX_BODY // 2 - 100), data=[]),
        "a list of up to three integers",
        JSON,
    ),
    "a product without end": lambda: (
        OPEN,
        tensor(shape=[2**63 - 1] * (MAX_BODY // 20 - 9), data=[]),
        "a list of up to three integers",
        JSON,
    ),
    "a long text beside short ones": lambda: (
        TENSORFLOW,
        orjson.dumps({"instances": ["a" * 100_000] + ["a"] * 100_000}),
        "not of expected type: uint8",
        BODY,
    ),
    "the same in a tensor": lambda: (
        OPEN,
        tensor(shape=[1], data=["a" * 100_000] + ["a"] * 100_000),
        "The data of image must be numbers",
        BODY,
    ),
    "a number beyond all": lambda: (TENSORFLOW, rows(b"1e400"), "JSON Parse error", BODY),
    "a number of 100,000 digits": lambda: (
        TENSORFLOW,
        rows(b"9" * 100_000),
        "JSON Parse error",
        BODY,
    ),
    "a number of sixteen million digits": lambda: (
        TENSORFLOW,
        rows(b"9" * (MAX_BODY - 99)),
        "JSON Parse error",
        BODY,
    ),
    "a name without end": lambda: (OPEN, tensor(name="a" * (MAX_BODY - 99)), "no input 'aaa", BODY),
    "a signature without end": lambda: (
        TENSORFLOW,
        orjson.dumps({"signature_name": "a" * (MAX_BODY - 99)}),
        'Serving signature name: "aaa',
        BODY,
    ),
    "base64 of nothing": lambda: (
        OPEN,
        tensor(
            "BYTES", shape=[1], data=[base64.b64encode(bytes(MAX_BODY // 4 * 3 - 200)).decode()]
        ),
        "not an image",
        JSON,
    ),
    "base64 of thousands of pictures": lambda: (
        OPEN,
        tensor("BYTES", shape=[50_000], data=[base64.b64encode(PNG).decode()] * 50_000),
        "50,000 images; the limit is 1,000",
        JSON,
    ),
}


def test_json(send, subtests):
    for name, make in BODIES.items():
        with subtests.test(name):
            path, body, sentence, bound = make()
            assert len(body) <= MAX_BODY
            refused(send, path, body, sentence, bound)


def test_binary_elements_without_end(send):
    binary = bytes(MAX_BODY - 500)  # four million elements of no bytes
    header = tensor("BYTES", shape=[1], parameters={"binary_data_size": len(binary)})
    headers = {LENGTH: str(len(header))}
    refused(send, OPEN, header + binary, "its data has 4194179 pictures", JSON, headers)


def test_forms(send, subtests):
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n'
    large = encoded(Image.new("1", (int(MAX_PIXELS**0.5),) * 2), "PNG") + b"\r\n"
    for name, body, sentence in (
        ("five large pictures", (head + b"\r\n" + large) * 5 + b"--x--\r\n", "100,000,000 pixels"),
        ("ten thousand parts", (head + b"\r\n\r\n") * 10_000 + b"--x--\r\n", "more than 1,000"),
        ("a header without end", head + b"A: " + b"a" * (MAX_BODY - 200), "too many headers"),
        ("a million headers", head + b"A: a\r\n" * 1_000_000, "too many headers"),
        ("a boundary again and again", b"--x\r\n" * (MAX_BODY // 5), "The form is damaged"),
    ):
        with subtests.test(name):
            refused(send, "/recognize", body, sentence, BODY, FORM, {400, 413})


@pytest.mark.parametrize("path", ["/recognize", TENSORFLOW, OPEN])
def test_a_compressed_body(send, path):
    headers = {"Content-Encoding": "gzip", **kind("png")}
    body = gzip.compress(bytes(256 * MIB))
    refused(send, path, body, "Content-Encoding gzip is not supported", BODY, headers, {415})


def test_the_largest_pictures_are_decoded_in_bounded_memory(send, subtests):
    side = int(MAX_PIXELS**0.5)
    wide = Image.fromarray(np.asarray(stroke(side)).astype(np.uint16) * 257)
    for name, picture, options in (
        ("PNG", wide, {}),
        ("PNG", stroke(side, "RGBA", "white"), {}),
        ("WEBP", stroke(side, "RGBA", "white"), {"lossless": True, "method": 0}),
    ):
        with subtests.test(f"{name} {picture.mode}"):
            content = encoded(picture, name, **options)
            answer, grown = send("/recognize", content, kind("png"))
            assert answer.status_code == 200
            assert grown < KEPT + PICTURE


def test_no_body_is_kept_once_it_is_answered(send):
    """An exception and its frames hold each other, and the body, until they are collected."""
    for path, body, headers in (
        ("/nothing", bytes(MAX_BODY), {}),
        ("/recognize", b"--x\r\n" * (MAX_BODY // 5), FORM),
    ):
        for _ in range(20):
            answer, grown = send(path, body, headers)
            assert answer.status_code in {400, 404}
        assert grown < KEPT + BODY


def refused(send, path, body, sentence, bound, headers=None, statuses=frozenset({400, 413})):
    answer, grown = send(path, body, headers)
    assert answer.status_code in statuses
    assert list(answer.json()) == ["error"]
    assert sentence in answer.json()["error"][:LONGEST]
    assert len(answer.json()["error"]) <= LONGEST + 3
    assert grown < KEPT + bound
