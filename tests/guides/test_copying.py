"""Who begins from a copy as docs/copying.md says has a suite that is green."""

import pytest

from .project import OF_THE_WHOLE, Project

PAGE = "docs/copying.md"

pytestmark = pytest.mark.timeout(600)


def test_a_copy_is_renamed_loses_a_service_and_takes_over_a_later_version(project: Project) -> None:
    copy = project.cloned(project.root.with_name("copy"))
    copy.follow(PAGE, "Begin", tests=())
    copy.follow(PAGE, "Rename it", tests=())
    copy.follow(
        PAGE,
        "Take a service out",
        tests=(
            *OF_THE_WHOLE,
            "tests/contract",
            "tests/unit/verification",
            "tests/unit/local_cluster",
            "tests/unit/gateway",
            "tests/unit/services",
            "tests/integration/test_one_trace.py",
        ),
    )
    assert copy.run("git", "ls-files", "notification_service") == ""
    later = project.root / "chassis" / "clock.py"
    later.write_text(f"{later.read_text()}\n\n# A later version.\n")
    (project.root / "notification_service" / "README.md").write_text("Changed later.\n")
    project.commit()

    copy.follow(PAGE, "Keep up with the chassis", tests=OF_THE_WHOLE)

    assert "# A later version." in (copy.root / "chassis" / "clock.py").read_text()
    assert copy.run("git", "ls-files", "notification_service") == ""
    assert copy.run("git", "status", "--short") == ""
