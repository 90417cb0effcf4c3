import subprocess
import sys

from tests.conftest import ENVIRONMENT, PROJECT


def test_tensorflow_starts_without_a_word():
    done = subprocess.run(
        [sys.executable, "-c", "from service.quiet import tf; print(tf.constant(1).numpy())"],
        cwd=PROJECT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("1\n", "")
