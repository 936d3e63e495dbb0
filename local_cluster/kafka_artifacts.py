"""Kafka's jars: pinned by version and SHA-256, fetched once per user, checked before each start."""

import fcntl
import hashlib
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from local_cluster.errors import ClusterError

LOCK = Path(__file__).with_name("kafka.lock")
_DOWNLOADS_AT_ONCE = 8
_TIMEOUT_S = 60
_REPORT_EACH = 10


@dataclass(frozen=True, slots=True)
class Artifact:
    """One jar in the lock file."""

    group: str
    name: str
    version: str
    sha256: str

    @property
    def filename(self) -> str:
        return f"{self.group}.{self.name}-{self.version}.jar"


def read_lock(lock: Path = LOCK) -> tuple[Artifact, ...]:
    """Return the pinned jars: lines of ``sha256  group:name:version``."""
    artifacts = []
    for line in lock.read_text().splitlines():
        if not line.startswith("#"):
            digest, coordinate = line.split()
            group, name, version = coordinate.split(":")
            artifacts.append(Artifact(group, name, version, digest))
    return tuple(artifacts)


def kafka_jars(
    cache: Path, report: Callable[[str], None], artifacts: tuple[Artifact, ...] | None = None
) -> tuple[Path, ...]:
    """Return the jars of Kafka's class path, as ``jars`` does."""
    return jars(cache / "kafka", report, read_lock() if artifacts is None else artifacts)


def jars(
    folder: Path, report: Callable[[str], None], wanted: Sequence[Artifact]
) -> tuple[Path, ...]:
    """Return jars, each checked, and fetched into the folder if missing.

    :raises ClusterError: a jar has another digest than the lock file, or could not be fetched
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [artifact for artifact in wanted if not (folder / artifact.filename).exists()]
    if missing:
        report(f"fetching {len(missing)} jars")
        _fetch(missing, folder, report)
    with ThreadPoolExecutor() as pool:
        return tuple(
            pool.map(lambda artifact: _checked(folder / artifact.filename, artifact), wanted)
        )


def _checked(jar: Path, artifact: Artifact) -> Path:
    with jar.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != artifact.sha256:
        raise ClusterError(
            f"{jar} is not {artifact.name} {artifact.version} as pinned (SHA-256 {found[:12]}…, "
            f"expected {artifact.sha256[:12]}…): remove it to have it fetched again"
        )
    return jar


def _fetch(missing: list[Artifact], folder: Path, report: Callable[[str], None]) -> None:
    with (folder / ".lock").open("w") as lock, tempfile.TemporaryDirectory(dir=folder) as scratch:
        fcntl.flock(lock, fcntl.LOCK_EX)

        def fetch(artifact: Artifact) -> None:
            target = folder / artifact.filename
            if not target.exists():  # another cluster may have fetched it while we waited
                # Renamed after the check, so that a jar of this name is always complete and right.
                _checked(download(artifact, Path(scratch)), artifact).replace(target)

        with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as pool:
            for number, _ in enumerate(pool.map(fetch, missing), 1):
                if number % _REPORT_EACH == 0:
                    report(f"fetched {number} of {len(missing)} jars")


def download(artifact: Artifact, folder: Path) -> Path:
    """Fetch one jar into ``folder``, from the repositories of the user's jgo settings."""
    # The import takes a quarter of a second, which only a first start needs.
    from jgo.config import GlobalSettings  # noqa: PLC0415
    from jgo.maven import MavenContext  # noqa: PLC0415
    from truststore import inject_into_ssl  # noqa: PLC0415

    # What the system trusts too, as pip does: a proxy may sign with an authority of its own.
    inject_into_ssl()
    mirrors = GlobalSettings.load().repositories or None
    context = MavenContext(repo_cache=folder, remote_repos=mirrors, timeout=_TIMEOUT_S)
    component = context.project(artifact.group, artifact.name).at_version(artifact.version)
    try:
        return Path(component.artifact().resolve())
    except (OSError, RuntimeError) as error:
        raise ClusterError(
            f"{artifact.name} {artifact.version} could not be fetched: {_reason(error)}"
        ) from error


def _reason(error: Exception) -> str:
    if "CERTIFICATE_VERIFY_FAILED" not in str(error):
        return str(error)
    return (
        "the certificate is not trusted. Where a proxy signs with an authority of its own, add that"
        " to the system's, or name its file in REQUESTS_CA_BUNDLE"
    )
