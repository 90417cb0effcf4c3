import subprocess
import sys

import pytest

from service.__main__ import STOP_TIMEOUT
from tests.conftest import ENVIRONMENT, PROJECT, free_port

SLOW_START = """
import time
from service import __main__, server

def wait(self, loop, init=server.Server.__rsgi_init__):
    init(self, loop)
    print("Not running yet", flush=True)
    time.sleep(2)

server.Server.__rsgi_init__ = wait
__main__.main()
"""


@pytest.mark.server
def test_a_worker_told_to_end_just_before_it_can_listen_ends_once_it_does(artifact):
    with subprocess.Popen(
        [
            *(sys.executable, "-c", SLOW_START, f"--port={free_port()}", "--workers=1"),
            f"--lock={artifact.path / 'dvc.lock'}",
        ],
        cwd=PROJECT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Serving data/model ")
        assert process.stdout.readline() == "Not running yet\n"
        process.terminate()
        # In time, so nobody had to be killed.
        assert process.wait(timeout=STOP_TIMEOUT - 5) == 0
