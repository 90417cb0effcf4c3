"""Tests of `python -m stages.commands.workers`. test_distribute.py tests the training itself."""

import sys

import pytest


def test_workers_need_the_strategy_multi_worker(repository):
    output = repository.run(sys.executable, "-m", "stages.commands.workers", "2", status=1)
    assert output == (
        "stages.commands.workers: set train.strategy to multi_worker in params.yaml first\n"
    )


@pytest.mark.parametrize("count", ["0", "-1"])
def test_number_of_workers_must_be_positive(repository, count):
    output = repository.run(sys.executable, "-m", "stages.commands.workers", "--", count, status=1)
    assert output == (
        f"stages.commands.workers: the number of workers must be at least 1, not {count}\n"
    )
