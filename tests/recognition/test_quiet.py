import os

import pytest

from service.recognition import quiet


def test_standard_error_is_shown_only_if_an_exception_is_raised(capfd):
    with quiet.hidden_standard_error():
        os.write(2, b"hidden\n")

    def fail():
        with quiet.hidden_standard_error():
            os.write(2, b"the reason\n")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    os.write(2, b"later\n")
    assert capfd.readouterr().err == "the reason\nlater\n"


def test_call_hides_the_import_and_shows_the_call(tmp_path, monkeypatch, capfd):
    (tmp_path / "noisy.py").write_text(
        "import os\nos.write(2, b'import\\n')\n"
        "def add(a, b):\n    os.write(2, b'call\\n')\n    return a + b\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert quiet.call("noisy", "add", 1, 2) == 3
    assert capfd.readouterr().err == "call\n"
