"""Coverage-guided fuzzing with atheris, which only these scripts need: pip install atheris.

python -m tests.fuzz.images /tmp/images -max_total_time=600
python -m tests.fuzz.protocols /tmp/protocols -max_total_time=600   # needs data/model
python -m tests.fuzz.idx /tmp/idx -max_total_time=600

The first argument is the folder of the corpus. If it does not exist, the script creates it with
seeds from this repository. The corpus keeps every input that reaches new code. The script writes a
failing input next to the folder; pass the name of that file instead of the folder to repeat it. The
other arguments are options of libFuzzer: https://llvm.org/docs/LibFuzzer.html
"""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import atheris

PROJECT = Path(__file__).parent.parent.parent
SECONDS = 5  # time limit of one input
# Memory limit of the process. atheris 3.0 leaks 8 to 14 KB with each input, and the tested code
# alone leaks none, so an hour may need more: -rss_limit_mb=16384
MEGABYTES = 8192


def run(
    target: Callable[[bytes], None],
    seeds: Iterable[bytes],
    words: Iterable[str] = (),
    mutate: Callable[[bytes, int, int], bytes] | None = None,
) -> None:
    """Run `target` on inputs until it raises an exception, or exceeds the time or memory limit.

    Args:
        target: The function to test.
        seeds: The first inputs.
        words: Byte sequences from which libFuzzer builds inputs, besides single bytes.
        mutate: A function of an input, the maximum size and a random seed, which returns another
            input.
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
