"""Run the service without its fast path: python -m tests.benchmarks.without_fast_path.

Flask then answers every request. The options are those of `python -m service`. A comparison of both
shows the gain of `service.api.fast_path`.
"""

from service.__main__ import main
from service.api import fast_path

if __name__ == "__main__":
    # `main` imports the application and then forks the workers, so replace the function before.
    fast_path.with_fast_path = lambda application, model, token: application
    main()
