"""The workflows in .github: their steps run only commands that work on any machine."""

import re
import shlex

import pytest
import yaml

from tests.conftest import PROJECT

WORKFLOWS = sorted((PROJECT / ".github/workflows").glob("*.yml"))
[TARGETS] = re.findall(r"(?m)^\.PHONY: (.*)", (PROJECT / "Makefile").read_text())
OTHER_COMMANDS = {
    (".ci/run",),
    ("git", "config", "--global", "--add", "safe.directory", "$GITHUB_WORKSPACE"),
}
# env -u NAME ... make TARGET NAME=VALUE ... >> FILE
MAKE = re.compile(r"(?:env(?: -u \w+)+ )?make ([a-z-]+)(?: [A-Z_]+=\S+)*(?: >> \S+)?")


def steps(workflow):
    jobs = yaml.safe_load(workflow.read_text())["jobs"].values()
    return [step for job in jobs for step in job["steps"]]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.stem)
def test_a_step_runs_only_what_runs_on_any_machine(workflow):
    lines = [line for step in steps(workflow) for line in step.get("run", "").splitlines()]
    commands = [tuple(shlex.split(line)) for line in lines]
    assert commands
    for command in commands:
        made = MAKE.fullmatch(" ".join(command))
        assert command in OTHER_COMMANDS or (made and made[1] in TARGETS.split()), command


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.stem)
def test_only_official_actions_of_a_major_version_are_used(workflow):
    for action in (step["uses"] for step in steps(workflow) if "uses" in step):
        assert re.fullmatch(r"actions/[a-z-]+@v\d+", action)
