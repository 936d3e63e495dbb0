"""The state of the cluster names what each process reports that does not work."""

import io
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from local_cluster.display import print_status
from local_cluster.processes import ProcessStatus
from local_cluster.status import ClusterReport, ProcessReport, Trouble, _report, _troubles_of

REASON = "users.user[3] can't be read at offset 17: its CRC does not match"


class TestTroubles:
    @pytest.mark.parametrize(
        ("answer", "expected"),
        [
            (httpx.Response(200, json={"status": "ready", "troubles": {}}), []),
            (
                httpx.Response(200, json={"status": "ready", "troubles": {"agents": REASON}}),
                [Trouble("audit", "agents", REASON)],
            ),
            (
                httpx.Response(503, json={"errors": [{"field": "database", "message": "OSError"}]}),
                [Trouble("audit", "database", "OSError")],
            ),
            (httpx.Response(502, text="no"), [Trouble("audit", "http", "JSONDecodeError")]),
        ],
        ids=["none", "of what does not gate", "of what gates", "no answer of ours"],
    )
    async def test_are_those_that_a_process_reports(
        self, answer: httpx.Response, expected: list[Trouble]
    ) -> None:
        transport = httpx.MockTransport(lambda request: answer)
        async with httpx.AsyncClient(transport=transport) as client:
            assert await _troubles_of(client, "audit", "http://audit") == expected

    async def test_include_a_process_that_does_not_answer(self) -> None:
        def refuse(request: httpx.Request) -> httpx.Response:
            raise httpx.ConnectError("refused")

        async with httpx.AsyncClient(transport=httpx.MockTransport(refuse)) as client:
            assert await _troubles_of(client, "audit", "http://audit") == [
                Trouble("audit", "http", "ConnectError")
            ]

    @pytest.mark.parametrize(
        ("troubles", "well"), [([], True), ([Trouble("audit", "agents", REASON)], False)]
    )
    def test_are_not_well(self, troubles: list[Trouble], *, well: bool) -> None:
        report = ClusterReport(
            up=True, processes=[], troubles=troubles, lags=[], outboxes={}, logs="logs"
        )

        assert report.well is well

    def test_are_shown(self) -> None:
        shown = io.StringIO()
        report = ClusterReport(
            up=True,
            processes=[],
            troubles=[Trouble("audit", "agents", REASON)],
            lags=[],
            outboxes={},
            logs="logs",
        )

        print_status(Console(file=shown, width=200), report)

        assert REASON in shown.getvalue()
        assert 'see: make ops ARGS="audit progress show"\n' in shown.getvalue()


class TestAProcess:
    def reported(self, tmp_path: Path, early_deaths: int) -> ProcessReport:
        log = tmp_path / "users.log"
        log.write_text("USERS_HTTP_PORT: is no number\n")
        running = ProcessStatus("users", "running", 0, 0.0, 5, 28101, "exit code 2", early_deaths)
        return _report(running, log)

    def test_that_keeps_dying_is_not_running_and_its_last_error_is_shown(
        self, tmp_path: Path
    ) -> None:
        process = self.reported(tmp_path, early_deaths=2)
        shown = io.StringIO()
        report = ClusterReport(
            up=True, processes=[process], troubles=[], lags=[], outboxes={}, logs="logs"
        )

        print_status(Console(file=shown, width=200), report)

        assert process.state == "keeps dying"
        assert not report.well
        assert "users said last: USERS_HTTP_PORT: is no number" in shown.getvalue()

    def test_that_died_once_is_running(self, tmp_path: Path) -> None:
        process = self.reported(tmp_path, early_deaths=1)

        assert (process.state, process.last_error) == ("running", None)
