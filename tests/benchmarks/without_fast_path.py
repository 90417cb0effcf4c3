"""This service, but Flask answers every request: python -m tests.benchmarks.without_fast_path

Takes the options of `python -m service`. The difference to it is what `service.shortcut` brings.
"""

from service import shortcut
from service.__main__ import main

if __name__ == "__main__":
    # Before `main` imports the application, from which it forks the workers.
    shortcut.shortcut = lambda application, model, token: application
    main()
