"""What the API page offers to someone who signs up: its examples are accepted as they are."""

from users_service.entrypoints.http import SignUpBody


def test_the_examples_of_a_sign_up_are_accepted_and_are_what_a_person_would_type() -> None:
    properties = SignUpBody.model_json_schema()["properties"]
    # Of what may be left out, the schema is one of several.
    schemas = {name: each.get("anyOf", [each])[0] for name, each in properties.items()}
    examples = {name: schema["examples"][0] for name, schema in schemas.items()}

    body = SignUpBody.model_validate(examples)

    assert body.username.value == "ada.lovelace"
    assert body.email.value == "ada@example.com"
    assert len(set(body.password.value)) > 8, "no row of asterisks"
