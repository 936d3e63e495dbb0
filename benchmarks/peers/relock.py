"""Writes the peers' lock files again: `python -m benchmarks.peers.relock`, after a new version."""

from pathlib import Path
from typing import Final

from local_cluster.relock import pin

DEBEZIUM: Final = "3.6.0.Final"
JDBC_SINK: Final = "3.3.1.Final"
# The Kafka Connect that each was built with.
_DEBEZIUM_KAFKA: Final = "4.3.0"
_JDBC_SINK_KAFKA: Final = "4.1.0"
_LOG: Final = "org.slf4j:slf4j-simple:1.7.36"
# Drivers of databases that are not used here.
_OTHER_DRIVERS: Final = (
    "com.ibm.db2:jcc",
    "com.microsoft.sqlserver:mssql-jdbc",
    "com.mysql:mysql-connector-j",
    "com.oracle.database.jdbc:ojdbc11",
    "org.mariadb.jdbc:mariadb-java-client",
)


def main() -> None:
    """Pin Kafka Connect with each connector, and all their dependencies."""
    here = Path(__file__).parent
    pin(
        here / "debezium.lock",
        f"Debezium {DEBEZIUM} for PostgreSQL. Made by benchmarks/peers/relock.py.",
        [
            *_connect(_DEBEZIUM_KAFKA),
            f"io.debezium:debezium-connector-postgres:{DEBEZIUM}",
            _LOG,
        ],
    )
    pin(
        here / "jdbc_sink.lock",
        f"Debezium's JDBC sink {JDBC_SINK}. Made by benchmarks/peers/relock.py.",
        [*_connect(_JDBC_SINK_KAFKA), f"io.debezium:debezium-connector-jdbc:{JDBC_SINK}", _LOG],
        without=_OTHER_DRIVERS,
    )


def _connect(version: str) -> list[str]:
    return [f"org.apache.kafka:connect-{name}:{version}" for name in ("runtime", "json")]


if __name__ == "__main__":
    main()
