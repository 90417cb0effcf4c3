"""Tests that load the model from checkouts, clones and repositories with a DVC remote."""

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image, ImageOps

import service
from service.recognition.images import ImageError, NoInkError
from service.recognition.pin import PinError
from tests.conftest import (
    ENVIRONMENT,
    PROJECT,
    Repository,
    in_process,
    pinned_version,
    write_manifest,
)

MODEL = "data/model"
MANIFEST = "data/model.sha256"
TAG = "mnist@v1.0.0"
BLANK = bytes.fromhex(
    "47494638376101000100800000ffffff0000002c000000000100010000020144003b"
)  # a GIF file with one white pixel


@pytest.fixture(scope="session")
def releases(artifact, tmp_path_factory):
    """A folder with a DVC repository, a remote with two artifacts, and the first one's pin."""
    folder = tmp_path_factory.mktemp("releases")
    new = Repository(folder / "pushed")
    shutil.copytree(artifact.path / MODEL, new.path / MODEL)
    write_manifest(new.path)
    outputs = [{MODEL: {"persist": True}}, {MANIFEST: {"cache": False, "persist": True}}]
    stage = {"cmd": "true", "outs": outputs}
    (new.path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"export": stage}}))
    new.run("git", "init", "--quiet", "--initial-branch=main")
    new.run("dvc", "init", "--quiet")
    new.run("dvc", "remote", "add", "--default", "storage", str(folder / "storage"))
    new.run("dvc", "commit", "--force")
    new.run("dvc", "push")
    shutil.copy(new.path / "dvc.lock", folder / "first.lock")
    shutil.copy(new.path / MANIFEST, folder / "first.sha256")
    (new.path / MODEL / "notes.txt").write_text("The second artifact has one more file.")
    write_manifest(new.path)
    new.run("dvc", "commit", "--force")
    new.run("dvc", "push")
    return folder


@pytest.fixture
def pushed(releases, tmp_path):
    """A repository that pins the first artifact at TAG, and the second on `main`."""
    shutil.copytree(releases, tmp_path, dirs_exist_ok=True)
    new = Repository(tmp_path / "pushed")
    config, lock, manifest = (new.path / name for name in (".dvc/config", "dvc.lock", MANIFEST))
    config.write_text(config.read_text().replace(str(releases), str(tmp_path)))
    second = lock.read_text(), manifest.read_text()
    shutil.copy(tmp_path / "first.lock", lock)
    shutil.copy(tmp_path / "first.sha256", manifest)
    commit(new, "The first artifact")
    new.run("git", "tag", TAG)
    lock.write_text(second[0])
    manifest.write_text(second[1])
    commit(new, "The second artifact")
    return new


def commit(repository: Repository, message: str) -> None:
    repository.run("git", "add", "--all")
    repository.run("git", "commit", "--quiet", f"--message={message}")


def url(repository: Repository) -> str:
    """Return a URL, which DVC and git treat like one of another machine."""
    return f"file://{repository.path}"


def forget(repository: Repository) -> None:
    """Remove the artifact and DVC's cache from a checkout."""
    shutil.rmtree(repository.path / MODEL)
    shutil.rmtree(repository.path / ".dvc/cache")


def clone(repository: Repository, name: str) -> Path:
    """Clone a repository into a folder beside it, and return the folder."""
    path = repository.path.parent / name
    repository.run("git", "clone", "--quiet", url(repository), str(path))
    return path


def refusal(source: str | Path, rev: str | None = None) -> str:
    """Load a model, which must fail, and return the sentence."""
    with pytest.raises(PinError) as error:
        service.load(source, rev)
    sentence = str(error.value)
    assert "\n" not in sentence
    assert "/mnist-model-" not in sentence  # a temporary folder
    return sentence


def assert_answers_like_the_service(artifact, files, labels, probabilities):
    """Compare the results for picture files with those of `POST /recognize`."""
    forms = [("image", (file.name, file.read_bytes())) for file in files]
    parameters = {"probabilities": "true"}
    answer = in_process(artifact).post("/recognize", files=forms, params=parameters).json()
    served = [result["probabilities"][0] for result in answer["results"]]
    assert labels.tolist() == [result["labels"][0] for result in answer["results"]]
    np.testing.assert_array_equal(probabilities, np.array(served, np.float32))


