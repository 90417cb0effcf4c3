"""`python -m stages.commands.workers`; what its workers do together is in test_distribute.py."""

import sys

import pytest


def test_the_workers_are_started_only_if_the_params_say_so(repository):
    said = repository.run(sys.executable, "-m", "stages.commands.workers", "2", status=1)
    assert (
        said == "stages.commands.workers: set train.strategy to multi_worker in params.yaml first\n"
    )


@pytest.mark.parametrize("count", ["0", "-1"])
def test_a_run_without_workers_is_refused(repository, count):
    said = repository.run(sys.executable, "-m", "stages.commands.workers", "--", count, status=1)
    assert said == f"stages.commands.workers: there have to be workers, not {count}\n"
