"""`python -m stages.commands.review`, as a person starts and ends it."""

import re
import signal
import socket
import subprocess
import sys

import pytest
import requests

from stages.commands.review import __main__
from stages.common.runner import StageError
from tests.conftest import ENVIRONMENT, PROJECT, output_of
from tests.stages.review.conftest import LABELS, numbers_of, png, send

COMMAND = [sys.executable, "-m", "stages.commands.review"]
# With `true` as the browser, no page opens.
ENV = {**ENVIRONMENT, "PYTHONPATH": str(PROJECT), "BROWSER": "true"}


@pytest.mark.server
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_a_review_and_remove_takes_a_picture_out(project, inbox, number):
    """Also in the background of a shell, where programs ignore Ctrl+C by default."""
    digits = [*numbers_of("training", 2), *numbers_of("testing", 1)]
    hashes = [send(inbox, png(digit), int(LABELS[digit])) for digit in digits]
    (inbox / "more").mkdir()
    ignoring = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"]
    command = [*ignoring, *COMMAND, str(inbox), "--port=0"]
    with subprocess.Popen(
        command, cwd=project, env=ENV, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout
        skipped = process.stdout.readline()
        assert skipped == "skipped: 'more' is not a folder of a label from 0 to 9\n"
        [url] = re.findall(r"3 corrections wait on (\S+)/ ", process.stdout.readline())
        body, headers = {"hashes": hashes}, {"Origin": url}
        answer = requests.post(f"{url}/accept", json=body, headers=headers, timeout=60)
        assert answer.json()["waiting"] == 0
        process.send_signal(number)
        output = process.stdout.read()
        assert process.wait() == 0
    assert "3 pictures are accepted: 2 for training, 1 held back" in output
    removed = output_of(*COMMAND, "--remove", hashes[0], cwd=project, env=ENV)
    assert "2 pictures are accepted: 1 for training" in removed


@pytest.mark.parametrize("port", [70_000, None])
def test_a_port_that_cannot_be_used_is_one_sentence(project, inbox, monkeypatch, port):
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = port or server.getsockname()[1]
        monkeypatch.setattr(sys, "argv", ["review", str(inbox), f"--port={taken}"])
        with pytest.raises(StageError, match=f"port {taken} cannot be used: .*; choose another"):
            __main__.main()


def test_an_error_is_one_sentence(project):
    output = output_of(*COMMAND, "missing", cwd=project, env=ENV, status=1)
    assert output.startswith("stages.commands.review: missing is not a folder; name the one")
    assert output.count("\n") == 1
