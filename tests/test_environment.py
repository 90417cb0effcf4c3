"""Options of the service from environment variables."""

import pytest


def test_each_variable_sets_its_option(options, tmp_path):
    found = options(
        MNIST_PORT="9000", MNIST_WATCH="true", MNIST_LOG_FORMAT="json", MNIST_UDS=str(tmp_path)
    )
    assert (found.port, found.watch, found.log_format, found.uds) == (9000, True, "json", tmp_path)
    assert found.host == "127.0.0.1"


def test_the_command_line_wins(options):
    found = options("--port=9001", "--no-watch", MNIST_PORT="9000", MNIST_WATCH="1")
    assert (found.port, found.watch) == (9001, False)
    assert options(MNIST_WATCH="false").watch is False


def test_the_command_line_wins_over_the_variables_of_options_that_replace_its_own(options):
    variables = {"MNIST_UDS": "socket", "MNIST_ARTIFACT": "model", "MNIST_PIN": "0" * 64}
    found = options(**variables)
    assert (str(found.uds), str(found.artifact), found.pin) == ("socket", "model", "0" * 64)
    assert options("--port=9000", **variables).uds is None
    assert options("--host=0.0.0.0", **variables).uds is None
    found = options("--lock=dvc.lock", "--watch", **variables)
    assert (found.artifact, found.pin, str(found.uds)) == (None, None, "socket")
    # Without the command line, and the other way round, an option replaces the others.
    assert str(options("--uds=socket", MNIST_PORT="9000").uds) == "socket"


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("MNIST_PROT", "1", "there is no environment variable MNIST_PROT; did you mean MNIST_PORT"),
        ("MNIST_", "1", "there is no environment variable MNIST_; did you mean MNIST_"),
        ("MNIST_HELP", "1", "there is no environment variable MNIST_HELP; did you mean MNIST_"),
        ("MNIST_PORT", "", "MNIST_PORT is empty; remove it or give it a value"),
        ("MNIST_PORT", "0", "MNIST_PORT: '0' is not a number from 1 to 65535"),
        ("MNIST_PORT", "tcp://10.0.0.1:80", "MNIST_PORT: 'tcp://10.0.0.1:80' is not a number"),
        ("MNIST_ENGINE", "torch", "MNIST_ENGINE: invalid choice: 'torch'"),
        ("MNIST_WATCH", "yes", "MNIST_WATCH is 'yes'; it must be true or false"),
    ],
)
def test_a_wrong_variable_is_refused(options, capsys, name, value, reason):
    with pytest.raises(SystemExit) as end:
        options(**{name: value})
    assert end.value.code == 2
    assert reason in capsys.readouterr().err


def test_the_help_names_each_variable(options, capsys):
    with pytest.raises(SystemExit):
        options("--help", MNIST_PORT="wrong")
    shown = " ".join(capsys.readouterr().out.split())
    assert "port to listen on (default: 8080) [MNIST_PORT]" in shown
    assert "[MNIST_ALLOW_MD5_ONLY]" in shown
    assert "MNIST_HELP" not in shown
