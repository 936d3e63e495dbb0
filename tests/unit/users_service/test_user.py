from chassis.correlation import new_id
from users_service.domain.user import OperatorCreated, Role, User, UserSignedUp
from users_service.domain.values import EmailAddress, PasswordHash, Username

from .people import NOW, someone


class TestSignUp:
    def test_it_is_recorded_once(self) -> None:
        user = someone("kate")

        assert list(user.take_events()) == [UserSignedUp(user.id, user.username, occurred_at=NOW)]
        assert list(user.take_events()) == []

    def test_the_new_user_is_active_and_has_no_role(self) -> None:
        user = someone("kate")

        assert user.active
        assert user.roles == frozenset()


class TestCreateOperator:
    def test_they_are_operators_who_did_not_sign_up(self) -> None:
        operator = User.create_operator(
            new_id(),
            username=Username("root"),
            email=EmailAddress("root@localhost"),
            password_hash=PasswordHash("hash"),
            now=NOW,
        )

        assert operator.roles == {Role.OPERATOR}
        assert list(operator.take_events()) == [OperatorCreated(operator.id, occurred_at=NOW)]


class TestReplaceHash:
    def test_the_new_one_takes_the_place_of_the_old(self) -> None:
        user = someone(password_hash=PasswordHash("old"))

        user.replace_hash(PasswordHash("old"), PasswordHash("new"))

        assert user.password_hash == PasswordHash("new")

    def test_a_password_changed_meanwhile_stays(self) -> None:
        user = someone(password_hash=PasswordHash("changed meanwhile"))

        user.replace_hash(PasswordHash("old"), PasswordHash("new"))

        assert user.password_hash == PasswordHash("changed meanwhile")
