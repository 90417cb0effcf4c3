"""This service, but Flask answers every request: python -m tests.benchmarks.without_fast_path

Takes the options of `python -m service`. The difference to it is what
`service.api.fast_path` brings.
"""

from service.__main__ import main
from service.api import fast_path

if __name__ == "__main__":
    # Before `main` imports the application, from which it forks the workers.
    fast_path.with_fast_path = lambda application, model, token: application
    main()
