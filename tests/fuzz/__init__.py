"""Coverage-guided fuzzing with atheris, which only these scripts need: pip install atheris

python -m tests.fuzz.images /tmp/images -max_total_time=600
python -m tests.fuzz.protocols /tmp/protocols -max_total_time=600   # needs data/model
python -m tests.fuzz.idx /tmp/idx -max_total_time=600

The folder is the corpus: it is made of files of this repository if it isn't there, and keeps every
input that reached new code. An input that fails is written beside it; its name in place of the
folder's tries it again. All else are options of libFuzzer: https://llvm.org/docs/LibFuzzer.html
"""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import atheris

PROJECT = Path(__file__).parent.parent.parent
SECONDS = 5  # most for one input
# Most for the process. Atheris itself takes some 8 to 14 KB more with each input; the code that is
# tried, run without it, does not. So an hour may need more: -rss_limit_mb=16384
MEGABYTES = 8192


def run(
    target: Callable[[bytes], None],
    seeds: Iterable[bytes],
    words: Iterable[str] = (),
    mutate: Callable[[bytes, int, int], bytes] | None = None,
) -> None:
    """Try inputs on `target` until it raises, or takes too long or too much memory.

    Args:
        seeds: the first inputs.
        words: what inputs are made of, besides bytes.
        mutate: from an input, the most bytes and a random number to another input.
    """
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    corpus = Path(sys.argv[1])
    options = [f"-timeout={SECONDS}", f"-rss_limit_mb={MEGABYTES}", f"-artifact_prefix={corpus}-"]
    if not corpus.exists():
        corpus.mkdir(parents=True)
        for number, seed in enumerate(seeds):
            (corpus / f"seed-{number}").write_bytes(seed)
    if words:
        dictionary = Path(f"{corpus}.dict")
        dictionary.write_text("".join(f'"{_quoted(word)}"\n' for word in words))
        options.append(f"-dict={dictionary}")
    atheris.Setup([sys.argv[0], *options, *sys.argv[1:]], target, custom_mutator=mutate)
    atheris.Fuzz()


def _quoted(word: str) -> str:
    return word.replace("\\", "\\\\").replace('"', '\\"')