def test_model_of_a_checkout_answers_as_the_service_does(artifact, testing, png_files):
    model = service.load(artifact.path)
    assert model.version == artifact.version
    labels, probabilities = model.recognize_files(png_files)
    assert labels.dtype == np.int64
    assert probabilities.dtype == np.float32
    np.testing.assert_array_equal(labels, artifact.predictions)

    assert_answers_like_the_service(artifact, png_files, labels, probabilities)

    images = np.asfortranarray(testing[0])
    np.testing.assert_array_equal(model.recognize(images)[1], probabilities)


def test_pictures_of_any_form_are_decoded_as_the_service_decodes_them(artifact, tmp_path):
    sample = Image.open(PROJECT / "service/api/static/samples/4-4.png")
    large = ImageOps.invert(sample).resize((300, 300)).convert("RGB")
    files = [tmp_path / name for name in ("digit.jpg", "digit.webp", "digit.bmp", "digit.gif")]
    for file in files:
        large.save(file)
    labels, probabilities = service.load(artifact.path).recognize_files(map(str, files))
    assert_answers_like_the_service(artifact, files, labels, probabilities)


@pytest.mark.parametrize("engine", ["litert", "tensorflow"])
def test_each_engine_recognizes_any_number_of_images(artifact, testing, engine):
    model = service.load(artifact.path, engine=engine)
    np.testing.assert_array_equal(model.recognize(testing[0])[0], artifact.predictions)
    labels, probabilities = model.recognize_files([])
    assert labels.shape == (0,)
    assert labels.dtype == np.int64
    assert probabilities.shape == (0, 10)
    assert probabilities.dtype == np.float32


@pytest.mark.parametrize(
    ("content", "kind", "reason"),
    [
        (b"text", ImageError, "The file is not a picture"),
        (b"", ImageError, "The picture is empty"),
        (BLANK, NoInkError, "No digit was found"),
    ],
)
def test_an_error_names_the_picture_file(artifact, png_files, tmp_path, content, kind, reason):
    wrong = tmp_path / "wrong.png"
    wrong.write_bytes(content)
    with pytest.raises(kind, match=f"^{re.escape(str(wrong))}: {reason}"):
        service.load(artifact.path).recognize_files([png_files[0], wrong])


