import pytest

from chassis.correlation import new_id
from users_service.domain.errors import InvalidTaskName
from users_service.domain.task import TaskCreated, TaskName

from .people import NOW, a_task


class TestTaskName:
    def test_it_is_one_trimmed_line_of_up_to_50_characters(self) -> None:
        assert TaskName.parse(f" {'x' * 50}\n").value == "x" * 50

    @pytest.mark.parametrize("text", ["", "   ", "x" * 51, "two\nlines", "nul\x00"])
    def test_anything_else_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidTaskName):
            TaskName.parse(text)


class TestTask:
    def test_its_creation_is_recorded(self) -> None:
        assignee_id = new_id()

        task = a_task(assignee_id, "Read the manual")

        assert list(task.take_events()) == [
            TaskCreated(task.id, TaskName("Read the manual"), assignee_id, occurred_at=NOW)
        ]
