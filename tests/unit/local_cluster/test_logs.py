"""Logs are merged by time, shown to people or as JSON, and followed."""

import json
from pathlib import Path

import pytest

from local_cluster import supervisor
from local_cluster.errors import ClusterError
from local_cluster.logs import _Followed, find_logs, last_error, show_logs
from local_cluster.supervisor import rotate


def service_line(second: int, event: str, **more: object) -> str:
    stamp = f"2026-11-30T02:27:{second:02}.123456Z"
    return json.dumps({"event": event, "level": "info", "timestamp": stamp} | more) + "\n"


def kafka_line(second: int, text: str) -> str:
    return f"2026-11-30T02:27:{second:02}.123Z INFO BrokerServer {text}\n"


def postgres_line(second: int, text: str) -> str:
    return f"2026-11-30 02:27:{second:02}.123 UTC [17] LOG:  {text}\n"


def write(folder: Path, **logs: str) -> list[Path]:
    for name, text in logs.items():
        (folder / f"{name}.log").write_text(text)
    return [folder / f"{name}.log" for name in logs]


class TestTheEnd:
    def test_of_all_logs_is_shown_in_the_order_of_time(self, tmp_path: Path) -> None:
        logs = write(
            tmp_path,
            users=service_line(1, "first") + service_line(4, "fourth"),
            kafka=kafka_line(2, "second"),
            postgres=postgres_line(3, "third"),
        )

        shown = [line.process for line in show_logs(logs, 50, follow=False)]

        assert shown == ["users", "kafka", "postgres", "users"]

    def test_is_as_many_lines_as_asked_for(self, tmp_path: Path) -> None:
        logs = write(
            tmp_path,
            users="".join(service_line(each, "u") for each in (1, 3)),
            kafka="".join(kafka_line(each, "k") for each in (2, 4)),
        )

        assert [line.process for line in show_logs(logs, 2, follow=False)] == ["users", "kafka"]

    def test_lines_without_a_time_stay_with_the_line_before(self, tmp_path: Path) -> None:
        logs = write(
            tmp_path,
            kafka=kafka_line(1, "failed") + "\tat Broker.main\n",
            users=service_line(2, "later"),
        )

        shown = [line.text for line in show_logs(logs, 50, follow=False)]

        assert shown[1] == "\tat Broker.main"

    def test_goes_on_in_what_was_there_before_the_log_was_emptied(self, tmp_path: Path) -> None:
        (log,) = write(tmp_path, users=service_line(2, "after"))
        (tmp_path / "users.log.1").write_text(service_line(1, "before"))

        shown = [line.text for line in show_logs([log], 50, follow=False)]

        assert [json.loads(text)["event"] for text in shown] == ["before", "after"]

    def test_bytes_that_are_no_text_do_not_stop_it(self, tmp_path: Path) -> None:
        (tmp_path / "one.log").write_bytes(b"\xff\n")

        (line,) = show_logs([tmp_path / "one.log"], 5, follow=False)

        assert line.text == "\N{REPLACEMENT CHARACTER}"


class TestALine:
    def shown(self, tmp_path: Path, text: str) -> str:
        (line,) = show_logs(write(tmp_path, users=text), 5, follow=False)
        return line.for_people(8)

    def test_of_a_service_is_readable(self, tmp_path: Path) -> None:
        text = service_line(1, "request", status=201, correlation_id=None, reason="a b")

        assert self.shown(tmp_path, text) == (
            '02:27:01.123 users    info    request  status=201 reason="a b"'
        )

    def test_with_an_exception_has_its_traceback_below(self, tmp_path: Path) -> None:
        text = service_line(1, "failed", exception="Traceback\nOSError: no")

        assert self.shown(tmp_path, text).endswith("failed\nTraceback\nOSError: no")

    def test_of_postgresql_has_its_time_once(self, tmp_path: Path) -> None:
        assert self.shown(tmp_path, postgres_line(1, "ready")) == (
            "02:27:01.123 users    [17] LOG:  ready"
        )

    @pytest.mark.parametrize("text", [service_line(1, "ready"), kafka_line(1, "ready"), "ready\n"])
    def test_as_json_is_an_object_with_its_process(self, tmp_path: Path, text: str) -> None:
        (line,) = show_logs(write(tmp_path, users=text), 5, follow=False)

        document = json.loads(line.as_json())

        assert document["process"] == "users"
        assert "ready" in document["event"]


class TestFollowing:
    def test_what_is_added_is_shown(self, tmp_path: Path) -> None:
        (log,) = write(tmp_path, one="before\n")
        shown = show_logs([log], 1, follow=True)
        assert next(shown).text == "before"

        with log.open("a") as more:
            more.write("after\n")

        assert next(shown).text == "after"

    def test_a_line_is_shown_once_it_is_whole(self, tmp_path: Path) -> None:
        (log,) = write(tmp_path, one="")
        followed = _Followed(log)

        with log.open("a", buffering=1) as more:
            more.write("half and ")
            more.flush()
            first = followed.new()
            more.write("half\n")
            second = followed.new()
        followed.close()

        assert (first, [line.text for line in second]) == ([], ["half and half"])

    @pytest.mark.parametrize("way", ["renamed", "emptied"])
    def test_after_a_log_was_rotated_it_goes_on(self, tmp_path: Path, way: str) -> None:
        (log,) = write(tmp_path, one="before it was rotated\n")
        shown = show_logs([log], 1, follow=True)
        assert next(shown).text == "before it was rotated"

        if way == "renamed":
            log.replace(tmp_path / "one.log.1")
        log.write_text("after\n")

        assert next(shown).text == "after"


class TestNames:
    def test_several_are_found_and_all_without_any(self, tmp_path: Path) -> None:
        logs = write(tmp_path, kafka="", postgres="", users="")

        assert find_logs(tmp_path, ["users", "kafka"]) == [logs[2], logs[0]]
        assert find_logs(tmp_path, []) == logs

    def test_for_one_without_a_log_those_that_have_one_are_named(self, tmp_path: Path) -> None:
        write(tmp_path, kafka="", users="")

        with pytest.raises(ClusterError, match="no log of user; there are: kafka, users"):
            find_logs(tmp_path, ["user", "kafka"])


class TestTheLastError:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (
                service_line(1, "failed", level="error", exception="Traceback\nOSError: no disk")
                + service_line(2, "stopped"),
                "failed: OSError: no disk",
            ),
            (service_line(1, "ready") + "Traceback:\nOSError: no disk\n\n", "OSError: no disk"),
            ("USERS_HTTP_PORT: is not a number\n", "USERS_HTTP_PORT: is not a number"),
            ("", "it wrote nothing"),
        ],
        ids=["logged", "a traceback", "a wrong setting", "nothing"],
    )
    def test_is_found(self, tmp_path: Path, text: str, expected: str) -> None:
        (log,) = write(tmp_path, users=text)

        assert last_error(log) == expected


class TestRotating:
    def test_a_full_log_is_emptied_while_its_process_writes_on(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(supervisor, "LOG_BYTES", 10)
        log = tmp_path / "one.log"
        with log.open("ab", buffering=0) as process:
            process.write(b"more than ten bytes\n")

            rotate(log)
            process.write(b"after\n")
            rotate(log)

        assert (tmp_path / "one.log.1").read_text() == "more than ten bytes\n"
        assert log.read_text() == "after\n"
