"""Compare a new network with that of the last commit, so that `export` can reject a worse one."""

import json
import subprocess
from math import comb
from typing import Any

import yaml

from stages.common import paths
from stages.common.params import Params

METRICS = paths.EVALUATION / "metrics.json"  # written by `evaluate`

Metrics = dict[str, Any]


def refusal(chosen: Params, now: Metrics) -> str | None:
    """Say why a network must not replace that of the last commit.

    Args:
        chosen: The parameters. Networks of different kinds or data sets are not compared.
        now: The metrics of the network, as `evaluate` writes them.

    Returns:
        A sentence with the figures, or None if the network may replace the other one.
    """
    before = _committed(chosen)
    if before is None:
        return None
    limits = chosen.export
    # Without rounding, 0.9956 - 0.9946 would exceed 0.001.
    if round(before["accuracy"] - now["accuracy"], 9) > limits.max_loss:
        return (
            f"the test accuracy of {now['accuracy']} is more than export.max_loss "
            f"({limits.max_loss}) below the {before['accuracy']} of the last commit"
        )
    for name, figures in now["handwriting"].items():
        figures_before = before.get("handwriting", {}).get(name, {})
        if "digits" not in figures_before:  # another source, or an older format
            continue
        errors, count = _errors(figures)
        errors_before, count_before = _errors(figures_before)
        chance = probability(errors, count, errors_before, count_before)
        if chance < limits.significance:
            return (
                f"the network makes {errors} errors in {count:,} held-back digits of {name}, but "
                f"that of the last commit makes {errors_before} in {count_before:,}; the "
                f"probability of such a difference by chance is {chance:.2g}, below "
                f"export.significance ({limits.significance})"
            )
    return None


def probability(errors: int, count: int, errors_before: int, count_before: int) -> float:
    """Return the probability of so many errors or more if both networks are equally good.

    It is the one-sided p-value of Fisher's exact test (R. A. Fisher, Statistical Methods for
    Research Workers, 5th edition, 1934). The networks see the same digits, which the test does not
    use, so the true probability is lower.

    Args:
        errors: The number of errors of the new network.
        count: The number of digits that the new network saw.
        errors_before: The number of errors of the other network.
        count_before: The number of digits that the other network saw.
    """
    total, all_errors = count + count_before, errors + errors_before
    ways = sum(
        comb(all_errors, number) * comb(total - all_errors, count - number)
        for number in range(errors, min(all_errors, count) + 1)
    )
    return ways / comb(total, count)


def _errors(figures: dict[str, float]) -> tuple[int, int]:
    """Return the number of errors and of digits in a source of handwriting."""
    count = int(figures["digits"])
    return round(count * (1 - figures["accuracy"])), count


def _committed(chosen: Params) -> Metrics | None:
    """Return the metrics of the last commit, or None if there are no comparable ones."""
    try:
        stages = yaml.safe_load(_show("dvc.lock"))["stages"]
        kind = stages["export"]["params"]["params.yaml"]["network.kind"]
        sha256 = stages["download"]["params"]["params.yaml"]["data.idx"]["sha256"]
        if (kind, sha256) == (chosen.network.kind, chosen.data.idx.sha256):
            return json.loads(_show(METRICS.as_posix()))
    except (OSError, subprocess.CalledProcessError, KeyError):
        pass  # there is no git, no repository, no such file, or no run of these stages
    return None


def _show(path: str) -> bytes:
    """Return the content that a file has in the last commit."""
    command = ["git", "show", f"HEAD:./{path}"]
    return subprocess.run(command, check=True, capture_output=True).stdout
