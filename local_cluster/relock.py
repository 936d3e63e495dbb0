"""Writes kafka.lock again: `python -m local_cluster.relock`, after changing a version below."""

import hashlib
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from jgo.maven import MavenContext

from local_cluster.kafka_artifacts import LOCK, Artifact, download

KAFKA = "4.3.1"
# The version that Kafka uses; it depends on the logging API only, not on a binding.
LOG4J = Artifact("org.apache.logging.log4j", "log4j-slf4j-impl", "2.25.4", sha256="")
# Its tools depend on Kafka Connect, which the tools we use do not need: 40 jars less.
_CONNECT = "org.apache.kafka:connect-runtime"


def main() -> None:
    """Pin Kafka, its tools, and their dependencies."""
    pin(
        LOCK,
        f"Kafka {KAFKA} and its tools. Made by local_cluster/relock.py.",
        [f"org.apache.kafka:{name}:{KAFKA}" for name in ("kafka_2.13", "kafka-tools")],
        without=[_CONNECT],
        # The log binding is not resolved with the rest: its parent would pin Kafka's clients.
        also=[LOG4J],
    )


def pin(
    lock: Path,
    title: str,
    coordinates: Sequence[str],
    *,
    without: Iterable[str] = (),
    also: Iterable[Artifact] = (),
) -> None:
    """Resolve ``group:name:version`` with dependencies, fetch every jar, and pin its digest.

    :param without: ``group:name`` that is left out, with the dependencies that only it needs
    :param also: jars that are added without their dependencies
    """
    with tempfile.TemporaryDirectory() as scratch:
        context = MavenContext(repo_cache=Path(scratch))
        left_out = [context.project(*each.split(":")) for each in without]
        inputs = [
            context.create_dependency(f"{each}:jar:compile", left_out) for each in coordinates
        ]
        direct, transitive = context.resolver.resolve(inputs)
        found = [Artifact(d.groupId, d.artifactId, d.version, "") for d in (*transitive, *direct)]
        # A named version goes before the version that a dependency names.
        chosen = {(jar.group, jar.name): jar for jar in (*found, *also)}
        lines = [
            f"{hashlib.sha256(download(jar, Path(scratch)).read_bytes()).hexdigest()}  "
            f"{jar.group}:{jar.name}:{jar.version}"
            for jar in sorted(chosen.values(), key=lambda jar: jar.filename)
        ]
    lock.write_text(f"# {title}\n")
    with lock.open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


if __name__ == "__main__":
    main()
