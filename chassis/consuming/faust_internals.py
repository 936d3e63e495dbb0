"""The private names and versions of Faust and aiokafka that the chunk transport relies on."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Final

import faust
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.group_coordinator import GroupCoordinator
from faust.tables.manager import TableManager
from faust.transport.drivers import aiokafka as driver
from mode.threads import ServiceThread, WorkerThread

# The versions whose source was read, and the names that the transport uses or overrides.
_VERSIONS: Final = {"faust-streaming": "0.15.3", "mode-streaming": "0.7.1", "aiokafka": "0.14.0"}
_NAMES: Final[Mapping[type, Sequence[str]]] = {
    driver.AIOKafkaConsumerThread: (
        "_create_worker_consumer",
        "_ensure_consumer",
        "call_thread",
        "getmany",
        "highwater",
        "on_partitions_revoked",
    ),
    driver.Consumer: (
        "_new_consumer_thread",
        "crash",
        "force_commit",
        "seek_to_committed",
        "verify_event_path",
    ),
    driver.Transport: ("Consumer",),
    Fetcher: ("error_future",),
    GroupCoordinator: ("check_errors", "request_rejoin"),
    ServiceThread: ("Worker", "stop"),
    TableManager: ("on_start", "sleep"),
    WorkerThread: ("run",),
    faust.Schema: ("loads_key", "loads_value"),
}


def check_faust_internals() -> None:
    """Check that the installed Faust and aiokafka are those that the transport was written for.

    :raises RuntimeError: naming the version or the name that differs
    """
    for package, known in _VERSIONS.items():
        if (found := version(package)) != known:
            raise RuntimeError(f"{package} is {found}; the chunk transport was written for {known}")
    for owner, names in _NAMES.items():
        for name in names:
            if not hasattr(owner, name):
                raise RuntimeError(f"{owner.__name__}.{name} is gone; the chunk transport needs it")
