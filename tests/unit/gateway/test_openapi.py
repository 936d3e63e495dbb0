from collections.abc import Sequence
from typing import Any

import pytest

from gateway.openapi import ApiDocument, merge
from gateway.routes import ForwardedRoute

ME = ForwardedRoute("GET", "/users/me", "users")
ACCOUNT = ForwardedRoute("GET", "/accounts/{account_id}", "accounts")
SCHEMA = "#/components/schemas/"


def document(
    path: str, answer: str, security: Sequence[dict[str, list[str]]] = (), **schemas: Any
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": f"of {path}",
        "responses": {
            "200": {"content": {"application/json": {"schema": {"$ref": SCHEMA + answer}}}}
        },
    }
    if security:
        operation["security"] = list(security)
    return {
        "paths": {path: {"get": operation}},
        "components": {
            "schemas": schemas,
            "securitySchemes": {name: {"type": "oauth2"} for each in security for name in each},
        },
    }


def answer_of(paths: dict[str, Any], path: str) -> str:
    content = paths[path]["get"]["responses"]["200"]["content"]
    reference: str = content["application/json"]["schema"]["$ref"]
    return reference.removeprefix(SCHEMA)


class TestMerge:
    def test_only_public_paths_are_in_it(self) -> None:
        users = document("/users/me", "User", User={"type": "object"})
        users["paths"]["/ops/parked"] = users["paths"]["/users/me"]

        paths, _ = merge({"users": users}, [ME])

        assert list(paths) == ["/users/me"]

    def test_an_operation_has_the_gateways_own_answers_beside_its_services(self) -> None:
        users = document("/users/me", "User", User={})
        responses = users["paths"]["/users/me"]["get"]["responses"]
        responses |= {"409": {}, "4XX": {"content": {}}, "5XX": {"content": {}}}

        paths, _ = merge({"users": users}, [ME])

        described = paths["/users/me"]["get"]["responses"]
        assert list(described) == ["200", "409", "429", "4XX", "502", "503", "504", "5XX"]
        assert described["504"] == {"content": {}, "description": "Gateway Timeout"}

    def test_an_operation_is_tagged_with_its_service_unless_it_has_a_tag(self) -> None:
        users = document("/users/me", "User", User={})

        accounts = document(ACCOUNT.path, "Account", Account={})
        accounts["paths"][ACCOUNT.path]["get"]["tags"] = ["money"]

        paths, _ = merge({"users": users, "accounts": accounts}, [ME, ACCOUNT])

        assert paths["/users/me"]["get"]["summary"] == "of /users/me"
        assert paths["/users/me"]["get"]["tags"] == ["users"]
        assert paths[ACCOUNT.path]["get"]["tags"] == ["money"]

    def test_components_are_followed_and_others_left_out(self) -> None:
        users = document(
            "/users/me",
            "User",
            User={"properties": {"task": {"$ref": SCHEMA + "Task"}}},
            Task={"type": "string"},
            Hidden={"type": "integer"},
        )

        _, components = merge({"users": users}, [ME])

        assert components["schemas"].keys() == {"User", "Task"}

    def test_a_component_that_refers_to_itself_is_followed_once(self) -> None:
        users = document(
            "/users/me", "Task", Task={"properties": {"after": {"$ref": SCHEMA + "Task"}}}
        )

        _, components = merge({"users": users}, [ME])

        assert components["schemas"].keys() == {"Task"}

    def test_what_is_the_same_everywhere_is_there_once(self) -> None:
        users = document("/users/me", "Problem", Problem={"type": "object"})
        accounts = document(ACCOUNT.path, "Problem", Problem={"type": "object"})

        _, components = merge({"users": users, "accounts": accounts}, [ME, ACCOUNT])

        assert components["schemas"] == {"Problem": {"type": "object"}}

    def test_what_differs_gets_its_service_before_its_name(self) -> None:
        users = document("/users/me", "View", View={"title": "a user"})
        accounts = document(ACCOUNT.path, "View", View={"title": "an account"})

        paths, components = merge({"users": users, "accounts": accounts}, [ME, ACCOUNT])

        assert components["schemas"] == {
            "users.View": {"title": "a user"},
            "accounts.View": {"title": "an account"},
        }
        assert answer_of(paths, "/users/me") == "users.View"
        assert answer_of(paths, ACCOUNT.path) == "accounts.View"

    def test_a_component_that_refers_to_one_that_differs_differs_too(self) -> None:
        page = {"items": {"$ref": SCHEMA + "Item"}}
        users = document("/users/me", "Page", Page=page, Item={"title": "a task"})
        accounts = document(ACCOUNT.path, "Page", Page=page, Item={"title": "an entry"})

        paths, components = merge({"users": users, "accounts": accounts}, [ME, ACCOUNT])

        assert answer_of(paths, "/users/me") == "users.Page"
        assert components["schemas"]["users.Page"] == {"items": {"$ref": SCHEMA + "users.Item"}}
        assert components["schemas"]["accounts.Page"] == {
            "items": {"$ref": SCHEMA + "accounts.Item"}
        }

    def test_a_discriminator_follows_a_renamed_component(self) -> None:
        either = {"discriminator": {"mapping": {"a": SCHEMA + "View"}}}
        users = document("/users/me", "Either", Either=either, View={"title": "a user"})
        accounts = document(ACCOUNT.path, "View", View={"title": "an account"})

        _, components = merge({"users": users, "accounts": accounts}, [ME, ACCOUNT])

        assert components["schemas"]["Either"]["discriminator"]["mapping"] == {
            "a": SCHEMA + "users.View"
        }

    def test_an_authorisation_that_is_the_same_in_all_services_is_there_once(self) -> None:
        bearer: dict[str, list[str]] = {"Bearer": []}
        users = document("/users/me", "View", [bearer], View={})
        accounts = document(ACCOUNT.path, "View", [bearer], View={})

        paths, components = merge({"users": users, "accounts": accounts}, [ME, ACCOUNT])

        assert components["securitySchemes"] == {"Bearer": {"type": "oauth2"}}
        assert paths["/users/me"]["get"]["security"] == [{"Bearer": []}]

    def test_authorisations_that_differ_get_their_service_before_their_name(self) -> None:
        bearer: dict[str, list[str]] = {"Bearer": []}
        users = document("/users/me", "View", [bearer], View={})
        accounts = document(ACCOUNT.path, "View", [bearer], View={})
        accounts["components"]["securitySchemes"]["Bearer"] = {"type": "http"}

        paths, _ = merge({"users": users, "accounts": accounts}, [ME, ACCOUNT])

        assert paths["/users/me"]["get"]["security"] == [{"users.Bearer": []}]


