"""Which versions of PostgreSQL the migrations accept."""

import pytest

from chassis.migrations import ServerTooOld, check_server


class TestTheServer:
    @pytest.mark.parametrize("version", [180_000, 180_006, 190_001])
    def test_of_version_18_or_newer_is_accepted(self, version: int) -> None:
        check_server(version)

    def test_that_is_older_is_refused_with_its_version(self) -> None:
        with pytest.raises(ServerTooOld, match=r"18 or newer is needed, and this is 17\.5"):
            check_server(170_005)
