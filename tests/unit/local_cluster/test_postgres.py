"""The pid file that a killed PostgreSQL left."""

import os
from pathlib import Path

from local_cluster.postgres import Postgres


class TestAPidFile:
    def test_of_a_killed_server_is_removed_although_its_process_id_is_in_use(
        self, tmp_path: Path
    ) -> None:
        pid_file = tmp_path / "postgres" / "data" / "postmaster.pid"
        pid_file.parent.mkdir(parents=True)
        pid_file.write_text(f"{os.getpid()}\n/somewhere\n")

        Postgres(tmp_path, 1, tmp_path, {}).prepare()

        assert not pid_file.exists()
