"""The wheel of the project has all that the service needs."""

import shutil
import subprocess

import pytest
import requests

from tests.conftest import ENVIRONMENT, PROJECT, running_server


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder in which the wheel is installed, without the packages that it requires."""
    path = tmp_path_factory.mktemp("wheel")
    source = path / "source"
    for folder in ("service", "stages"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT / folder, source / folder, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, source)
    build = ["uv", "build", "--wheel", "--no-build-isolation", f"--out-dir={path}", str(source)]
    subprocess.run(build, env=ENVIRONMENT, check=True)
    (wheel,) = path.glob("*.whl")
    install = ["uv", "pip", "install", "--no-deps", f"--target={path / 'site'}", str(wheel)]
    subprocess.run(install, env=ENVIRONMENT, check=True)
    return path / "site"


@pytest.mark.server
def test_the_service_starts_from_an_installed_wheel(installed, artifact, png_files, monkeypatch):
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", str(installed))
    assert not (artifact.path / "service").exists()  # which would come before the wheel
    with running_server(artifact.path, "--workers=1") as server:
        pages = ["/", "/openapi.json", "/docs/", "/docs/swagger-ui.css", "/model/"]
        assets = ["page.js", "languages/en.js", "docs.js", "model.css", "samples/7-0.png"]
        for page in [*pages, *(f"/static/{name}" for name in assets)]:
            assert requests.get(f"{server.url}{page}", timeout=60).ok, page
        files = {"image": png_files[0].read_bytes()}
        answer = requests.post(f"{server.url}/recognize", files=files, timeout=60)
        assert len(answer.json()["labels"]) == 1


def test_the_wheel_has_every_package(installed):
    packages = {
        file.parent.relative_to(PROJECT)
        for folder in ("service", "stages")
        for file in (PROJECT / folder).rglob("__init__.py")
    }
    assert len(packages) == 8
    assert (installed / "stages/commands/review/static/review.html").exists()
    assert [
        folder for folder in packages if not (installed / folder / "__init__.py").exists()
    ] == []
