"""Writes a new service: a package that runs, its tests, and its lines in the files that name it.

The service reads ``users.user``, keeps a row for each sign-up and answers a route for operators:
every part that a service has, to be replaced by what this one is for (docs/extending.md).
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from string import Template
from typing import Final

from local_cluster.errors import ClusterError
from local_cluster.new_service.edits import CannotEdit, after_last, before, with_consumer
from services import SERVICES

_TEMPLATES: Final = Path(__file__).with_name("templates")
_NAME: Final = re.compile(r"[a-z][a-z0-9]{1,20}")

_DECLARATION: Final = Template(
    """
[$name]
module = "${name}_service"
title = "when each user signed up"
port = $port
database = true
operator_routes = [
    "GET /$name/sign-ups/{user_id}",
]

[$name.settings]
JWKS_URL = "{url[users]}/.well-known/jwks.json"
"""
)

Edit = Callable[[str], str]


def write_service(root: Path, name: str) -> Iterator[str]:
    """Write the service into a repository, and yield the path of each file that was written.

    :raises ClusterError: the name does not fit or is taken, or a file is not as expected; nothing
        is written then
    """
    if not _NAME.fullmatch(name):
        raise ClusterError(f"{name}: a name has 2 to 21 of a-z 0-9, and begins with a letter")
    if name in {each.name for each in SERVICES} or (root / f"{name}_service").exists():
        raise ClusterError(f"{name}: there is such a service already")
    port = max(each.port for each in SERVICES) + 1
    words = {"name": name, "Name": name.capitalize(), "NAME": name.upper(), "port": str(port)}
    written = dict(_new_files(root, words)) | dict(_edited_files(root, words))
    for path, text in written.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        yield str(path.relative_to(root))


def _new_files(root: Path, words: dict[str, str]) -> Iterator[tuple[Path, str]]:
    package = f"{words['name']}_service"
    for folder, place in (
        ("package", root / package),
        ("unit", root / "tests" / "unit" / package),
        ("integration", root / "tests" / "integration" / package),
    ):
        for template in sorted((_TEMPLATES / folder).rglob("*.template")):
            relative = template.relative_to(_TEMPLATES / folder).with_suffix("")
            path = place / str(relative).replace("NAME", words["name"])
            yield path, Template(template.read_text(encoding="utf-8")).substitute(words)


def _edited_files(root: Path, words: dict[str, str]) -> Iterator[tuple[Path, str]]:
    name, package = words["name"], f"{words['name']}_service"
    operations = f"{words['NAME']}_OPERATIONS"
    topic = f'{operations} = _operations("{name}")'
    edits: dict[str, tuple[Edit, ...]] = {
        "services/services.toml": (lambda text: text + _DECLARATION.substitute(words),),
        "contracts/topics.py": (
            after_last(r"[A-Z0-9]+_OPERATIONS = _operations\(.*\)", topic),
            before(r"TOPICS: [^\n]*= \((?:\n    \w+,)+()\n\)", f"\n    {operations},"),
            with_consumer("USERS_USER", name),
        ),
        "pyproject.toml": (
            after_last(r'    "\w+_service",', f'    "{package}",'),
            after_last(r"    \| \w+_service", f"    | {package}"),
        ),
    }
    for file, changes in edits.items():
        text = (root / file).read_text(encoding="utf-8")
        for change in changes:
            try:
                text = change(text)
            except CannotEdit as error:
                raise ClusterError(f"{file} is not as expected: {error}") from None
        yield root / file, text
