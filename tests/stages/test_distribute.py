"""Tests of training on several workers over loopback, and of resuming after a kill."""

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
from tests.conftest import ENVIRONMENT

TIMEOUT = 300  # seconds; TensorFlow reports a lost worker after at most 10 s

# This script runs twenty steps of the default recipe, in double precision. Neither 2 nor 3 replicas
# divide the batch of 25 images and 1 background image evenly.
SHORT_TRAINING = """
import sys
from pathlib import Path
import tensorflow as tf
import keras, numpy as np
from stages.common import distribute, idx, network, params
from stages.train import train

name, file = sys.argv[1:]
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
    np.savez(file, *average.get_weights())
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
    """Return the command of each child of a process, by its process id."""
    command = ["ps", "--ppid", str(pid), "-o", "pid=,args="]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    rows = (line.split(maxsplit=1) for line in output.splitlines())
    return {int(pid): args for pid, args in rows}


def wait_for(text, process):
    """Read the output of a process up to the line that contains `text`."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return
    pytest.fail(f"the output does not contain {text!r}: {''.join(lines)}")


@pytest.fixture(scope="module")
def weights(repository, tmp_path_factory):
    """Return the weights after `SHORT_TRAINING` on one device, three devices and two workers."""
    folder = tmp_path_factory.mktemp("weights")
    addresses = free_addresses(2)
    runs = [
        python(repository.path, "-c", SHORT_TRAINING, "single", folder / "single"),
        python(repository.path, "-c", SHORT_TRAINING, "three devices", folder / "three devices"),
    ] + [
        python(
            repository.path, "-c", SHORT_TRAINING, "multi_worker", folder / "two workers",
            TF_CONFIG=tf_config(addresses, index),
        )
        for index in range(2)
    ]  # fmt: skip
    for run in runs:
        output, _ = run.communicate(timeout=TIMEOUT)
        assert run.returncode == 0, output
    archives = {file.stem: np.load(file) for file in folder.iterdir()}
    return {name: [file[key] for key in file.files] for name, file in archives.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["two workers", "three devices"])
def test_the_weights_do_not_depend_on_the_number_of_workers(weights, name):
    """The weights after 20 steps in double precision differ by less than 1e-10; measured: 2e-14.

    The difference is 1.3 if each replica normalizes by the statistics of its own rows, and 1.2 if
    each draws its own random numbers. In single precision, rounding errors alone grow as large,
    because they change the sign of activations and of gradients near 0. After 40 steps of 200
    images, two workers differed from one by 0.6 to 0.9 (three seeds). One device whose batches had
    their rows in another order differed by 0.5 to 0.6.
    """
    differences = [
        np.abs(one - many).max() for one, many in zip(weights["single"], weights[name], strict=True)
    ]
    assert max(differences) < 1e-10


@pytest.fixture(scope="module")
def distributed(repository, tmp_path_factory):
    """Return a repository whose training is short and runs on several workers."""
    copy = repository.clone(tmp_path_factory.mktemp("distributed") / "repository")
    copy.edit_params(lambda params: params["train"].update(strategy="multi_worker", epochs=4))
    copy.edit_params(lambda params: params["network"]["cnn"].update(filters=[4, 4, 4, 4]))
    copy.edit_params(lambda params: params["train"]["cnn"].update(batch_size=200))
    return copy


def recorded(repository):
    lock = yaml.safe_load((repository.path / "dvc.lock").read_text())
    outs = lock["stages"]["train"]["outs"]
    return {out["path"]: out["md5"] for out in outs}


@pytest.mark.slow
def test_killed_worker_ends_the_run_and_the_next_run_resumes_to_the_same_result(
    distributed, tmp_path
):
    undisturbed = distributed.clone(tmp_path / "undisturbed")
    output = undisturbed.run(sys.executable, "-m", "stages.commands.workers", "2")
    assert output.count("epoch 1/4: ") == 1

    run = python(distributed.path, "-m", "stages.commands.workers", "2")
    wait_for("epoch 1/4: ", run)
    started = children(run.pid)
    [worker] = [pid for pid, command in started.items() if command.endswith("-m stages train")]
    os.kill(worker, signal.SIGKILL)
    output, _ = run.communicate(timeout=TIMEOUT)
    assert run.returncode == 1
    assert "stages.train: worker 0 lost worker 1, which has ended or is unreachable" in output
    assert "Traceback" not in output
    assert "E0000" not in output  # the prefix of errors in TensorFlow's own log
    for pid in started:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    output = distributed.run(sys.executable, "-m", "stages.commands.workers", "2")
    assert output.count("resuming after epoch ") == 1
    assert recorded(distributed) == recorded(undisturbed)
    assert not (distributed.path / checkpoint.FILE).exists()


@pytest.mark.slow
def test_killed_run_on_one_device_resumes_to_the_same_bytes(repository, scratch):
    run = python(scratch.path, "-m", "stages", "train")
    wait_for("epoch 1/3: ", run)
    wait_for("epoch 2/3: ", run)
    run.kill()
    run.communicate(timeout=TIMEOUT)
    for name in ("network", "training"):
        for file in (scratch.path / "data" / name).rglob("*.*"):
            file.unlink()
    output = scratch.run(sys.executable, "-m", "stages", "train")
    assert output.count("resuming after epoch ") == 1
    assert scratch.run("git", "status", "--porcelain") == ""
    for file in (repository.path / "data/network").iterdir():
        assert (scratch.path / "data/network" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.slow
def test_worker_whose_params_differ_from_the_chief_is_rejected(distributed, tmp_path):
    other = distributed.clone(tmp_path / "other")
    other.edit_params(lambda params: params["train"].update(seed=2))
    addresses = free_addresses(2)
    runs = [
        python(folder, "-m", "stages", "train", TF_CONFIG=tf_config(addresses, index))
        for index, folder in enumerate([distributed.path, other.path])
    ]
    outputs = [run.communicate(timeout=TIMEOUT)[0] for run in runs]
    assert "this worker's params, data, code or libraries differ from the chief's" in outputs[1]
    assert "worker 0 lost worker 1" in outputs[0]
    assert [run.returncode for run in runs] == [1, 1]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (None, "the environment has no TF_CONFIG"),
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
def test_invalid_tf_config_is_reported_in_one_sentence(monkeypatch, config, reason):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(StageError, match=reason) as error:
        distribute.choose("multi_worker")
    assert "\n" not in str(error.value)


def test_chief_has_rank_0(monkeypatch):
    config = {"cluster": {"chief": ["a:1"], "worker": ["b:1"]}}
    ranks = [
        distribute.TfConfig.model_validate({**config, "task": {"type": kind, "index": 0}}).rank
        for kind in ("chief", "worker")
    ]
    assert ranks == [0, 1]


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="this host has a GPU")
def test_mirrored_needs_a_gpu():
    with pytest.raises(StageError, match="finds no GPU; use single"):
        distribute.choose("mirrored")
