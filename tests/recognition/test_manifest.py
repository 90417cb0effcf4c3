import pytest

from service.recognition import manifest

ZEROS, ONES = "0" * 64, "1" * 64
FILES = {"saved_model.pb": ZEROS, "a b/ü.txt": ONES, "a.b": ONES}
CONTENT = (
    f"{ONES}  data/model/a b/ü.txt\n{ONES}  data/model/a.b\n{ZEROS}  data/model/saved_model.pb\n"
)


def test_render_sorts_the_files_by_path():
    assert manifest.render(FILES, "data/model").decode() == CONTENT


def test_parse_returns_what_render_wrote():
    assert manifest.parse(CONTENT.encode(), "data/model") == FILES


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"text\n",
        f"{ZEROS}  data/model/a".encode(),  # the last line does not end
        f"{ZEROS}  data/model/a\n\n".encode(),
        f"{ZEROS}  data/model/a\r\n".encode(),
        f"{ZEROS} data/model/a\n".encode(),
        f"{ZEROS} *data/model/a\n".encode(),
        f"{ZEROS}  \n".encode(),
        f"{ZEROS[1:]}  data/model/a\n".encode(),
        f"{'A' * 64}  data/model/a\n".encode(),
        f"\\{ZEROS}  data/model/a\\\\\n".encode(),
        f"{ZEROS}  data/model/".encode() + b"\xff\n",
        f"{ZEROS}  data/model\n".encode(),
        f"{ZEROS}  data/model//a\n".encode(),
        f"{ZEROS}  data/model/./a\n".encode(),
        f"{ZEROS}  data/model/a\n{ZEROS}  data/model/a\n".encode(),
        f"{ZEROS}  data/model/a\n{ONES}  data/model/a\n".encode(),
        f"{ZEROS}  data/model/b\n{ZEROS}  data/model/a\n".encode(),
    ],
)
def test_parse_rejects_any_other_format(content):
    with pytest.raises(ValueError, match=r"^is not a sorted list in the format of `sha256sum`$"):
        manifest.parse(content, "data/model")


@pytest.mark.parametrize(
    "path", ["a", "data/a", "data/models/a", "/data/model/a", "data/model/../a", "../data/model/a"]
)
def test_parse_rejects_a_path_outside_the_folder(path):
    with pytest.raises(ValueError, match=f"^lists {path}, which is outside data/model$"):
        manifest.parse(f"{ZEROS}  {path}\n".encode(), "data/model")
