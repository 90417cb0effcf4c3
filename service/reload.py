"""Follow dvc.lock: when it pins a new artifact, check that artifact and publish it to the workers.

The main process verifies the new artifact and loads it once in a separate process. If a check
fails, the workers keep the old artifact, and the log, the metrics and `GET /v1/models/mnist` report
the failure.
"""

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from multiprocessing.context import ForkProcess
from pathlib import Path
from threading import Event, Thread

from service import supervisor
from service.recognition import engines, pin
from service.recognition.pin import Pin, PinError
from service.shadow import Artifact, Trial

PERIOD = 1  # seconds between checks, in the main process and in the workers
FILE = "published.json"
TRIAL_TIMEOUT = 120  # seconds to load an artifact; TensorFlow takes a few

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelStatus:
    """The state of an artifact, in the terms of TensorFlow Serving."""

    version: str
    status: str  # LOADING, AVAILABLE or END
    error: str = ""  # the reason, if the service refused the artifact
    folder: str = ""  # the verified copy, while the artifact is AVAILABLE
    sha256: str = ""  # the SHA-256 of its manifest; empty if it is pinned by MD5 only

    def __str__(self) -> str:
        return pin.describe(self.version, self.sha256)


def publish(private: Path, statuses: list[ModelStatus]) -> None:
    """Write the states of the artifacts for the workers, in one atomic step.

    Args:
        private: A folder that only this service can write to.
        statuses: The states. Exactly one of them is AVAILABLE.
    """
    new = private / f"{FILE}.new"
    new.write_text(json.dumps([asdict(status) for status in statuses]))
    new.replace(private / FILE)


def published(private: Path) -> list[ModelStatus]:
    """Read the states that `publish` wrote to a folder."""
    return [ModelStatus(**status) for status in json.loads((private / FILE).read_text())]


def available(statuses: list[ModelStatus]) -> ModelStatus:
    """Return the state of the artifact to serve."""
    return next(status for status in statuses if status.status == "AVAILABLE")


