"""Print a hash of what each stage computes on a slice of MNIST, to compare machines.

    python -m tests.bits                                     # this processor
    taskset --cpu-list 0 python -m tests.bits                # another number of cores
    qemu-x86_64 -cpu Haswell .venv/bin/python -m tests.bits  # another one (Debian: qemu-user)
    python -m tests.bits --record "AMD EPYC, Zen 3"          # add a row to the table of machines

The stages write floating-point results, which must not depend on the machine. The hashes of the
machine that wrote dvc.lock are in tests/benchmarks/results/bits.json.
"""

import argparse
import hashlib
import json
import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from stages.common import determinism

RESULTS = Path(__file__).parent / "benchmarks/results/bits.json"
PROJECT = Path(__file__).parent.parent
STEPS = 2
EVALUATED = 100  # images
DRAWN = 2  # pictures of each variation
MADE = 100  # images of `drawn_digits` and of `non_digits`


def digest(*values: Any) -> str:
    """Return a short hash of files, folders, pictures, arrays and other objects."""
    import numpy as np
    from PIL import Image

    hashed = hashlib.sha256()
    for value in values:
        if isinstance(value, Path):
            files = sorted(file for file in [value, *value.rglob("*")] if file.is_file())
            for file in files:
                hashed.update(file.read_bytes())
        elif isinstance(value, np.ndarray | Image.Image):
            hashed.update(value.tobytes())
        else:
            hashed.update(value if isinstance(value, bytes) else json.dumps(value).encode())
    return hashed.hexdigest()[:16]


def hashes() -> Iterator[tuple[str, str]]:
    """Run each stage's computation on the slice; yield the name and the hash of each result."""
    determinism.limit_instructions()
    from stages.common import params

    chosen = params.load(PROJECT / "params.yaml")
    determinism.limit_threads(chosen.threads)
    # Import only now: the libraries read the environment when Python imports them.
    from tests.conftest import load_slice

    images, labels = (part[:EVALUATED] for part in load_slice("testing"))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        yield from of_handwriting(chosen)
        yield from of_drawn_digits(chosen)
        yield from of_non_digits(chosen, images)
        for kind in ("mlp", "cnn"):
            trained = yield from of_train(folder, chosen, kind)
        yield from of_evaluate(folder, trained, images, labels, chosen.data.classes)
        yield from of_pictures(folder, images[:DRAWN], labels[:DRAWN])
        yield from of_export(folder, trained)


def of_handwriting(chosen: Any) -> Iterator[tuple[str, str]]:
    from dataclasses import replace

    from stages import handwriting

    for listed in chosen.data.handwriting:
        source = handwriting.read(PROJECT / listed.path)
        few = replace(
            source,
            files=source.files[:EVALUATED],
            labels=source.labels[:EVALUATED],
            writers=source.writers[:EVALUATED],
        )
        parts = handwriting.split(few, listed.held_back, set())
        yield f"handwriting: {listed.name}", digest(*(a for part in parts.values() for a in part))


def of_drawn_digits(chosen: Any) -> Iterator[tuple[str, str]]:
    from stages import drawn_digits

    yield "drawn_digits", digest(*drawn_digits.make(MADE, chosen.data.drawn_digits.seed))


def of_non_digits(chosen: Any, images: Any) -> Iterator[tuple[str, str]]:
    from stages import non_digits
    from tests.conftest import FONTS

    files = sorted(FONTS.glob("*.woff"))
    glyphs = [non_digits.Glyphs.of(file.name, file.read_bytes()) for file in files]
    for split in ("training", "testing"):
        made = non_digits.make(split, MADE, chosen.data.non_digits, glyphs, images)
        yield f"non_digits: {split}", digest(*made)


def of_train(folder: Path, chosen: Any, kind: str) -> Generator[tuple[str, str], None, Any]:
    """Train for some steps and calibrate; return the averaged network."""
    import keras

    from stages.common import network
    from stages.train import calibrate, train
    from tests.conftest import load_slice

    recipe = getattr(chosen.train, kind)
    keras.utils.set_random_seed(chosen.train.seed)
    model = network.build(chosen.network.model_copy(update={"kind": kind}))
    images, labels = load_slice("training")
    count = STEPS * recipe.batch_size
    held_out = images[-EVALUATED:], labels[-EVALUATED:]
    figures: list[dict[str, float]] = []
    average = train(model, (images[:count], labels[:count]), held_out, recipe, 1, 1, figures.append)
    yield f"train: {kind}, weights after {STEPS} steps", digest(*model.get_weights())
    yield f"train: {kind}, averaged weights", digest(*average.get_weights())
    yield f"train: {kind}, figures", digest(figures)
    calibrate(average, held_out, recipe, 1)
    (folder / kind).mkdir()
    network.save(average, folder / kind)
    yield f"train: {kind}, files of the calibrated network", digest(folder / kind)
    return average


def of_evaluate(
    folder: Path, model: Any, images: Any, labels: Any, classes: list[str]
) -> Iterator[tuple[str, str]]:
    from stages import evaluate
    from stages.common import image_corruptions, network

    probabilities = network.probabilities(model, images)
    yield "evaluate: probabilities", digest(probabilities)
    figures = evaluate.evaluate(probabilities, labels, classes, [], {"fog": probabilities})
    yield "evaluate: metrics", digest(figures)
    picture = folder / "mistakes.png"
    evaluate.gallery(images, labels, probabilities, classes).save(picture)
    yield "evaluate: mistakes.png", digest(picture)
    for name, corrupted in image_corruptions.corrupted(images).items():
        yield f"evaluate: corruption {name}", digest(corrupted)


def of_pictures(folder: Path, images: Any, labels: Any) -> Iterator[tuple[str, str]]:
    from stages import pictures, png

    png.render({"testing": (images, labels)}, folder / "png")
    yield "png: the files", digest(folder / "png")
    contents = {
        name: pictures.files(images, variation)
        for name, variation in {**pictures.TUNED, **pictures.HELD_OUT}.items()
    }
    files = [file for drawn in contents.values() for file in drawn]
    yield "pictures: the files", digest(*files)
    yield "pictures: the images", digest(*map(pictures.preprocessed, files))
    picture = folder / "examples.png"
    pictures.examples({name: drawn[0] for name, drawn in contents.items()}).save(picture)
    yield "pictures: examples.png", digest(picture)


def of_export(folder: Path, model: Any) -> Iterator[tuple[str, str]]:
    from stages import export
    from stages.common import network

    model = network.fold(model)
    for name, write in (("model", export.export_artifact), ("graph", export.export_graph)):
        (folder / name).mkdir()
        write(model, folder / name)
        yield f"export: {name}", digest(folder / name)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bits", description="Print a hash of what each stage computes."
    )
    parser.add_argument("--record", metavar="MACHINE", help="add this machine to the results")
    name = parser.parse_args().record
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    reference: dict[str, str] = results.get("hashes", {})
    differing = []
    for what, value in hashes():
        differs = reference.setdefault(what, value) != value
        if differs:
            differing.append(what)
        print(f"{what:50} {value}{'  differs' if differs else ''}", flush=True)
    if name:
        machines = results.get("machines", {}) | {name: differing}
        results = {"hashes": reference, "machines": machines}
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
