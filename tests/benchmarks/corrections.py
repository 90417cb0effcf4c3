"""Show how corrections help one community: the accuracy on its digits before and after reviews.

    python -m tests.benchmarks.corrections

The community is the people who wrote Semeion, because the model reads them worse than those who
wrote Optdigits. In a temporary clone of the last commit, the program takes Semeion out of
`data.handwriting` and runs `dvc repro evaluate`. Then it repeats three steps, until there are 50,
200 and 1,000 corrections in all:

1. It writes digits of Semeion with their labels into the folder of `--feedback`, as the service
   does for `POST /feedback`.
2. It accepts them with the code of `make review`, which makes them the source `feedback`. As by
   default, the source holds back a fifth of them, which no training uses.
3. It runs `dvc repro evaluate`.

The other digits of Semeion are the test part of each row. A hash of each digit decides whether it
is a correction, and in which order. A person may have digits in both parts, because Semeion does
not name the writers.

The program prints a table, saves it, and draws the plot. Each of the four trainings takes about ten
minutes on two cores. The trained networks stay in DVC's cache, so a program that was interrupted
does not repeat whole trainings.
"""

import json
import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import chdir
from dataclasses import dataclass
from operator import sub
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from service import feedback
from service.recognition import images, pin
from stages import handwriting
from stages.commands.review import params_file, source
from stages.commands.review.session import Session
from stages.common import gate, idx, params, paths
from stages.common.idx import Split
from tests.benchmarks import tables
from tests.conftest import ENVIRONMENT, PROJECT

NAME = "semeion"
COUNTS = (0, 50, 200, 1000)  # corrections in all
PLOT = PROJECT / ".github/corrections.svg"
COLUMNS = {
    "corrections": ",",
    "for training": ",",
    "errors": "d",
    "accuracy": ".1%",
    "standard error": ".1%",
    "by chance": ".2g",
    "MNIST": ".2%",
}

