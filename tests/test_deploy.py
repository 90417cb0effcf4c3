"""service/mnist.service: check its restrictions, and that the service works under them.

systemd does not run on the machine of the tests. Therefore systemd's tools check the unit, and the
tests apply the main restrictions to the service by other means.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from service.supervisor import STOP_TIMEOUT
from tests.conftest import PROJECT, program, running_server

UNIT = PROJECT / "service/mnist.service"
MAX_EXPOSURE = 10  # tenths; systemd rates a unit below 20 as safe

# All file systems are read-only except for an empty one at TMPDIR. /proc shows only the user's own
# processes. The user is nobody, who can gain no privileges. The only capability is to read any
# file, because the Python of the tests may be in root's home. DENY_WRITE_EXECUTE forbids memory
# that is both writable and executable.
SANDBOX = """
set -e
export TMPDIR=$1; shift
mount --make-rprivate /
findmnt --raw --noheadings --output TARGET | while read -r place; do
    mount -o remount,bind,ro "$place"
done
mount -t tmpfs -o mode=1777 tmpfs "$TMPDIR"
mount -t proc -o subset=pid,hidepid=invisible proc /proc
only=-all,+dac_read_search
exec setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs \
    --inh-caps=$only --ambient-caps=$only --bounding-set=$only "$@"
"""
DENY_WRITE_EXECUTE = """
import ctypes, os, sys
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1
if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0):
    sys.exit(os.strerror(ctypes.get_errno()))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
ESCAPES = """
import mmap, os, pathlib, tempfile
for path in "/", "/var/tmp", "/dev/shm", "/tmp", os.getcwd():
    try:
        tempfile.TemporaryFile(dir=path)
        print("can write to", path)
    except OSError:
        pass
try:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    print("can execute what it writes")
except OSError:
    pass
print(os.getuid(), tempfile.gettempdir(), *pathlib.Path("/proc").glob("cpuinfo"))
"""


@pytest.fixture(scope="module")
def systemd_analyze():
    analyze = program("systemd-analyze", "systemd")

    def run(*arguments):
        return subprocess.run([analyze, *arguments], capture_output=True, text=True, check=False)

    return run


def test_systemd_rates_the_exposure_as_low(systemd_analyze):
    done = systemd_analyze("security", "--offline=yes", f"--threshold={MAX_EXPOSURE}", UNIT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_systemd_reads_the_unit(systemd_analyze, tmp_path):
    # `verify` needs an executable that exists.
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/mnist/.venv/bin/python", sys.executable))
    done = systemd_analyze("verify", unit)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_systemd_waits_until_the_service_has_drained(options):
    unit = dict(re.findall(r"(?m)^(\w+)=(.*)$", UNIT.read_text()))
    python, module, name, *arguments = shlex.split(unit["ExecStart"])
    assert (Path(python).name, module, name) == ("python", "-m", "service")
    drain = options(*arguments).drain
    assert drain == 5
    assert unit["KillMode"] == "mixed"  # the workers themselves do not drain on SIGTERM
    assert int(unit["TimeoutStopSec"]) > drain + STOP_TIMEOUT


@pytest.fixture
def sandboxed(tmp_path, monkeypatch):
    """Let `running_server` start the service in a sandbox."""
    wrapper, writable = tmp_path / "python", tmp_path / "writable"
    writable.mkdir()
    wrapper.write_text(
        f"#!/bin/sh\nexec unshare --mount sh -c '{SANDBOX}' sh {writable} "
        f"{sys.executable} -c '{DENY_WRITE_EXECUTE}' \"$@\"\n"
    )
    wrapper.chmod(0o755)
    done = subprocess.run(
        [wrapper, "-c", ESCAPES], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"this machine allows no sandbox: {done.stderr.strip()}")
    assert done.stdout == f"65534 {writable}\n"
    monkeypatch.setattr(sys, "executable", str(wrapper))


def test_the_unit_lets_the_service_write_where_it_keeps_corrections(options):
    text = UNIT.read_text()
    [folder] = re.findall(r"(?m)^StateDirectory=(.*)$", text)
    [option] = re.findall(r"`(--feedback .*)`", text)
    unit = dict(re.findall(r"(?m)^(\w+)=(.*)$", text))
    _, _, _, *arguments = shlex.split(f"{unit['ExecStart']} {option}")
    parsed = options(*arguments)
    assert parsed.feedback.parent == Path("%S") / folder  # %S is /var/lib
    assert parsed.token_file


def test_the_service_writes_only_to_its_temporary_folder_and_that_of_the_corrections(
    sandboxed, repository, png_files, predictions, tmp_path
):
    inbox = tmp_path / "writable/inbox"
    with running_server(repository.path, "--workers=2", f"--feedback={inbox}") as server:
        for file, label in zip(png_files[:20], predictions, strict=False):
            answer = requests.post(
                f"{server.url}/recognize", files={"image": file.read_bytes()}, timeout=60
            )
            assert (answer.status_code, answer.json()["labels"]) == (200, [label])
        answer = requests.post(
            f"{server.url}/feedback",
            {"label": "7"},
            files={"image": ("0.png", png_files[0].read_bytes())},
            timeout=60,
        )
        assert answer.status_code == 200
        assert requests.get(f"{server.url}/metrics", timeout=60).status_code == 200
    assert server.process.returncode == 0
