from chassis.correlation import new_id
from contracts.users import TaskCreatedV1, UserSignedUpV1
from users_service.application.integration_events import translate
from users_service.domain.task import TaskCreated, TaskName
from users_service.domain.user import OperatorCreated, UserSignedUp
from users_service.domain.values import Username

from .people import NOW


class TestTranslate:
    def test_a_sign_up_is_published_with_the_username_and_no_address(self) -> None:
        id_ = new_id()

        published = translate(UserSignedUp(id_, Username("kate"), occurred_at=NOW))

        assert published == [UserSignedUpV1(user_id=id_, username="kate")]

    def test_a_task_is_published_with_its_assignee(self) -> None:
        id_, assignee_id = new_id(), new_id()

        published = translate(TaskCreated(id_, TaskName("Rest"), assignee_id, occurred_at=NOW))

        assert published == [TaskCreatedV1(task_id=id_, assignee_id=assignee_id, name="Rest")]

    def test_an_operator_is_not_published(self) -> None:
        assert translate(OperatorCreated(new_id(), occurred_at=NOW)) == []
