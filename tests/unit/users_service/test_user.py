from chassis.correlation import new_id
from users_service.domain.user import Identity, OperatorCreated, Role, User, UserSignedUp
from users_service.domain.values import EmailAddress, PasswordHash, Username

from .people import NOW, a_user


class TestSignUp:
    def test_it_is_recorded_once(self) -> None:
        user = a_user("kate")

        assert list(user.take_events()) == [
            UserSignedUp(user.id, user.identity.username, occurred_at=NOW)
        ]
        assert list(user.take_events()) == []

    def test_the_new_user_is_active_and_has_no_role(self) -> None:
        user = a_user("kate")

        assert user.active
        assert user.roles == frozenset()


class TestCreateOperator:
    def test_an_operator_is_created_without_a_sign_up(self) -> None:
        identity = Identity(Username("root"), EmailAddress("root@localhost"), PasswordHash("hash"))

        operator = User.create_operator(new_id(), identity, NOW)

        assert operator.roles == {Role.OPERATOR}
        assert list(operator.take_events()) == [OperatorCreated(operator.id, occurred_at=NOW)]


class TestReplaceHash:
    def test_the_new_hash_replaces_the_old_one(self) -> None:
        user = a_user(password_hash=PasswordHash("old"))

        user.replace_hash(PasswordHash("old"), PasswordHash("new"))

        assert user.identity.password_hash == PasswordHash("new")

    def test_the_hash_of_a_changed_password_is_not_replaced(self) -> None:
        user = a_user(password_hash=PasswordHash("of another password"))

        user.replace_hash(PasswordHash("old"), PasswordHash("new"))

        assert user.identity.password_hash == PasswordHash("of another password")
