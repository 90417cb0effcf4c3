"""Which artifact is served: the one that dvc.lock pins, also when it comes to pin another.

Another one is verified, then loaded and tried in a process of its own, and only then published to
the workers. If it does not pass, the old one stays, and the log, the metrics and
`GET /v1/models/mnist` say so.
"""

import json
import logging
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Thread

from service import supervisor
from service.recognition import engines, pin
from service.recognition.pin import Pin, PinError

PERIOD = 1  # seconds from one look to the next, in the main process and in the workers
FILE = "published.json"
TRIAL = 120  # seconds; TensorFlow takes a few

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelStatus:
    """How far an artifact has come, in the words of TensorFlow Serving."""

    version: str
    status: str  # LOADING, AVAILABLE or END
    error: str = ""  # why it ended without having been served
    folder: str = ""  # of its verified copy, while it is AVAILABLE


def publish(private: Path, statuses: list[ModelStatus]) -> None:
    """Tell the workers, in a folder that only this service can write to; whole, or not at all."""
    new = private / f"{FILE}.new"
    new.write_text(json.dumps([asdict(status) for status in statuses]))
    new.replace(private / FILE)


def published(private: Path) -> list[ModelStatus]:
    return [ModelStatus(**status) for status in json.loads((private / FILE).read_text())]


def available(statuses: list[ModelStatus]) -> ModelStatus:
    """The one to serve."""
    return next(status for status in statuses if status.status == "AVAILABLE")


class Watcher(Thread):
    """Looks at the pin when it is woken, or all the time."""

    def __init__(self, lock: Path, engine: str, private: Path, always: bool) -> None:
        """Verify and publish the artifact that is pinned now.

        Args:
            private: a folder that only this service can write to.
            always: look each second, not only when woken.

        Raises:
            PinError: there is no such artifact.
        """
        super().__init__(name="watcher", daemon=True)
        self._lock = lock
        self._engine = engine
        self._private = private
        self._always = always
        self._woken = Event()
        self._tried = _look(lock)
        self.served = self._verify(pin.read(lock))
        publish(private, [self.served])

    def wake(self) -> None:
        """Look now."""
        self._woken.set()

    def run(self) -> None:
        before = self._tried
        while True:
            woken = self._woken.wait(PERIOD if self._always else None)
            self._woken.clear()
            now = _look(self._lock)
            # What is still being written is left alone until it has settled.
            if woken or (now == before and now != self._tried):
                self._tried = now
                try:
                    self._update(woken)
                except Exception:
                    logger.exception("Looking for another artifact failed; still serving the old")
            before = now

    def _update(self, asked: bool) -> None:
        version = ""
        try:
            pinned = pin.read(self._lock)
            version = pinned.version
            if version == self.served.version:
                publish(self._private, [self.served])
                if asked:
                    as_before = f"as before: {self._lock} pins no other"
                    print(f"Serving {pin.ARTIFACT} {version} {as_before}", flush=True)
                return
            publish(self._private, [ModelStatus(version, "LOADING"), self.served])
            new = self._verify(pinned)
            self._try(new)
        except PinError as error:
            publish(self._private, [ModelStatus(version, "END", str(error)), self.served])
            print(f"service: {error}; still serving {self.served.version}", file=sys.stderr)
            return
        old, self.served = self.served, new
        for folder in self._private.iterdir():
            if folder.is_dir() and folder.name not in (old.version, new.version):
                shutil.rmtree(folder)
        publish(self._private, [new, ModelStatus(old.version, "END")])
        print(f"Serving {pin.ARTIFACT} {version} from now on, instead of {old.version}", flush=True)

    def _verify(self, pinned: Pin) -> ModelStatus:
        """A private copy of the artifact, for as long as the service runs."""
        folder = self._private / pinned.version
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier try
        pin.copy(pinned, folder)
        return ModelStatus(pinned.version, "AVAILABLE", folder=str(folder))

    def _try(self, artifact: ModelStatus) -> None:
        trial = supervisor.start(engines.load, Path(artifact.folder), self._engine)
        trial.join(TRIAL)
        trial.kill()
        trial.join()
        if trial.exitcode != 0:
            raise PinError(
                f"the pinned artifact {artifact.version} cannot be loaded by {self._engine}; "
                "make another with `dvc repro`"
            )


def _look(lock: Path) -> list[tuple[str, int, int, int]]:
    """What changes whenever the lock or the artifact does, unless somebody hides it."""
    looks = []
    for file in (lock, *sorted((lock.parent / pin.ARTIFACT).rglob("*"))):
        try:
            stat = file.stat()
        except OSError:  # gone meanwhile
            continue
        looks.append((str(file), stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return looks
