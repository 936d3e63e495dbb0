"""Writes kafka.lock anew: `python -m local_cluster.relock`, after changing a version below."""

import hashlib
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from jgo.maven import MavenContext

from local_cluster.kafka_artifacts import LOCK, Artifact, download

KAFKA = "4.3.1"
# What Kafka itself asks for; it names the API and leaves the binding to whoever runs it.
LOG4J = Artifact("org.apache.logging.log4j", "log4j-slf4j-impl", "2.25.4", sha256="")
# Its tools name Kafka Connect, which no tool of ours needs: 40 jars less.
_CONNECT = "org.apache.kafka:connect-runtime"


def main() -> None:
    """Pin Kafka, its tools, and all that they need."""
    pin(
        LOCK,
        f"Kafka {KAFKA} and its tools. Made by local_cluster/relock.py.",
        [f"org.apache.kafka:{name}:{KAFKA}" for name in ("kafka_2.13", "kafka-tools")],
        without=[_CONNECT],
        # The log binding is not resolved with the rest: its own parent would pin Kafka's clients.
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
    """Resolve ``group:name:version`` with all that they need, fetch every jar, and pin what came.

    :param without: ``group:name`` that is left out, and what only it needs
    :param also: jars that are taken as they are
    """
    with tempfile.TemporaryDirectory() as scratch:
        context = MavenContext(repo_cache=Path(scratch))
        left_out = [context.project(*each.split(":")) for each in without]
        inputs = [
            context.create_dependency(f"{each}:jar:compile", left_out) for each in coordinates
        ]
        direct, transitive = context.resolver.resolve(inputs)
        found = [Artifact(d.groupId, d.artifactId, d.version, "") for d in (*transitive, *direct)]
        # What is asked for by name goes before what something else asks for.
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
