"""Other versions of Faust and aiokafka are refused at the start, and the reason is named."""

import pytest
from faust.transport.drivers import aiokafka as driver

from chassis.consuming import faust_internals
from chassis.consuming.faust_internals import check_faust_internals


class TestTheLibraries:
    def test_are_those_that_are_known(self) -> None:
        check_faust_internals()

    def test_of_another_version_are_refused_by_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(faust_internals._VERSIONS, "faust-streaming", "0.0.1")

        with pytest.raises(RuntimeError, match=r"faust-streaming is .*written for 0\.0\.1"):
            check_faust_internals()

    def test_of_which_a_name_is_gone_are_refused_by_name(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr(driver.AIOKafkaConsumerThread, "_create_worker_consumer")

        with pytest.raises(RuntimeError, match="_create_worker_consumer is gone"):
            check_faust_internals()
