"""``python -m services.sbom``: prints the packages that this Python has installed (CycloneDX)."""

import json
from importlib.metadata import Distribution, distributions
from typing import Any


def main() -> None:
    """Print it as JSON, the same for the same packages."""
    components = sorted(map(_component, distributions()), key=lambda each: str(each["purl"]))
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "components": components,
    }
    print(json.dumps(bom, indent=1))  # noqa: T201 - that is what it is for


def _component(package: Distribution) -> dict[str, Any]:
    # As a package's URL writes it (the purl specification, "pypi").
    purl = f"pkg:pypi/{package.name.lower().replace('_', '-')}@{package.version}"
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": package.name,
        "version": package.version,
        "purl": purl,
    }
    stated = package.metadata
    if "License-Expression" in stated:
        component["licenses"] = [{"expression": stated["License-Expression"]}]
    # Some give the whole text.
    elif "License" in stated and "\n" not in stated["License"]:
        component["licenses"] = [{"license": {"name": stated["License"]}}]
    return component


if __name__ == "__main__":
    main()
