"""Review corrections of the service's answers on a local page.

    make review INBOX=DIR
    python -m stages.commands.review --remove SHA256

The accepted pictures become a source of the stage `handwriting`; `source.py` describes its files.
`--remove` takes pictures out of it again.
"""

import argparse
import signal
import webbrowser
from pathlib import Path

from stages.commands.review import page, source
from stages.commands.review.session import Session
from stages.common.runner import StageError, run

PROBLEMS = 20  # sentences about skipped files on the terminal


def main() -> None:
    options = _options()
    with source.locked():
        if options.remove:
            print(source.remove(options.remove))
        else:
            _review(options.inbox, options.port)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("inbox", type=Path, nargs="?", help="the folder of `--feedback`")
    what.add_argument(
        "--remove", metavar="SHA256", nargs="+", help="remove accepted pictures from the source"
    )
    parser.add_argument(
        "--port", type=int, default=8081, help="port of the page on 127.0.0.1; 0 for a free one"
    )
    return parser.parse_args()


def _review(inbox: Path, port: int) -> None:
    session = Session(inbox)
    for sentence in session.problems[:PROBLEMS]:
        print(f"skipped: {sentence}")
    if len(session.problems) > PROBLEMS:
        print(f"skipped {len(session.problems) - PROBLEMS} more files")
    try:
        server = page.Server(session, port)
    except (OSError, OverflowError) as error:
        raise StageError(f"port {port} cannot be used: {error}; choose another --port") from error
    # Ctrl+C too, because shells start background commands that ignore it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with server:
        url = f"http://127.0.0.1:{server.server_port}/"
        waiting = session.state()["waiting"]
        print(f"{waiting} corrections wait on {url} (Ctrl+C finishes the review)", flush=True)
        webbrowser.open(url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    print(session.finish())


if __name__ == "__main__":
    run("stages.commands.review", main)
