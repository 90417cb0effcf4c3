import hashlib
import json
import shutil
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tenacity import wait_none

from stages.common import fonts, mirrors, params
from stages.common.params import Font
from stages.common.runner import StageError
from tests.conftest import FONTS, PROJECT, answering, program

TIMEOUT = 30.0  # seconds
FILES = sorted(file.name for file in FONTS.glob("*.woff"))
CONTENTS = {name: (FONTS / name).read_bytes() for name in FILES}
WANTED = [
    Font(package="@fonts/hand@1.0.0", file=name, sha256=hashlib.sha256(content).hexdigest())
    for name, content in CONTENTS.items()
]
PINNED = params.load(PROJECT / "params.yaml").data.fonts


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(fonts._verified.retry, "wait", wait_none())


def test_fonts_of_the_tests_are_pinned_in_params_yaml():
    pinned = {font.file: font.sha256 for font in (*PINNED.training, *PINNED.testing)}
    assert {font.file: font.sha256 for font in WANTED}.items() <= pinned.items()


def test_fetch_from_a_folder():
    assert fonts.fetch([str(FONTS)], WANTED, TIMEOUT) == CONTENTS


def test_fetch_from_a_url(tmp_path):
    shutil.copytree(FONTS, tmp_path / "@fonts/hand@1.0.0/files")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with answering(ThreadingHTTPServer(("127.0.0.1", 0), handler)) as url:
        assert fonts.fetch([f"{url}/"], WANTED, TIMEOUT) == CONTENTS


def test_fetch_from_npm_packages(tmp_path):
    program("npm", "npm")
    packed = []
    for number, font in enumerate(WANTED):
        package = tmp_path / str(number)
        (package / "files").mkdir(parents=True)
        shutil.copy(FONTS / font.file, package / "files")
        content = {"name": f"hand-{number}", "version": "1.0.0"}
        (package / "package.json").write_text(json.dumps(content))
        packed.append(font.model_copy(update={"package": str(package)}))
    assert fonts.fetch(["npm"], packed, TIMEOUT) == CONTENTS


def test_next_mirror_delivers_only_the_missing_fonts(tmp_path, monkeypatch):
    first, last = WANTED
    shutil.copy(FONTS / first.file, tmp_path)
    read = []

    def from_file(file):
        read.append(file)
        return mirrors.from_file(file)

    monkeypatch.setattr(fonts, "from_file", from_file)
    assert fonts.fetch([str(tmp_path), str(FONTS)], WANTED, TIMEOUT) == CONTENTS
    assert read == [tmp_path / first.file, tmp_path / last.file, FONTS / last.file]


def test_error_lists_every_mirror_with_its_reason_and_a_remedy(tmp_path):
    first, _ = WANTED
    (tmp_path / first.file).write_bytes(b"<html>")
    sources = [str(tmp_path), "http://127.0.0.1:1", "/no/such/folder"]
    with pytest.raises(StageError) as error:
        fonts.fetch(sources, WANTED, TIMEOUT)
    advice, *reasons = str(error.value).splitlines()
    assert "data.fonts.mirrors" in advice
    digest = hashlib.sha256(b"<html>").hexdigest()
    assert reasons == [
        f"  {tmp_path}: {first.file} has SHA-256 {digest}, expected {first.sha256}",
        "  http://127.0.0.1:1: no connection ([Errno 111] Connection refused)",
        "  /no/such/folder: the folder does not exist",
    ]


@pytest.mark.parametrize("name", FILES)
def test_present_characters_are_those_that_the_font_has(name):
    font = fonts.opened(name, CONTENTS[name], 40)
    assert fonts.present(font, "AZ ?Жअ\N{NO-BREAK SPACE}") == "AZ?"


def test_file_that_is_not_a_font_is_reported():
    with pytest.raises(StageError, match=r"page\.woff is not a font that Pillow can read"):
        fonts.opened("page.woff", b"<html>", 40)
