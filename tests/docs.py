"""What the documents show of the pipeline, the service and the benchmarks: python -m tests.docs

`make docs` runs cog, which replaces each block in a document by what a function below prints:

    <!-- [[[cog docs.graph() ]]] -->
    <!-- [[[end]]] -->

With the option `--check`, it changes nothing and fails if a document is stale.
"""

import argparse
import csv
import importlib
import json
import math
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from cogapp import Cog
from prometheus_client.parser import text_string_to_metric_families

from service.recognition import pin
from tests import bits
from tests.benchmarks import tables

PROJECT = Path(__file__).parent.parent
FOLDERS = (PROJECT / name for name in ("stages", "service", "tests"))
DOCUMENTS = [PROJECT / "README.md", *sorted(file for f in FOLDERS for file in f.rglob("*.md"))]
ENGINES = ("LiteRT", "TensorFlow")
PRICE = 0.05  # dollars per core-hour, about what clouds charge
OPTIONS = ["--verbosity=1", "-P", "-p", "from tests import docs"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the generated parts of the documents.")
    parser.add_argument("--check", action="store_true", help="only compare; fail on a difference")
    how = ["--check", "--diff"] if parser.parse_args().check else ["-r"]
    sys.exit(Cog().main(["cog", *how, *OPTIONS, *map(str, DOCUMENTS)]))


class ParserMade(BaseException):
    """A command has made its parser, and need not go on."""


# The pipeline


def graph() -> None:
    """The graph of the stages, as a Mermaid diagram."""
    command = [sys.executable, "-m", "dvc", "dag", "--mermaid"]
    drawn = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True)
    text = drawn.stdout.strip().replace("\t", "    ")
    _block("mermaid", text)


def stages() -> None:
    """Print what each stage does and writes."""
    found = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]
    rows = []
    for name, stage in found.items():
        written = [*stage.get("outs", ()), *stage.get("metrics", ()), *stage.get("plots", ())]
        paths = [next(iter(entry)) if isinstance(entry, dict) else entry for entry in written]
        rows.append([f"`{name}`", stage["desc"], ", ".join(f"`{path}`" for path in paths)])
    _table(["stage", "what it does", "what it writes"], rows)


