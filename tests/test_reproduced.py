import json
import subprocess

import pytest

from stages.common import paths
from tests import reproduced

FILES = {
    paths.MODEL_CARD: "Trained on: x86_64, AVX2 and FMA, CPU\n",
    paths.EVALUATION / "metrics.json": json.dumps(
        {"accuracy": 0.996, "errors": 40, "handwriting": {"semeion": {"accuracy": 0.98}}}
    ),
    paths.PICTURES / "metrics.json": json.dumps({"tuned": {"GIF": 0.98}}),
}


@pytest.fixture
def commit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file, content in FILES.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    user = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    for command in (["init", "--quiet"], ["add", "."], [*user, "commit", "--quiet", "-m", "A run"]):
        subprocess.run(["git", *command], check=True)


def test_an_unchanged_commit_passes(commit, capsys):
    reproduced.main()
    assert "changed no tracked file" in capsys.readouterr().out


def test_a_change_on_a_machine_of_the_same_class_fails(commit):
    (paths.PICTURES / "metrics.json").write_text("{}")
    with pytest.raises(SystemExit, match=r"changed data/pictures/metrics\.json, although"):
        reproduced.main()


@pytest.mark.parametrize(
    ("accuracy", "semeion", "gif", "failure"),
    [
        (0.9942, 0.96, 0.96, None),
        (0.9938, 0.98, 0.98, r"data/evaluation/metrics\.json: accuracy is 0\.9938"),
        (
            0.996,
            0.94,
            0.98,
            r"data/evaluation/metrics\.json: handwriting\.semeion\.accuracy is 0\.94",
        ),
        (0.996, 0.98, 0.94, r"data/pictures/metrics\.json: tuned\.GIF is 0\.94"),
    ],
)
def test_a_machine_of_another_class_has_close_metrics(
    commit, capsys, accuracy, semeion, gif, failure
):
    paths.MODEL_CARD.write_text("Trained on: aarch64, CPU\n")
    figures = {"accuracy": accuracy, "handwriting": {"semeion": {"accuracy": semeion}}}
    (paths.EVALUATION / "metrics.json").write_text(json.dumps(figures))
    (paths.PICTURES / "metrics.json").write_text(json.dumps({"tuned": {"GIF": gif}}))
    if failure:
        with pytest.raises(SystemExit, match=failure):
            reproduced.main()
    else:
        reproduced.main()
        output = capsys.readouterr().out
        assert "this machine (aarch64, CPU) is of another class" in output
        assert "close to the committed ones" in output