class Watcher(Thread):
    """A thread that checks which artifact dvc.lock pins, every second or on request."""

    def __init__(
        self,
        read: Callable[[], Pin],
        name: str,
        lock: Path,
        engine: str,
        private: Path,
        always: bool,
        begin_trial: Callable[[Artifact, Artifact], Trial] | None = None,
    ) -> None:
        """Verify and publish the artifact that is pinned now.

        Args:
            read: A function that reads the pin.
            name: How the log names the artifact.
            lock: The path of the lock file.
            engine: The inference library, `litert` or `tensorflow`.
            private: A folder that only this service can write to.
            always: Whether to check every second. Otherwise only `wake` starts a check.
            begin_trial: A function from the served and the new artifact to a trial that the new one
                must pass unless it has been in service before, or None if no artifact needs one.

        Raises:
            PinError: No artifact is pinned, or the files on disk differ from it.
        """
        super().__init__(name="watcher", daemon=True)
        self._read = read
        self._name = name
        self._lock = lock
        self._engine = engine
        self._private = private
        self._always = always
        self._begin_trial = begin_trial
        self._woken = Event()
        self._stopped = False
        self._trying: ForkProcess | None = None  # the process that tries an artifact
        self._checked = _snapshot(lock)
        self.served = self._verify(self._read())
        self._kept = {self.served.folder}
        self._proven = {self.served}  # the artifacts that have been in service
        publish(private, [self.served])

    def wake(self) -> None:
        """Check now."""
        self._woken.set()

    def stop(self) -> None:
        """Stop checking, and end the process that tries an artifact."""
        self._stopped = True
        while self.is_alive():
            if self._trying:
                self._trying.kill()
            self.wake()
            self.join(0.1)

    def try_to_load(self, artifact: ModelStatus) -> None:
        """Load a verified artifact once, in a separate process.

        Raises:
            PinError: The engine cannot load it.
        """
        self._trying = trial = supervisor.start(engines.load, Path(artifact.folder), self._engine)
        trial.join(TRIAL_TIMEOUT)
        trial.kill()
        trial.join()
        if trial.exitcode != 0:
            raise PinError(
                f"{self._engine} cannot load the pinned artifact {artifact.version}; "
                "make another with `dvc repro`"
            )

    def run(self) -> None:
        before = self._checked
        while True:
            woken = self._woken.wait(PERIOD if self._always else None)
            if self._stopped:
                return
            self._woken.clear()
            now = _snapshot(self._lock)
            # Wait until two snapshots are equal: another program may still be writing.
            if woken or (now == before and now != self._checked):
                self._checked = now
                try:
                    self._update(woken)
                    self._remove_folders()
                except Exception:
                    logger.exception(
                        "The check for a new artifact failed; still serving the old one"
                    )
            before = now

    def _update(self, woken: bool) -> None:
        version = ""
        try:
            pinned = self._read()
            version = pinned.version
            if (version, pinned.sha256) == (self.served.version, self.served.sha256):
                publish(self._private, [self.served])
                if woken:
                    as_before = "as before: no other artifact is pinned"
                    logger.info("Serving %s %s %s", self._name, version, as_before)
                return
            publish(self._private, [ModelStatus(version, "LOADING"), self.served])
            new = self._verify(pinned)
            self.try_to_load(new)
            if self._begin_trial and new not in self._proven:
                if not self._passes(self._begin_trial, new):
                    return
                self._proven.add(new)
        except PinError as error:
            if self._stopped:  # `stop` has ended the process
                return
            publish(self._private, [ModelStatus(version, "END", str(error)), self.served])
            logger.error("%s; still serving %s", error, self.served.version)
            return
        old, self.served = self.served, new
        self._kept = {old.folder, new.folder}  # a worker may still be loading the old one
        # The artifact in service comes last: if two have one MD5, TensorFlow Serving's interface
        # shows the last.
        publish(self._private, [replace(old, status="END", folder=""), new])
        logger.info("Serving %s %s from now on, instead of %s", self._name, new, old.version)

    def _passes(self, begin_trial: Callable[[Artifact, Artifact], Trial], new: ModelStatus) -> bool:
        """Wait for the end of a trial.

        Returns:
            True if the artifact may take over, and False if there is another check to do first, or
            if the service stops.

        Raises:
            PinError: The artifact may not take over.
        """
        logger.info("Trying %s %s in the shadow of %s", self._name, new, self.served.version)
        served, tried = (Artifact(each.version, Path(each.folder)) for each in (self.served, new))
        trial = begin_trial(served, tried)
        self._trying = trial.process
        found = None
        try:
            while found is None:
                found = trial.result(PERIOD)
                if self._stopped:
                    return False
                changed = self._always and _snapshot(self._lock) != self._checked
                if changed or self._woken.is_set():
                    logger.info("Stopping the trial of %s to check again", new.version)
                    self._checked = []  # so that the next check takes place in any case
                    publish(self._private, [self.served])
                    return False
        finally:
            trial.stop()
        logger.info("%s %s gave %s", self._name, new.version, found)
        return True

    def _remove_folders(self) -> None:
        """Remove the copies of artifacts that the service has refused or no longer serves."""
        for folder in self._private.iterdir():
            if folder.is_dir() and str(folder) not in self._kept:
                shutil.rmtree(folder)

    def _verify(self, pinned: Pin) -> ModelStatus:
        """Copy the artifact to the private folder, and verify the copy."""
        folder = self._private / f"{pinned.version}{pinned.sha256}"
        shutil.rmtree(folder, ignore_errors=True)  # an earlier attempt may have left it
        pin.copy(pinned, folder)
        return ModelStatus(pinned.version, "AVAILABLE", folder=str(folder), sha256=pinned.sha256)


def _snapshot(lock: Path) -> list[tuple[str, int, int, int]]:
    """Return the inode, size and modification time of the lock file, manifest and artifact files.

    An edit that restores all three escapes the snapshot.
    """
    snapshot = []
    artifact = (lock.parent / pin.ARTIFACT).rglob("*")
    for file in (lock, lock.parent / pin.MANIFEST, *sorted(artifact)):
        try:
            stat = file.stat()
        except OSError:  # the file has disappeared in the meantime
            continue
        snapshot.append((str(file), stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return snapshot
