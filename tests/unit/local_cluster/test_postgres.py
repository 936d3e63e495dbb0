"""What a PostgreSQL that was killed left behind."""

import os
from pathlib import Path

from local_cluster.postgres import Postgres


class TestAServerThatIsGone:
    def test_its_mark_is_removed_although_its_process_id_lives_on(self, tmp_path: Path) -> None:
        mark = tmp_path / "postgres" / "data" / "postmaster.pid"
        mark.parent.mkdir(parents=True)
        mark.write_text(f"{os.getpid()}\n/somewhere\n")

        Postgres(tmp_path, 1, tmp_path, {}).prepare()

        assert not mark.exists()
