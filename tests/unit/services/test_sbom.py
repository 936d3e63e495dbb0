"""The list of what is installed, which the image contains."""

import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Final

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from services import sbom

ROOT: Final = Path(sbom.__file__).parents[1]


def test_it_is_valid_and_names_each_package_with_its_version(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sbom.main()

    printed = capsys.readouterr().out
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(printed) is None
    purls = [each["purl"] for each in json.loads(printed)["components"]]
    assert f"pkg:pypi/pydantic-core@{version('pydantic_core')}" in purls
    assert len(set(purls)) == len(purls)


def test_the_image_says_its_version_and_where_its_list_is() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    project = (ROOT / "pyproject.toml").read_text()

    assert re.findall(r"(?m)^ARG VERSION=(.*)$", dockerfile) == re.findall(
        r'(?m)^version = "(.*)"$', project
    )
    (path,) = re.findall(r"services\.sbom > (\S+)", dockerfile)
    assert f'kafka-native-onboarding.sbom="{path}"' in dockerfile
