"""Training on many workers, in real processes over loopback, and going on after a kill."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import yaml

from stages.commands.workers import free_addresses
from stages.common import checkpoint, distribute
from stages.common.runner import StageError
from tests.conftest import ENVIRONMENT, make_repository

TIMEOUT = 120  # seconds; TensorFlow misses a worker after 10 at the latest

# Twenty steps of the project's own recipe, in double precision. A batch of 25 and its one picture
# of nothing divide neither by two nor by three.
SHORT = """
import sys
from pathlib import Path
import tensorflow as tf
import keras, numpy as np
from stages import distribute, idx, network, params
from stages.train import train

name, written = sys.argv[1:]
if name == "three devices":
    three = [tf.config.LogicalDeviceConfiguration()] * 3
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], three)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1", "CPU:2"])
else:
    strategy = distribute.choose(name)
keras.config.set_floatx("float64")
keras.utils.set_random_seed(1)
chosen = params.load()
split = [array[:500] for array in idx.load(Path("data/idx"), "training")]
with strategy.scope():
    model = network.build(chosen.network)
recipe = chosen.recipe.model_copy(update={"batch_size": 25})
average = train(model, split, split, recipe, 1, 1, lambda figures: None)
if distribute.is_chief(strategy):
    np.savez(written, *average.get_weights())
"""


def python(folder, *arguments, **environment):
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env={**ENVIRONMENT, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )


def tf_config(addresses, index):
    task = {"type": "worker", "index": index}
    return json.dumps({"cluster": {"worker": addresses}, "task": task})


def children(pid):
    """The commands of the children of a process, by their ids."""
    command = ["ps", "--ppid", str(pid), "-o", "pid=,args="]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return {int(pid): args for pid, args in (line.split(maxsplit=1) for line in said.splitlines())}


def wait_for(text, process):
    """Read what a process prints until `text` is in it."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return
    pytest.fail(f"{text!r} is not in: {''.join(lines)}")


@pytest.fixture(scope="module")
def weights(repository, tmp_path_factory):
    """The weights after `SHORT`, on one device, three devices of a process, and two workers."""
    folder = tmp_path_factory.mktemp("weights")
    addresses = free_addresses(2)
    runs = [
        python(repository.path, "-c", SHORT, "single", folder / "single"),
        python(repository.path, "-c", SHORT, "three devices", folder / "three devices"),
    ] + [
        python(
            repository.path, "-c", SHORT, "multi_worker", folder / "two workers",
            TF_CONFIG=tf_config(addresses, index),
        )
        for index in range(2)
    ]  # fmt: skip
    for run in runs:
        said, _ = run.communicate(timeout=TIMEOUT)
        assert run.returncode == 0, said
    written = {file.stem: np.load(file) for file in folder.iterdir()}
    return {name: [file[key] for key in file.files] for name, file in written.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["two workers", "three devices"])
def test_the_weights_do_not_depend_on_the_number_of_workers(weights, name):
    """In double precision, to within 1e-10 after 20 steps; measured: 2e-14.

    If each replica normalises by the statistics of its own rows it is 1.3, if each draws random
    numbers of its own 1.2. In single precision rounding itself grows as large, since an activation
    at 0, or a gradient of Adam at 0, goes one way or the other: after 40 steps of 200 images, two
    workers were 0.6 to 0.9 from one (three seeds), and so was one device whose batches had their
    rows in another order, 0.5 to 0.6.
    """
    differences = [
        np.abs(one - many).max() for one, many in zip(weights["single"], weights[name], strict=True)
    ]
    assert max(differences) < 1e-10


@pytest.fixture(scope="module")
def distributed(tmp_path_factory):
    """A repository in which the run is short, and on many workers."""
    made = make_repository(tmp_path_factory.mktemp("distributed"))
    made.edit_params(lambda params: params["train"].update(strategy="multi_worker", epochs=4))
    made.run("dvc", "repro", "download")
    return made


