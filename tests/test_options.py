"""The options of the service: which values it refuses, and in which words."""

import pytest


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("--port=0", "argument --port: '0' is not a number from 1 to 65535"),
        ("--port=65536", "is not a number from 1 to 65535"),
        ("--port=http", "is not a number from 1 to 65535"),
        ("--workers=0", "is not a number from 1 to 1024"),
        ("--queue=-1", "is not a number from 1 to 65536"),
        ("--cors-origin=https://a.example/", "without a path"),
        *(
            (f"--cors-origin={origin}", "is not * or an origin")
            for origin in ("a.example", "https://A.example", "https://\u00fc.example")
        ),
        ("--cors-origin=https://a.example:443", "without the default port"),
        ("--cors-origin=http://a.example:80", "without the default port"),
        (f"--pin={'0' * 32}", "is not a SHA-256 of 64 hexadecimal digits"),
        (f"--pin={'0' * 64}", "--artifact and --pin need each other"),
        ("--tls-key=key.pem", "--tls-certificate and --tls-key need each other"),
    ],
)
def test_a_wrong_option_is_refused(options, capsys, argument, reason):
    with pytest.raises(SystemExit) as end:
        options(argument)
    assert end.value.code == 2
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize("value", ["-0.1", "1.1", "1e-2", "nan", "x"])
def test_a_bound_of_a_trial_is_a_decimal_number(options, capsys, value):
    with pytest.raises(SystemExit):
        options(f"--shadow-max-disagreement={value}")
    assert f"{value!r} is not a number from 0 to 1" in capsys.readouterr().err


def test_one_artifact_has_no_trial(options, capsys):
    with pytest.raises(SystemExit):
        options("--artifact=model", f"--pin={'0' * 64}", "--shadow=1")
    assert "--shadow tries the next artifact of a lock file" in capsys.readouterr().err


def test_one_artifact_cannot_be_watched(options, capsys):
    with pytest.raises(SystemExit):
        options("--artifact=model", f"--pin={'0' * 64}", "--watch")
    assert "--watch follows a lock file, but --pin names one artifact" in capsys.readouterr().err