def parameters() -> None:
    """Print each key of params.yaml that has a comment, with its value and the comment."""
    rows: list[list[str]] = []
    path: list[str] = []
    comment: list[str] = []
    for line in (PROJECT / "params.yaml").read_text().splitlines():
        key = re.fullmatch(r"( *)([\w-]+):(?: +(.*?))??(?: *# (.*))?", line)
        if commented := re.fullmatch(r" *# (.*)", line):
            comment.append(commented[1])
        elif key:
            indent, name, value, after = key.groups()
            path = [*path[: len(indent) // 2], name]
            comment += [after] if after else []
            if comment and (len(path) > 1 or value):
                is_short = value and value != "[" and len(value) < 40
                meaning = " ".join(comment)
                rows.append([f"`{'.'.join(path)}`", f"`{value}`" if is_short else "", meaning])
            comment = []
        else:
            comment = []
    _table(["parameter", "value", "meaning"], rows)


def machines() -> None:
    """Processors on which `python -m tests.bits` was run, and what differed."""
    found = json.loads(bits.RESULTS.read_text())
    total = len(found["hashes"])
    rows = [
        [name, f"{total - len(differing)} of {total}", ", ".join(differing)]
        for name, differing in found["machines"].items()
    ]
    _table(["machine", "equal", "what differs"], rows)


# The model


def results() -> None:
    """Print the table of the front page: how good the model is, and how fast."""
    figures = _json("data/evaluation/metrics.json")
    images = f"{len(_predictions()):,} test images"
    seeds = {str(row["experiment"]): row for row in _rows("seeds", "experiments")}
    training, serving = tables.load("training"), tables.load("serving")
    recipes = {str(row["recipe"]): row for row in _rows("training", "recipes")}
    seconds = tables.number(recipes["cnn"]["s in all"])
    rate = _of("this project, LiteRT", "requests/s")
    _table(
        ["", "", "measured on"],
        [
            [
                "accuracy on the test split",
                f"**{figures['accuracy']:.2%}** ({figures['errors']} errors)",
                images,
            ],
            [
                "the same over seeds, mean ± standard deviation",
                f"{tables.number(seeds['mean']['accuracy']):.2%} ± "
                f"{tables.number(seeds['standard deviation']['accuracy']):.2%}",
                f"{len(seeds) - 2} seeds",
            ],
            [
                "expected calibration error",
                f"{figures['expected_calibration_error']:.2%}",
                images,
            ],
            [
                "network",
                f"{figures['parameters']:,} parameters, "
                f"{figures['multiply_adds'] / 1e6:.1f} million multiply-adds per image",
                "",
            ],
            [
                "training",
                f"{seconds:.0f} s, without a GPU",
                training.processor,
            ],
            [
                "service, LiteRT",
                f"{rate[1]:,.0f} requests/s over 8 connections",
                serving.processor,
            ],
        ],
    )


def example() -> None:
    """A picture that the model reads, and the answer of the service."""
    picture = 104
    label, prediction = _predictions()[picture].values()
    file = f"data/png/testing/{label}/{picture}.png"
    answer = f'{{"filename":"{picture}.png","labels":[{prediction}]}}'
    url = "http://127.0.0.1:8080/recognize"
    _block("console", f"$ curl -F image=@{file} {url}\n{answer}")


def seeds() -> None:
    result = tables.load("seeds")
    _show(result.settings, str(result.tables["experiments"]))


def robustness() -> None:
    """Accuracy without rejected labels and on corrupted images."""
    figures = _json("data/evaluation/metrics.json")
    rows = [
        ["as published", f"{figures['accuracy']:.2%}"],
        [
            "without images whose published label most reviewers reject",
            f"{figures['accuracy_without_rejected_labels']:.2%}",
        ],
        ["mean over the corruptions below", f"{figures['robustness_mean']:.2%}"],
        *(
            [name.replace("_", " "), f"{accuracy:.2%}"]
            for name, accuracy in figures["robustness"].items()
        ),
    ]
    _table(["test images", "accuracy"], rows)


def robustness_calibration() -> None:
    """Expected calibration error on corrupted images."""
    figures = _json("data/evaluation/metrics.json")
    usual, corrupted = (figures[f"{name}_calibration_error"] for name in ("expected", "robustness"))
    _sentences(
        f"The expected calibration error is {usual:.2%} on the test images, and {corrupted:.2%} on",
        "average under a corruption.",
    )


def handwriting() -> None:
    """Accuracy on the digits that are held back from the other handwriting."""
    sources = yaml.safe_load((PROJECT / "params.yaml").read_text())["data"]["handwriting"]
    found = _json("data/evaluation/metrics.json")["handwriting"]
    keys = ("accuracy", "expected_calibration_error", "unsure")
    _table(
        ["source", "license", "accuracy", "expected calibration error", "confidence below 50%"],
        [
            [name, terms, *(f"{found[name][key]:.2%}" for key in keys)]
            for name, terms in ((source["name"], source["license"]) for source in sources)
        ],
    )


def corrections() -> None:
    """Print what corrections of one community changed, and how much of that may be chance."""
    rows = _rows("corrections", "corrections")
    first, last = (
        {name: tables.number(row[name]) for name in ("corrections", "accuracy", "errors")}
        for row in (rows[0], rows[-1])
    )
    mnist = [tables.number(row["MNIST"]) for row in rows]
    seeds = {row["experiment"]: row for row in _rows("seeds", "experiments")}
    seed = 100 * tables.number(seeds["standard deviation"]["Semeion"])
    error = math.hypot(*(tables.number(row["standard error"]) for row in (rows[0], rows[-1])))
    _sentences(
        f"The model that has seen no digit of Semeion reads {first['accuracy']:.1%} of the test",
        f"part. With {last['corrections']:,} corrections, it reads {last['accuracy']:.1%}:",
        f"{last['errors']} errors instead of {first['errors']}. The accuracy on MNIST's test split",
        f"is between {min(mnist):.2%} and {max(mnist):.2%} in all rows. Each row is one training",
        "with one seed. Another seed alone changes the accuracy on Semeion by about",
        f"{seed:.1f} percentage points (standard deviation). A difference of less than about",
        f"{200 * error:.1f} points between two rows (two standard errors) may be chance.",
    )


def non_digits() -> None:
    """Print how often the network reports that an image is not a digit."""
    found = _json("data/evaluation/metrics.json")["unsure"]
    _sentences(
        f"The confidence is below 50% on {found['non_digits']:.1%} of the letters, shapes,",
        f"scribbles and numbers in the test part, and on {found['digits']:.2%} of MNIST's test",
        "images.",
    )


def mistakes() -> None:
    """Print how many errors are on images whose label is rejected."""
    params = yaml.safe_load((PROJECT / "params.yaml").read_text())
    rejected = params["evaluate"]["rejected_labels"]
    rows = enumerate(_predictions())
    wrong = [number for number, row in rows if row["label"] != row["prediction"]]
    _sentences(
        f"{len({*wrong} & {*rejected})} of the {len(wrong)} errors are on images whose published",
        "label most reviewers reject (`evaluate.rejected_labels`).",
    )


def pictures() -> None:
    """Print the accuracy on pictures as people send them."""
    kinds = {
        "plain": "28 x 28 PNG files",
        "tuned": "used for tuning",
        "held_out": "not used for tuning",
    }
    rows: dict[str, list[str]] = {kind: [] for kind in kinds}
    for row in csv.DictReader((PROJECT / "data/pictures/accuracy.csv").open()):
        rows[row["kind"]].append(f"{row['picture']} {float(row['accuracy']):.1%}")
    _table(["variations", "accuracy"], [[kinds[kind], "; ".join(rows[kind])] for kind in kinds])


# The service


def version() -> str:
    """The hash that dvc.lock pins for the artifact."""
    return pin.read(PROJECT / "dvc.lock").version


def sha256() -> str:
    """The SHA-256 of the manifest of the artifact."""
    return pin.read(PROJECT / "dvc.lock").sha256


def console(text: str) -> None:
    """A console session; {version} and {sha256} in it stand for the hashes of the artifact."""
    text = text.strip().replace("{version}", version()).replace("{sha256}", sha256())
    _block("console", text)


def options(module: str, **defaults: str) -> None:
    """The options of a command, as its parser has them.

    Args:
        defaults: to show in place of those that depend on the machine.
    """
    rows = []
    for action in parser_of(module)._actions:
        if "--help" in action.option_strings:
            continue
        # `--watch` comes before `--no-watch`, and `-o` before `--option`.
        long = [option for option in action.option_strings if option.startswith("--")]
        name = f"`{long[0]}`" if long else f"`{action.metavar}`"
        default = defaults.get(action.dest, _default(action.default))
        # Python 3.11 and 3.12 add the default of a switch to its help.
        meaning = (action.help or "").removesuffix(" (default: %(default)s)")
        rows.append([name, default, meaning])
    _table(["option", "default", "meaning"], rows)


def parser_of(module: str) -> argparse.ArgumentParser:
    """The parser that a command makes."""
    command = importlib.import_module(f"{module}.__main__")
    patch = mock.patch.object(argparse.ArgumentParser, "parse_args", autospec=True)
    with patch as parse, suppress(ParserMade):
        parse.side_effect = ParserMade
        command.main()
    return parse.call_args.args[0]


def routes() -> None:
    """Each route of openapi.json, with its summary."""
    rows = [
        [f"`{method.upper()} {path}`", operation["summary"]]
        for path, methods in _json("service/api/openapi.json")["paths"].items()
        for method, operation in methods.items()
        if method != "parameters"
    ]
    _table(["request", "what it does"], rows)


def long_requests_rule() -> None:
    """Print when the service treats a request as long."""
    from service.api import limits

    _sentences(
        f"A request is long if its body has more than {limits.SHORT_BODY // 1024} KiB, if it has",
        f"more than {limits.SHORT_PICTURES} pictures or more than {limits.SHORT_PIXELS:,} pixels,",
        "or if it asks for several digits per picture, or with `why=true` for where the network",
        "looked. A correction is long, too.",
    )


def fixed_limits() -> None:
    """Print the limits that no option changes."""
    from service import connections
    from service.api import limits, recognize

    _sentences(
        f"The pictures of one request together have at most {limits.MAX_LARGEST_PICTURES} times",
        f"`--max-pixels`. A worker keeps at most {connections.CONNECTIONS:,} connections.",
        f"The head of a request has at most {connections.HEADERS} fields and",
        f"{connections.HEAD // 1024} KiB. With `why=true`, a request has one picture, with at most",
        f"{recognize.MAX_EXPLAINED} digits.",
    )


def service_metrics() -> None:
    """Print each metric of the service except those of a trial."""
    from service import metrics

    metrics.current()
    _metrics(lambda name: not name.startswith("mnist_shadow_"))


def shadow_metrics() -> None:
    """Print each metric of a trial of another artifact."""
    from service import metrics

    metrics.Shadow(["served", "new"])
    _metrics(lambda name: name.startswith("mnist_shadow_"))


def _metrics(is_shown: Callable[[str], bool]) -> None:
    from service import metrics

    families = text_string_to_metric_families(metrics.exposition().decode())
    suffix = {"counter": "_total"}
    rows = [
        [f"`{family.name}{suffix.get(family.type, '')}`", family.type, family.documentation]
        for family in families
        if family.name.startswith("mnist_")
        and not family.name.endswith("_created")
        and is_shown(family.name)
    ]
    _table(["metric", "type", "meaning"], rows)


def alerts() -> None:
    """Print when each alert fires."""
    rules = yaml.safe_load((PROJECT / "service/monitoring/rules.yml").read_text())
    rows = [
        [f"`{rule['alert']}`", f"`{rule['expr']}`", rule["for"], rule["labels"]["severity"]]
        for rule in rules["groups"][0]["rules"]
        if "alert" in rule
    ]
    _table(["alert", "fires if", "for", "severity"], rows)


def comparison() -> None:
    """The service beside the other servers, in sentences."""
    ours = {engine: _of(f"this project, {engine}", "requests/s") for engine in ENGINES}
    p99 = {engine: _of(f"this project, {engine}", "p99 ms") for engine in ENGINES}
    slow = _of("this project, LiteRT, without its fast path", "requests/s")
    sentences = [
        f"The fast path answers {_range(ours['LiteRT'], slow)} times as many requests per second "
        "as the same service without it."
    ]
    rows = _rows("serving", "servers")
    servers = [str(row["server"]) for row in rows if str(row["server"]).startswith("Go server")]
    if servers:
        best = max(servers, key=lambda name: _of(name, "requests/s")[1])
        rate, latency = _of(best, "requests/s"), _of(best, "p99 ms")
        sentences.append(f"The fastest Go server in the table is the row “{best}”.")
        sentences += [
            f"With {engine}, the service answers {_ratios(ours[engine], rate)} times as many "
            "requests per second as that server over 1, 8 and 64 connections. Its 99th "
            f"percentile of latency is {_ratios(p99[engine], latency)} times as long."
            for engine in ENGINES
        ]
    _show("\n".join(f"- {sentence}" for sentence in sentences))


# Bulk recognition


def billion() -> None:
    """The work, time and cost of a billion pictures, extrapolated from the largest job."""
    result = tables.load("bulk")
    row = max(result.tables["programs"].rows, key=lambda row: tables.number(row["pictures"]))
    cores = int(result.processor.split()[0])
    seconds = 1e9 * cores / tables.number(row["pictures/s without start-up"])  # of one core
    hours = seconds / 3600
    pngs = yaml.safe_load((PROJECT / "dvc.lock").read_text())["stages"]["png"]["outs"][0]
    tb = pngs["size"] / pngs["nfiles"] / 1e3
    written = tables.number(row["output bytes per picture"]) / 1e3
    times = ", ".join(f"{hours / n:.1f} hours on {n} cores" for n in (cores, 16, 64))
    rows = [
        ["work", f"{hours:.0f} core-hours"],
        ["time, if it scales", times],
        [f"cost, at ${PRICE} per core-hour", f"${hours * PRICE:.2f}"],
        ["input", f"{tb:.2f} TB as PNG files like MNIST's"],
        ["output", f"{written:.1f} TB of Parquet"],
    ]
    _table(["a billion pictures", ""], rows)


# Benchmarks and commands of the Makefile


def benchmark(name: str, table: str) -> None:
    """A table that a benchmark saved, with what it was measured on."""
    result = tables.load(name)
    _show(str(result.tables[table]), f"{result.processor}, {result.date}. {result.settings}")


def targets() -> None:
    """The targets of the Makefile, as `make` lists them."""
    found = re.findall(r"^([a-z-]+):.*## (.*)$", (PROJECT / "Makefile").read_text(), re.M)
    _table(["command", "what it does"], [[f"`make {name}`", what] for name, what in found])


# Helpers


def _predictions() -> list[dict[str, str]]:
    """The label and the prediction of each test image."""
    return list(csv.DictReader((PROJECT / "data/evaluation/predictions.csv").open()))


def _of(server: str, column: str) -> list[float]:
    """The figures of a server over 1, 8 and 64 connections."""
    row = next(row for row in _rows("serving", "servers") if row["server"] == server)
    return list(row[column])  # type: ignore[arg-type]


def _ratios(figures: list[float], others: list[float]) -> str:
    *first, last = [f"{a / b:.2f}" for a, b in zip(figures, others, strict=True)]
    return f"{', '.join(first)} and {last}"


def _range(figures: list[float], others: list[float]) -> str:
    ratios = [a / b for a, b in zip(figures, others, strict=True)]
    return f"{min(ratios):.1f} to {max(ratios):.1f}"


def _rows(name: str, table: str) -> list[tables.Row]:
    return list(tables.load(name).tables[table].rows)


def _json(path: str) -> Any:
    return json.loads((PROJECT / path).read_text())


def _default(value: object) -> str:
    if value is None or value is False:
        return ""
    return f"{value:,}" if isinstance(value, int) and value > 9999 else f"`{value}`"


def _table(header: list[str], rows: list[list[str]]) -> None:
    escaped = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    lines = [header, ["---"] * len(header), *escaped]
    _show("\n".join(f"| {' | '.join(cells)} |" for cells in lines))


def _block(language: str, text: str) -> None:
    _show(f"```{language}\n{text}\n```")


def _sentences(*parts: str) -> None:
    _show(textwrap.fill(" ".join(parts), 118))


def _show(*paragraphs: str) -> None:
    text = "\n\n".join(paragraphs)
    print(f"\n{text}\n")


if __name__ == "__main__":
    main()
