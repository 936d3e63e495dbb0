"""Writes kafka.lock anew: `python -m local_cluster.relock`, after changing a version below."""

import hashlib
import tempfile
from pathlib import Path

from jgo.maven import MavenContext

from local_cluster.kafka_artifacts import LOCK, Artifact, download

KAFKA = "4.3.1"
# What Kafka itself asks for; it names the API and leaves the binding to whoever runs it.
LOG4J = Artifact("org.apache.logging.log4j", "log4j-slf4j-impl", "2.25.4", sha256="")


def main() -> None:
    """Resolve Kafka and its tools, fetch every jar, and pin what came."""
    with tempfile.TemporaryDirectory() as scratch:
        context = MavenContext(repo_cache=Path(scratch))
        # Its tools name Kafka Connect, which no tool of ours needs: 40 jars less.
        without = [context.project("org.apache.kafka", "connect-runtime")]
        inputs = [
            context.create_dependency(f"org.apache.kafka:{name}:{KAFKA}:jar:compile", without)
            for name in ("kafka_2.13", "kafka-tools")
        ]
        direct, transitive = context.resolver.resolve(inputs)
        # The log binding is not resolved with the rest: its own parent would pin Kafka's clients.
        found = [Artifact(d.groupId, d.artifactId, d.version, "") for d in (*direct, *transitive)]
        lines = [
            f"{hashlib.sha256(download(jar, Path(scratch)).read_bytes()).hexdigest()}  "
            f"{jar.group}:{jar.name}:{jar.version}"
            for jar in sorted((*found, LOG4J), key=lambda jar: jar.filename)
        ]
    LOCK.write_text(f"# Kafka {KAFKA} and its tools. Made by local_cluster/relock.py.\n")
    with LOCK.open("a") as lock:
        lock.writelines(f"{line}\n" for line in lines)


if __name__ == "__main__":
    main()
