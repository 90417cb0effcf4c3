import pytest

from tests.faults.kill import Kill, reproduce, strike


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
def test_the_run_after_a_kill_mends_everything(scratch, kill):
    """`python -m tests.faults.kill` does it fifty times, at random."""
    strike(scratch, kill, reproduce(scratch, kill.stage))