def recorded(repository):
    lock = yaml.safe_load((repository.path / "dvc.lock").read_text())
    outs = lock["stages"]["train"]["outs"]
    return {out["path"]: out["md5"] for out in outs}


@pytest.mark.slow
def test_a_worker_that_dies_ends_the_run_and_the_next_run_gives_the_same(distributed, tmp_path):
    undisturbed = distributed.clone(tmp_path / "undisturbed")
    said = undisturbed.run(sys.executable, "-m", "stages.commands.workers", "2")
    assert said.count("epoch 1/4: ") == 1

    run = python(distributed.path, "-m", "stages.commands.workers", "2")
    wait_for("epoch 1/4: ", run)
    started = children(run.pid)
    [worker] = [pid for pid, command in started.items() if command.endswith("-m stages train")]
    os.kill(worker, signal.SIGKILL)
    said, _ = run.communicate(timeout=TIMEOUT)
    assert run.returncode == 1
    assert "stages.train: worker 0 lost worker 1, which has ended or cannot be reached" in said
    assert "Traceback" not in said
    assert "E0000" not in said  # of TensorFlow's own log
    for pid in started:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    said = distributed.run(sys.executable, "-m", "stages.commands.workers", "2")
    assert said.count("resuming after epoch ") == 1
    assert recorded(distributed) == recorded(undisturbed)
    assert not (distributed.path / checkpoint.FILE).exists()


@pytest.mark.slow
def test_a_run_on_one_device_that_was_killed_goes_on_to_the_same_bytes(repository, scratch):
    run = python(scratch.path, "-m", "stages", "train")
    wait_for("epoch 1/3: ", run)
    wait_for("epoch 2/3: ", run)
    run.kill()
    run.communicate(timeout=TIMEOUT)
    for name in ("network", "training"):
        for file in (scratch.path / "data" / name).rglob("*.*"):
            file.unlink()
    said = scratch.run(sys.executable, "-m", "stages", "train")
    assert said.count("resuming after epoch ") == 1
    assert scratch.run("git", "status", "--porcelain") == ""
    for file in (repository.path / "data/network").iterdir():
        assert (scratch.path / "data/network" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.slow
def test_a_worker_with_other_params_than_the_chief_is_refused(distributed, tmp_path):
    other = distributed.clone(tmp_path / "other")
    other.edit_params(lambda params: params["train"].update(seed=2))
    addresses = free_addresses(2)
    runs = [
        python(folder, "-m", "stages", "train", TF_CONFIG=tf_config(addresses, index))
        for index, folder in enumerate([distributed.path, other.path])
    ]
    said = [run.communicate(timeout=TIMEOUT)[0] for run in runs]
    assert "this worker's params, data, code or libraries are not those of the chief" in said[1]
    assert "worker 0 lost worker 1" in said[0]
    assert [run.returncode for run in runs] == [1, 1]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (None, "TF_CONFIG is not in the environment"),
        ("{", "Invalid JSON"),
        ("{}", "cluster: Field required"),
        ('{"cluster": {"worker": ["a:1"]}}', "task: Field required"),
        ('{"cluster": {}, "task": {"type": "worker", "index": 0}}', "has no worker 0"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "chief", "index": 0}}', "no chief 0"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "no worker 1"),
        ('{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}', "worker.0: "),
        ('{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}', "cluster.ps: "),
    ],
)
def test_what_does_not_name_the_workers_is_said_in_one_sentence(monkeypatch, config, said):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(StageError, match=said) as error:
        distribute.choose("multi_worker")
    assert "\n" not in str(error.value)


def test_a_chief_is_the_first_of_all(monkeypatch):
    config = {"cluster": {"chief": ["a:1"], "worker": ["b:1"]}}
    ranks = [
        distribute.TfConfig.model_validate({**config, "task": {"type": type, "index": 0}}).rank
        for type in ("chief", "worker")
    ]
    assert ranks == [0, 1]


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="there is a GPU")
def test_mirrored_wants_a_gpu():
    with pytest.raises(StageError, match="finds no GPU; use single"):
        distribute.choose("mirrored")
