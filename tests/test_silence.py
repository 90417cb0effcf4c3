import os

import pytest

from service.silence import silence


def test_nothing_reaches_standard_error_meanwhile_and_all_does_afterwards(capfd):
    with silence():
        os.write(2, b"noise")
    os.write(2, b"a word")
    assert capfd.readouterr().err == "a word"


def test_an_error_ends_the_silence_too(capfd):
    with pytest.raises(ValueError, match="no"), silence():
        raise ValueError("no")
    os.write(2, b"a word")
    assert capfd.readouterr().err == "a word"
