import pytest

from gateway.routes import OPERATOR_ROUTES, PUBLIC_ROUTES, ForwardedRoute

ACCOUNT = ForwardedRoute("GET", "/users/{user_id}/account", "accounts")


class TestPathForTheService:
    def test_an_id_stands_where_the_template_has_it(self) -> None:
        assert ACCOUNT.path_for({"user_id": "0190-a"}) == "/users/0190-a/account"

    @pytest.mark.parametrize("value", [".", ".."])
    def test_a_parameter_that_would_leave_its_segment_leads_nowhere(self, value: str) -> None:
        assert ACCOUNT.path_for({"user_id": value}) is None

    @pytest.mark.parametrize(
        ("value", "segment"),
        [
            ("../ops", "..%2Fops"),
            ("a?role=operator", "a%3Frole%3Doperator"),
            ("a#b", "a%23b"),
            ("%2e%2e", "%252e%252e"),
            ("a\r\nX-Evil: 1", "a%0D%0AX-Evil%3A%201"),
            ("a\\b", "a%5Cb"),
            ("…", "%E2%80%A6"),
        ],
    )
    def test_what_a_client_writes_stays_within_its_segment(self, value: str, segment: str) -> None:
        assert ACCOUNT.path_for({"user_id": value}) == f"/users/{segment}/account"

    def test_an_operators_path_is_the_services_own(self) -> None:
        release = ForwardedRoute("POST", "/ops/accounts/parked/{parked_id}/release", "accounts")

        assert release.path_for({"parked_id": "0190-a"}) == "/ops/parked/0190-a/release"
        assert release.path_for({"parked_id": "../x"}) == "/ops/parked/..%2Fx/release"


class TestTheTable:
    def test_no_method_and_path_is_answered_by_two_services(self) -> None:
        operations = [(each.method, each.path) for each in (*PUBLIC_ROUTES, *OPERATOR_ROUTES)]

        assert len(operations) == len(set(operations))

    def test_health_metrics_and_documents_of_services_are_not_public(self) -> None:
        paths = {route.path for route in (*PUBLIC_ROUTES, *OPERATOR_ROUTES)}

        assert paths.isdisjoint({"/health/live", "/health/ready", "/metrics", "/openapi.json"})
