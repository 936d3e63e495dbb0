from chassis.correlation import new_id
from contracts.users import TaskCreatedV1, UserSignedUpV1
from users_service.application.integration_events import translate
from users_service.domain.task import TaskCreated, TaskName
from users_service.domain.user import OperatorCreated, UserSignedUp
from users_service.domain.values import Username

from .people import NOW


class TestTranslate:
    def test_a_sign_up_tells_the_username_and_no_address(self) -> None:
        id_ = new_id()

        told = translate(UserSignedUp(id_, Username("kate"), occurred_at=NOW))

        assert told == UserSignedUpV1(user_id=id_, username="kate")

    def test_a_task_tells_whose_it_is(self) -> None:
        id_, assignee_id = new_id(), new_id()

        told = translate(TaskCreated(id_, TaskName("Rest"), assignee_id, occurred_at=NOW))

        assert told == TaskCreatedV1(task_id=id_, assignee_id=assignee_id, name="Rest")

    def test_nobody_is_told_of_an_operator(self) -> None:
        assert translate(OperatorCreated(new_id(), occurred_at=NOW)) is None