# The plot: the sides of its area and the place of 0 corrections, in pixels; and all that does not
# depend on the figures.
LEFT, FIRST, RIGHT, TOP, BOTTOM = 70, 90, 640, 70, 330
SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 400" width="720" height="400" role="img">
<title>Accuracy on Semeion's test part and on MNIST's test split, by number of corrections</title>
<style>
svg { color-scheme: light dark; font: 14px system-ui, sans-serif; }
.page { fill: #ffffff; } text { fill: #1f2328; } path { fill: none; stroke-width: 2; }
.grid { stroke: #d8dee4; stroke-width: 1; } .axis { stroke: #59636e; stroke-width: 1; }
path.community { stroke: #0969da; } circle.community { fill: #0969da; }
path.mnist { stroke: #9a6700; stroke-dasharray: 6 4; } circle.mnist { fill: #9a6700; }
@media (prefers-color-scheme: dark) {
  .page { fill: #0d1117; } text { fill: #e6edf3; }
  .grid { stroke: #30363d; } .axis { stroke: #9198a1; }
  path.community { stroke: #58a6ff; } circle.community { fill: #58a6ff; }
  path.mnist { stroke: #d29922; } circle.mnist { fill: #d29922; }
}
</style>
<rect class="page" width="720" height="400" rx="6"/>
<path class="community" d="M70 30h24"/><circle class="community" cx="82" cy="30" r="4"/>
<text x="102" y="35">Semeion's test part, with one standard error</text>
<path class="mnist" d="M440 30h24"/><circle class="mnist" cx="452" cy="30" r="4"/>
<text x="472" y="35">MNIST's test split</text>
<text x="355" y="385" text-anchor="middle">accepted corrections (square-root scale)</text>
<text transform="translate(20 200) rotate(-90)" text-anchor="middle">accuracy</text>
PLOT
<path class="axis" d="M70 70V330H640"/>
</svg>
"""


@dataclass(frozen=True)
class Digit:
    """A digit as a client sends it."""

    png: bytes
    label: int


@dataclass(frozen=True)
class Figures:
    corrections: int
    for_training: int  # the others are held back, or have the image of another digit
    errors: int  # in the test part
    mnist: float  # accuracy on MNIST's test split


def main() -> None:
    sent, testing = divide(handwriting.read(Path("data/sources") / f"{NAME}.npz"), COUNTS[-1])
    with TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        make_clone(clone)
        with chdir(clone):
            rows = table(list(measure(sent, testing)), len(testing[1]))
    settings = (
        f"One training for each row, with the seed {params.load().train.seed}. "
        f"The test part has {len(testing[1])} digits."
    )
    result = {"corrections": tables.Table(COLUMNS, rows)}
    tables.report("corrections", result, settings)
    PLOT.write_text(draw(rows))


def divide(digits: handwriting.Source, corrections: int) -> tuple[list[Digit], Split]:
    """Choose corrections, and decode the other digits for testing.

    Returns:
        The corrections, and the images and labels of the other digits. Of several digits with the
        same image, the test part has at most one, and none if one of them is a correction.
    """
    ordered = in_order(digits)
    known: set[bytes] = set()
    handwriting.split(_part(ordered, slice(corrections)), 0.0, known)
    testing = handwriting.split(_part(ordered, slice(corrections, None)), 1.0, known)["testing"]
    sent = map(Digit, ordered.files[:corrections], ordered.labels[:corrections])
    return list(sent), testing


def in_order(digits: handwriting.Source) -> handwriting.Source:
    """Sort digits by their hashes."""
    found = sorted(zip(digits.writers, digits.files, digits.labels, strict=True))
    return handwriting.Source(
        [file for _, file, _ in found],
        [label for *_, label in found],
        [writer for writer, *_ in found],
        digits.sha256,
    )


def _part(digits: handwriting.Source, places: slice) -> handwriting.Source:
    return handwriting.Source(
        digits.files[places], digits.labels[places], digits.writers[places], digits.sha256
    )


def make_clone(path: Path) -> None:
    """Clone the last commit, without the source. The clone shares DVC's cache with the project."""
    run("git", "clone", "--quiet", "--shared", str(PROJECT), str(path), cwd=PROJECT)
    cache = [sys.executable, "-m", "dvc", "cache", "dir"]
    shared = subprocess.run(cache, cwd=PROJECT, check=True, capture_output=True, text=True).stdout
    run(*cache, "--local", shared.strip(), cwd=path)
    file = path / params.FILE
    file.write_text(params_file.update(file.read_text(), NAME, None))


def run(*command: str, cwd: Path) -> None:
    subprocess.run(command, cwd=cwd, env=ENVIRONMENT, check=True)


def measure(sent: Sequence[Digit], testing: Split) -> Iterator[Figures]:
    """Train with more and more corrections in the repository in the current folder."""
    for before, corrections in zip((0, *COUNTS), COUNTS, strict=False):
        if corrections:
            review(sent[before:corrections])
        run(sys.executable, "-m", "dvc", "repro", "evaluate", cwd=Path.cwd())
        yield figures(corrections, testing)


def review(sent: Sequence[Digit]) -> None:
    """Keep digits as the service does, and accept all of them."""
    from stages.common import network

    folder = Path("inbox")
    inbox = feedback.Inbox(folder)
    pixels = np.array([images.decode(digit.png) for digit in sent])
    probabilities = network.probabilities(network.load(paths.NETWORK), pixels)
    outputs = pin.entries(Path("dvc.lock"), "outs")
    version = outputs[paths.NETWORK.as_posix()]["md5"].removesuffix(".dir")
    for digit, confidences in zip(sent, probabilities, strict=True):
        answered = int(confidences.argmax())
        confidence = float(confidences[answered])
        inbox.keep(digit.png, feedback.Correction(digit.label, answered, confidence, version))
    with source.locked():
        session = Session(folder)
        session.accept(session.corrections, None)
        print(session.finish(), flush=True)


def figures(corrections: int, testing: Split) -> Figures:
    """Measure the network of the current folder with the functions of the stage `evaluate`."""
    from stages import evaluate
    from stages.common import network

    outputs = network.probabilities(network.load(paths.NETWORK), testing[0])
    accuracy = evaluate.on_handwriting(*testing, outputs)["accuracy"]
    feedback_folder = paths.HANDWRITING / source.NAME
    found = Figures(
        corrections,
        len(idx.load(feedback_folder, "training")[1]) if corrections else 0,
        round(len(testing[1]) * (1 - accuracy)),
        json.loads((paths.EVALUATION / evaluate.METRICS).read_text())["accuracy"],
    )
    print(found, flush=True)
    return found


def table(found: Sequence[Figures], digits: int) -> list[tables.Row]:
    """Return the rows of the table.

    Args:
        found: The figures of each training, first those without corrections.
        digits: The number of digits in the test part.
    """
    rows: list[tables.Row] = []
    for each in found:
        accuracy = 1 - each.errors / digits
        error = math.sqrt(accuracy * (1 - accuracy) / digits)
        # What `export` would say of the two networks if they were exchanged.
        chance = gate.probability(found[0].errors, digits, each.errors, digits)
        cells = (
            each.corrections,
            each.for_training,
            each.errors,
            accuracy,
            error,
            chance,
            each.mnist,
        )
        row = dict(zip(COLUMNS, cells, strict=True))
        rows.append(row if each.corrections else {**row, "by chance": ""})
    return rows


def draw(rows: Sequence[tables.Row]) -> str:
    """Draw the accuracies in the table as an SVG file for light and dark pages."""
    corrections, accuracies, deviations, mnist = (
        [tables.number(row[column]) for row in rows]
        for column in ("corrections", "accuracy", "standard error", "MNIST")
    )
    lowest = math.floor(100 * min(map(sub, accuracies, deviations))) / 100

    def x(count: float) -> float:
        return FIRST + (RIGHT - FIRST) * math.sqrt(count / corrections[-1])

    def y(accuracy: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (accuracy - lowest) / (1 - lowest)

    parts = []
    for percent in range(round(100 * lowest), 101):
        height = y(percent / 100)
        parts.append(f'<path class="grid" d="M{LEFT} {height:.1f}H{RIGHT}"/>')
        parts.append(_text(LEFT - 10, height + 5, f"{percent}%", "end"))
    for count in corrections:
        parts.append(f'<path class="axis" d="M{x(count):.1f} {BOTTOM}v6"/>')
        parts.append(_text(x(count), BOTTOM + 24, f"{count:,.0f}"))
    for count, value, deviation in zip(corrections, accuracies, deviations, strict=True):
        ends = f"{y(value - deviation):.1f}V{y(value + deviation):.1f}"
        parts.append(f'<path class="community" d="M{x(count):.1f} {ends}"/>')
    # The labels are below the points of the one curve, and above those of the other.
    for name, values, format_, shift in (
        ("community", accuracies, ".1%", 20),
        ("mnist", mnist, ".2%", -10),
    ):
        points = [(x(count), y(value)) for count, value in zip(corrections, values, strict=True)]
        line = "L".join(f"{across:.1f} {down:.1f}" for across, down in points)
        parts.append(f'<path class="{name}" d="M{line}"/>')
        for (across, down), value in zip(points, values, strict=True):
            parts.append(f'<circle class="{name}" cx="{across:.1f}" cy="{down:.1f}" r="4"/>')
            parts.append(_text(across + 8, down + shift, format(value, format_), "start"))
    return SVG.replace("PLOT", "\n".join(parts))


def _text(x: float, y: float, content: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{content}</text>'


if __name__ == "__main__":
    main()
