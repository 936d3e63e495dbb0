from pathlib import Path

import pytest

from local_cluster.testing import RunningInfrastructure

from .project import Project


@pytest.fixture
def project(
    tmp_path: Path, run_directory: Path, embedded_postgres: RunningInfrastructure
) -> Project:
    """A copy of the repository; its tests share the servers of this run."""
    assert embedded_postgres.directory.is_relative_to(run_directory)
    return Project.copied(tmp_path / "project", run_directory)