def test_an_error_names_a_missing_file(artifact, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.png"):
        service.load(artifact.path).recognize_files([tmp_path / "missing.png"])


@pytest.mark.parametrize(
    "images",
    [np.zeros((28, 28), np.uint8), np.zeros((1, 28, 28)), np.zeros((1, 28, 29), np.uint8)],
)
def test_recognize_rejects_other_arrays(artifact, images):
    with pytest.raises(ValueError, match=r"must be uint8 \(N, 28, 28\)"):
        service.load(artifact.path).recognize(images)


LOCAL = """
import sys

for name in ("dvc", "flask", "tensorflow"):
    sys.modules[name] = None  # `import` raises ModuleNotFoundError
import service

print(service.load().version)
"""


def test_a_checkout_with_its_artifact_needs_neither_dvc_nor_git(artifact):
    environment = ENVIRONMENT | {"PATH": "", "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-c", LOCAL]
    output = subprocess.run(
        command, cwd=artifact.path, env=environment, check=True, capture_output=True, text=True
    )
    assert output.stdout.strip() == artifact.version


def test_a_damaged_checkout_is_refused(artifact, tmp_path):
    shutil.copytree(artifact.path, tmp_path / "checkout")
    with (tmp_path / "checkout/data/model/saved_model.pb").open("ab") as file:
        file.write(b"x")
    assert "data/model is not the pinned artifact" in refusal(tmp_path / "checkout")


def test_without_dvc_the_error_says_what_to_install(pushed, monkeypatch):
    forget(pushed)
    monkeypatch.setitem(sys.modules, "dvc.api", None)
    assert "`pip install 'dvc[ssh]'`" in refusal(pushed.path)


def test_without_git_the_error_names_it(pushed, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert "No such file or directory: 'git'" in refusal(url(pushed))


@pytest.mark.parametrize("where", ["url", "checkout", "empty checkout", "bare"])
def test_a_revision_has_its_own_artifact(pushed, artifact, testing, tmp_path, monkeypatch, where):
    source = url(pushed) if where == "url" else pushed.path
    if where == "empty checkout":
        forget(pushed)
    if where == "bare":
        source = tmp_path / "bare.git"
        pushed.run("git", "clone", "--quiet", "--bare", ".", str(source))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.chdir("/")
    first, second = service.load(source, TAG), service.load(source)
    assert first.version == artifact.version
    assert second.version == pinned_version(pushed.path) != first.version
    assert list(temporary.iterdir()) == []
    np.testing.assert_array_equal(first.recognize(testing[0])[0], artifact.predictions)


def test_commits_and_branches_are_revisions(pushed, artifact):
    full = pushed.run("git", "rev-parse", TAG).strip()
    pushed.run("git", "branch", "older", TAG)
    for rev in (full, full[:10], "older", "main~1"):
        assert service.load(url(pushed), rev).version == artifact.version
        assert service.load(pushed.path, rev).version == artifact.version


def test_the_manifest_is_fetched_and_verified_with_the_artifact(pushed):
    manifest = pushed.path / MANIFEST
    expected = hashlib.sha256(manifest.read_bytes()).hexdigest()
    assert service.load(url(pushed)).sha256 == expected
    manifest.write_text(manifest.read_text().replace("0", "1"))
    commit(pushed, "Another manifest")
    with pytest.raises(PinError, match="is not the pinned manifest"):
        service.load(url(pushed))


def test_a_revision_without_a_manifest_needs_a_permission(pushed):
    lock = pushed.path / "dvc.lock"
    content = yaml.safe_load(lock.read_text())
    outputs = content["stages"]["export"]["outs"]
    content["stages"]["export"]["outs"] = [out for out in outputs if out["path"] == MODEL]
    lock.write_text(yaml.safe_dump(content))
    commit(pushed, "No manifest")
    with pytest.raises(PinError, match="MD5 only"):
        service.load(url(pushed))
    assert service.load(url(pushed), allow_md5_only=True).sha256 == ""


def test_the_example_in_the_documentation_runs(pushed, artifact, png_files, tmp_path):
    document = (PROJECT / "service/README.md").read_text()
    [example] = re.findall(r"```python\n(from service import load\n.*?)```", document, re.S)
    assert "https://host/mnist.git" in example
    shutil.copy(png_files[0], tmp_path / "digit.png")
    program = example.replace("https://host/mnist.git", url(pushed))
    environment = ENVIRONMENT | {"PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [artifact.version, str(artifact.predictions[0])]


def test_loading_does_not_change_a_checkout(pushed):
    other = clone(pushed, "other")
    service.load(other)
    assert not (other / MODEL).exists()
    status = ["git", "status", "--porcelain"]
    assert subprocess.run(status, cwd=other, check=True, capture_output=True).stdout == b""


@pytest.mark.parametrize("where", ["url", "checkout"])
def test_a_damaged_object_in_the_remote_is_refused(pushed, artifact, tmp_path, where):
    content = (artifact.path / MODEL / "saved_model.pb").read_bytes()
    [stored] = [
        file
        for file in (tmp_path / "storage").rglob("*")
        if file.is_file() and file.read_bytes() == content
    ]
    stored.chmod(0o644)
    stored.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    source = url(pushed) if where == "url" else clone(pushed, "other")
    sentence = refusal(source, TAG)
    assert sentence.startswith(f"{source} at {TAG}: data/model is not the pinned artifact: ")
    assert f"expected {artifact.version}, found " in sentence


def test_a_remote_without_the_artifact_is_an_error(pushed, artifact, tmp_path):
    shutil.rmtree(tmp_path / "storage")
    expected = f"DVC cannot fetch data/model {artifact.version} of {url(pushed)} at {TAG}"
    assert expected in refusal(url(pushed), TAG)
    assert "run `dvc push data/model`" in refusal(url(pushed))


def test_a_repository_without_a_remote_is_an_error(pushed):
    pushed.run("dvc", "remote", "remove", "storage")
    commit(pushed, "No remote")
    assert "run `dvc push data/model`" in refusal(url(pushed))


def test_unknown_revisions_are_errors(pushed):
    assert f"{url(pushed)} has no revision v9" in refusal(url(pushed), "v9")
    expected = f"dvc.lock of {pushed.path} at v9 cannot be read (unknown Git revision 'v9')"
    assert expected in refusal(pushed.path, "v9")


def test_a_repository_that_pins_no_artifact_is_an_error(pushed):
    (pushed.path / "dvc.lock").unlink()
    commit(pushed, "No lock")
    assert f"dvc.lock of {url(pushed)} cannot be read" in refusal(url(pushed))
    (pushed.path / "dvc.lock").write_text("schema: '2.0'\nstages: {}")
    commit(pushed, "An empty lock")
    assert f"{url(pushed)}: dvc.lock has no entry for data/model" in refusal(url(pushed))


@pytest.mark.parametrize("source", ["/no/such", "http://127.0.0.1:1/repository.git"])
def test_a_repository_that_cannot_be_reached_is_an_error(source):
    assert f"{source} cannot be cloned" in refusal(source)
