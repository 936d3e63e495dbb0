"""Who follows docs/extending.md to the letter ends with a suite that is green."""

import pytest

from .project import OF_THE_WHOLE, Project

PAGE = "docs/extending.md"
SYSTEM = "tests/integration/local_cluster/test_cluster.py::TestTheSystem"

pytestmark = pytest.mark.timeout(600)


def test_a_second_subscriber_to_an_event(project: Project) -> None:
    project.follow(
        PAGE,
        "A second subscriber to an event",
        tests=(
            *OF_THE_WHOLE,
            "tests/unit/accounts_service",
            "tests/integration/accounts_service/test_migrations.py",
            "tests/integration/accounts_service/test_opening.py",
            "tests/integration/accounts_service/test_parked.py",
            "tests/unit/verification",
        ),
    )


def test_an_event_and_then_a_command_with_its_route(project: Project) -> None:
    project.follow(
        PAGE,
        "An event",
        tests=(*OF_THE_WHOLE, "tests/contract", "tests/unit/users_service"),
    )
    project.commit()
    project.follow(
        PAGE,
        "A command with its route",
        tests=(
            "tests/unit/house/test_services.py",
            "tests/unit/gateway",
            "tests/unit/users_service",
            "tests/integration/users_service/test_migrations.py",
            "tests/integration/users_service/test_postgres.py",
            "tests/integration/gateway/test_public_paths.py",
        ),
    )


def test_a_new_version_of_an_event(project: Project) -> None:
    project.follow(
        PAGE,
        "A new version of an event",
        tests=(
            *OF_THE_WHOLE,
            "tests/contract",
            "tests/unit/users_service",
            "tests/unit/accounts_service",
            "tests/unit/notification_service",
            "tests/unit/verification",
        ),
    )


def test_a_service(project: Project) -> None:
    touched = ("services/services.toml", "contracts/topics.py", "pyproject.toml")
    generated = ("contracts/README.md", "contracts/asyncapi.json")

    project.follow(
        PAGE,
        "A service",
        tests=(
            *OF_THE_WHOLE,
            "tests/contract/test_generated_files.py",
            "tests/unit/local_cluster/test_topology.py",
            "tests/unit/gateway",
            "tests/unit/loyalty_service",
            "tests/integration/loyalty_service",
            "tests/integration/gateway/test_public_paths.py",
            f"{SYSTEM}::test_every_process_is_ready",
        ),
    )

    changed = project.run("git", "diff", "--name-only").split()
    assert sorted(changed) == sorted([*touched, *generated])
