"""Small requests that would take much memory or time are refused early.

The tests measure the peak of the resident memory of a real service's only worker (VmHWM of Linux).
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
# Memory of a body in MiB: the service collects it in a buffer that doubles as it grows, then copies
# it to Python, to the request and to the part of a form.
BODY = 6 * MAX_BODY // MIB
KEPT = BODY  # the allocator may also keep the memory of earlier bodies
# Memory of a JSON body in MiB: a body has room for eight million numbers, and each number takes
# eight bytes in a list, eight as an object, and eight in an array.
JSON = BODY + 3 * 8 * (MAX_BODY // 2) // MIB
# Memory of a picture in MiB: five RGBA images of four bytes a pixel (WebP's two canvases, a frame,
# the picture and its RGBA form), and four grayscale images of one byte a pixel.
PICTURE = (5 * 4 + 4) * MAX_PIXELS // MIB


@pytest.fixture(scope="module")
def send(repository):
    """A function that sends a body, and returns the response and the worker's peak in MiB.

    The peak is relative to the memory of the idle worker.
    """
    with running_server(repository.path, "--workers=1") as started:

        def post(path, body, headers=None):
            (folder / "clear_refs").write_text("5")  # reset the peak
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
    """Return a blank PNG file with extra chunks between its header and its pixels."""
    width, height = size
    pixels = zlib.compress(bytes((width * depth // 8 + 1) * height)) if width < 100 else b""
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    whole = (b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in whole
    )


def webp(width, height):
    """Return the header of a WebP file."""
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
    """Return a JPEG file of the maximum size that repeats its last scan."""
    content = encoded(stroke(int(MAX_PIXELS**0.5)), "JPEG", progressive=True)
    last = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + last * scans + content[-2:]


@cache
def zeros():
    """Return one GiB of zeros, compressed to one megabyte."""
    return zlib.compress(bytes(1 << 30), 9)


def rows(text):
    return b'{"instances":[%b]}' % text


def tensor(datatype="UINT8", **rest):
    return orjson.dumps({"inputs": [{"name": "image", "datatype": datatype} | rest]})


PNG = encoded(stroke(28), "PNG")
CUT = "damaged or cut off"
LISTS = "more than 33,000 lists and objects"

# The tests make each picture only when they need it, because most are large.
PICTURES = {
    "a PNG file of many pixels": lambda: (png(size=(30000, 30000)), "more than 25,000,000 pixels"),
    "a PNG file with the largest dimensions": lambda: (
        png(size=(2**31 - 1,) * 2),
        "25,000,000 pixels",
    ),
    "a WebP file of many pixels": lambda: (webp(13000, 13000), CUT),
    "a WebP file of the largest width": lambda: (webp(1 << 24, 255), "more than 25,000,000 pixels"),
    "a GIF file of many pixels": lambda: (
        gif(1, 1, b"," + struct.pack("<HHHHBB", 0, 0, 65535, 65535, 0, 2) + b"\0;"),
        "more than 25,000,000 pixels",
    ),
    "a TIFF file": lambda: (
        encoded(Image.new("1", (9999, 9999)), "TIFF", compression="group4"),
        "not a picture",
    ),
    "more pixels than the header declares": lambda: (png((b"IDAT", zeros())), "No digit was found"),
    "a text of 1 GiB": lambda: (png((b"zTXt", b"a\0\0" + zeros())), CUT),
    "an international text of 1 GiB": lambda: (png((b"iTXt", b"a\0\1\0\0\0" + zeros())), CUT),
    "a color profile of 1 GiB": lambda: (png((b"iCCP", b"a\0\0" + zeros())), CUT),
    "thousands of texts": lambda: (
        png(*[(b"zTXt", b"a\0\0" + zlib.compress(bytes(MIB), 9))] * 8000),
        "Too much memory used in text chunks",
    ),
    "a blank animated GIF file": lambda: (animation("GIF"), "No digit was found"),
    "a blank animated WebP file": lambda: (animation("WEBP"), "No digit was found"),
    "a blank animated PNG file": lambda: (animation("PNG"), "No digit was found"),
    "a progressive JPEG file of many scans": lambda: (
        progressive(MAX_SEGMENTS),
        "more than 500 segments",
    ),
    "a JPEG file with many Exif segments": lambda: (
        b"\xff\xd8" + b"\xff\xe1\0\x09Exif\0\0a" * (MAX_BODY // 11 - 1),
        "more than 500 segments",
    ),
}


def test_pictures(send, subtests):
    for name, make in PICTURES.items():
        with subtests.test(name):
            content, sentence = make()
            refused(send, "/recognize", content, sentence, BODY, kind("png"), {400, 422})


def test_the_declared_length_of_a_chunk_takes_no_memory(send, subtests):
    """The pixels are complete, so the service accepts the pictures despite the wrong length."""
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
    "the largest number of lists": lambda: (
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
    "a shape of many huge sizes": lambda: (
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
    "a long text beside short ones in a tensor": lambda: (
        OPEN,
        tensor(shape=[1], data=["a" * 100_000] + ["a"] * 100_000),
        "The data of image must be numbers",
        BODY,
    ),
    "a number out of range": lambda: (TENSORFLOW, rows(b"1e400"), "JSON Parse error", BODY),
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
    "a very long name": lambda: (OPEN, tensor(name="a" * (MAX_BODY - 99)), "no input 'aaa", BODY),
    "a very long signature": lambda: (
        TENSORFLOW,
        orjson.dumps({"signature_name": "a" * (MAX_BODY - 99)}),
        'Serving signature name: "aaa',
        BODY,
    ),
    "base64 of zeros": lambda: (
        OPEN,
        tensor(
            "BYTES", shape=[1], data=[base64.b64encode(bytes(MAX_BODY // 4 * 3 - 200)).decode()]
        ),
        "not a picture",
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


def test_millions_of_binary_elements(send):
    binary = bytes(MAX_BODY - 500)  # four million empty elements
    header = tensor("BYTES", shape=[1], parameters={"binary_data_size": len(binary)})
    headers = {LENGTH: str(len(header))}
    refused(send, OPEN, header + binary, "its data has 4194179 pictures", JSON, headers)


def test_forms(send, subtests):
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n'
    large = encoded(Image.new("1", (int(MAX_PIXELS**0.5),) * 2), "PNG") + b"\r\n"
    for name, body, sentence in (
        ("five large pictures", (head + b"\r\n" + large) * 5 + b"--x--\r\n", "100,000,000 pixels"),
        ("ten thousand parts", (head + b"\r\n\r\n") * 10_000 + b"--x--\r\n", "more than 1,000"),
        ("a very long header", head + b"A: " + b"a" * (MAX_BODY - 200), "too many headers"),
        ("a million headers", head + b"A: a\r\n" * 1_000_000, "too many headers"),
        ("millions of boundaries", b"--x\r\n" * (MAX_BODY // 5), "The form is damaged"),
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


def test_no_body_stays_in_memory_after_its_response(send):
    """An exception and its frames form a cycle that holds the body until garbage collection."""
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
