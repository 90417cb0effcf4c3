import pytest

from tests.faults.kill import Kill, kill_and_repair, reproduce


@pytest.mark.slow
@pytest.mark.parametrize(
    "kill",
    [
        Kill("download", "both", first=True, moment=0.7),
        Kill("png", "stage", first=False, moment=0.1),
        Kill("train", "dvc", first=True, moment=0.6),
    ],
    ids=lambda kill: f"{kill.stage}-{kill.victim}",
)
def test_run_after_a_kill_repairs_the_outputs(scratch, kill):
    """`python -m tests.faults.kill` repeats this fifty times at random moments."""
    kill_and_repair(scratch, kill, reproduce(scratch, kill.stage))