@pytest.fixture
def api() -> ApiDocument:
    return ApiDocument(title="Both", description="Both.", version="1", routes=[ME, ACCOUNT])


class TestApiDocument:
    def test_it_names_the_services_that_are_not_in_it_yet(self, api: ApiDocument) -> None:
        api.learn("users", document("/users/me", "User", User={}))

        merged = api.merged()

        assert merged["x-missing-services"] == ["accounts"]
        assert "accounts" in merged["info"]["description"]
        assert list(merged["paths"]) == ["/users/me"]

    def test_a_service_may_change_what_it_offers(self, api: ApiDocument) -> None:
        api.learn("users", document("/users/me", "User", User={"title": "old"}))

        api.learn("users", document("/users/me", "User", User={"title": "new"}))

        assert api.merged()["components"]["schemas"]["User"] == {"title": "new"}

    def test_what_is_no_document_leaves_the_last_one_in_place(self, api: ApiDocument) -> None:
        api.learn("users", document("/users/me", "User", User={}))
        dangling = document("/users/me", "Nowhere")

        with pytest.raises(KeyError):
            api.learn("users", dangling)
        api.learn("accounts", document(ACCOUNT.path, "Account", Account={}))

        assert api.merged()["x-missing-services"] == []
        assert api.merged()["components"]["schemas"].keys() == {"User", "Account"}
