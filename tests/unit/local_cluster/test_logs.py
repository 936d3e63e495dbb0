"""The last lines of each log are shown, and then new lines."""

from pathlib import Path

from local_cluster.logs import show_logs


class TestTheEnd:
    def test_the_last_lines_of_each_log_are_shown(self, tmp_path: Path) -> None:
        for name in ("one", "two"):
            (tmp_path / f"{name}.log").write_text("".join(f"{name} {n}\n" for n in range(10)))

        shown = list(show_logs([tmp_path / "one.log", tmp_path / "two.log"], 2, follow=False))

        assert shown == [("one", "one 8"), ("one", "one 9"), ("two", "two 8"), ("two", "two 9")]

    def test_bytes_that_are_no_text_do_not_stop_it(self, tmp_path: Path) -> None:
        (tmp_path / "one.log").write_bytes(b"\xff\n")

        assert list(show_logs([tmp_path / "one.log"], 5, follow=False)) == [
            ("one", "\N{REPLACEMENT CHARACTER}")
        ]


class TestFollowing:
    def test_what_is_added_is_shown(self, tmp_path: Path) -> None:
        log = tmp_path / "one.log"
        log.write_text("before\n")
        shown = show_logs([log], 1, follow=True)
        assert next(shown) == ("one", "before")

        with log.open("a") as more:
            more.write("after\n")

        assert next(shown) == ("one", "after")

    def test_after_a_log_was_renamed_the_new_one_is_followed(self, tmp_path: Path) -> None:
        log = tmp_path / "one.log"
        log.write_text("before\n")
        shown = show_logs([log], 1, follow=True)
        assert next(shown) == ("one", "before")

        log.replace(tmp_path / "one.log.1")
        log.write_text("after\n")

        assert next(shown) == ("one", "after")
