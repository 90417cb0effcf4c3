"""Check that `make repro` made again what the commit contains.

    python -m tests.reproduced

On a machine of the class that wrote dvc.lock, no tracked file may have changed. A machine of
another class makes another network; its metrics must be close to the committed ones.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from stages.common import determinism, paths

FILES = paths.EVALUATION / "metrics.json", paths.PICTURES / "metrics.json"
# The largest accepted differences from a committed accuracy. On the test split, the limit is five
# standard deviations over seeds (0.04 %, see stages/README.md). The others are of at most 1,000
# images each.
TOLERANCE, TOLERANCE_OF_FEW = 0.002, 0.03


def git(*arguments: str) -> str:
    """Run git, and return its output."""
    return subprocess.run(["git", *arguments], stdout=subprocess.PIPE, text=True, check=True).stdout


def accuracies(metrics: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Yield the name and value of each accuracy in the content of a metrics.json."""
    for key, value in metrics.items():
        if isinstance(value, dict):
            yield from accuracies(value, f"{name}{key}.")
        elif key == "accuracy" or name.startswith(("plain", "tuned", "held_out")):
            yield f"{name}{key}", value


def main() -> None:
    changed = git("diff", "--name-only", "HEAD").split("\n")[:-1]
    if not changed:
        print("`make repro` changed no tracked file")
        return
    cards = git("show", f"HEAD:{paths.MODEL_CARD}"), paths.MODEL_CARD.read_text()
    committed, this = map(determinism.recorded_class, cards)
    if this == committed:
        sys.exit(
            f"`make repro` changed {', '.join(changed)}, although this machine is of the class "
            f"that wrote dvc.lock ({this})"
        )
    print(
        f"this machine ({this}) is of another class than the one that wrote dvc.lock ({committed})"
    )
    for path in FILES:
        before = dict(accuracies(json.loads(git("show", f"HEAD:{path}"))))
        after = dict(accuracies(json.loads(path.read_text())))
        for name, value in before.items():
            tolerance = TOLERANCE if name == "accuracy" else TOLERANCE_OF_FEW
            if abs(after[name] - value) > tolerance:
                sys.exit(
                    f"{path}: {name} is {after[name]}, more than {tolerance} from the committed "
                    f"{value}"
                )
    print("its metrics are close to the committed ones")


if __name__ == "__main__":
    main()
