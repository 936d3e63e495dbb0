"""The files that are generated from the catalogue and committed, and whether they are current."""

import json
import re
from inspect import getdoc
from pathlib import Path

from contracts.acls import Operation, Pattern, Resource, acls_of
from contracts.asyncapi import asyncapi_document
from contracts.compatibility import breaking_catalogue_changes, breaking_schema_changes
from contracts.example_events import EXAMPLES
from contracts.example_rules import example_mistakes
from contracts.json_schemas import Json, json_schemas
from contracts.published import published
from contracts.topics import EVENTS, TOPICS

HERE = Path(__file__).parent

_TABLES = re.compile(r"(<!-- generated: (\w+) -->\n).*?(?=<!-- end of generated -->)", re.DOTALL)


def mistakes() -> list[str]:
    """What is wrong with the examples, and what to do about it."""
    return sorted(example_mistakes(EVENTS, EXAMPLES))


def breaking_changes(directory: Path = HERE) -> list[str]:
    """The changes in the code that break readers of the files committed in ``directory``."""
    committed = dict(published(directory))
    document = committed.pop("asyncapi.json", None)
    schemas = {Path(path).stem: schema for path, schema in committed.items()}
    lines = breaking_schema_changes(schemas, json_schemas())
    if document is not None:
        lines += breaking_catalogue_changes(document, asyncapi_document())
    return lines


def out_of_date(directory: Path = HERE) -> list[str]:
    """The files in ``directory``, by relative path, that are not as the code would write them."""
    wanted = _wanted(directory)
    return sorted(
        str(path.relative_to(directory))
        for path in wanted.keys() | _present(directory)
        if not path.exists() or path.read_text(encoding="utf-8") != wanted.get(path)
    )


def write(directory: Path = HERE) -> list[str]:
    """Bring the files in ``directory`` up to date, and return those that changed."""
    wanted = _wanted(directory)
    changed = out_of_date(directory)
    for path in (directory / name for name in changed):
        if path in wanted:
            path.parent.mkdir(exist_ok=True)
            path.write_text(wanted[path], encoding="utf-8")
        else:
            path.unlink()
    return changed


def _wanted(directory: Path) -> dict[Path, str]:
    readme = directory / "README.md"
    files = {
        directory / "asyncapi.json": _text(asyncapi_document()),
        readme: _TABLES.sub(
            lambda begin: begin[1] + _TABLES_NAMED[begin[2]](), readme.read_text(encoding="utf-8")
        ),
    }
    for name, schema in json_schemas().items():
        files[directory / "schemas" / f"{name}.json"] = _text(schema)
    for event_type, record in EXAMPLES.items():
        files[directory / "examples" / f"{event_type}.json"] = _text(json.loads(record.payload))
    return files


def _present(directory: Path) -> set[Path]:
    return {*directory.glob("schemas/*"), *directory.glob("examples/*")}


def _text(content: Json) -> str:
    return json.dumps(content, indent=2) + "\n"


def _catalogue_tables() -> str:
    lines = ["", "| topic | key | published by | read by | partitions | kept | events |"]
    lines.append("|---|---|---|---|---|---|---|")
    for topic in TOPICS:
        kept = "for ever" if topic.retention_ms is None else f"{topic.retention_ms} ms"
        events = "<br>".join(f"`{event.event_type}`" for event in topic.events)
        lines.append(
            f"| `{topic.name}` | {topic.key} | {topic.owner} | {', '.join(topic.consumers)} "
            f"| {topic.partitions} | {kept} | {events} |"
        )
    lines += ["", "| event | meaning | data |", "|---|---|---|"]
    for event_type, event in EVENTS.items():
        meaning = (getdoc(event) or "").partition("\n")[0]
        fields = ", ".join(f"`{field}`" for field in event.model_fields)
        lines.append(
            f"| `{event_type}` ([schema](schemas/{event_type}.json), "
            f"[example](examples/{event_type}.json)) | {meaning} | {fields} |"
        )
    return "\n".join([*lines, "", ""])


def _rights_table() -> str:
    """Return who may do what at Kafka, but for what a service may look at of what it reads."""
    acls = acls_of()
    lines = ["", "| login | writes to | reads | consumer groups |", "|---|---|---|---|"]
    for login in dict.fromkeys(each.login for each in acls):
        cells = [
            ", ".join(
                f"`{each.name}{'*' if each.pattern is Pattern.PREFIXED else ''}`"
                for each in acls
                if (each.login, each.resource, each.operation) == (login, resource, operation)
            )
            for resource, operation in (
                (Resource.TOPIC, Operation.WRITE),
                (Resource.TOPIC, Operation.READ),
                (Resource.GROUP, Operation.READ),
            )
        ]
        lines.append(f"| {login} | {' | '.join(cell or 'none' for cell in cells)} |")
    return "\n".join([*lines, "", ""])


_TABLES_NAMED = {"catalogue": _catalogue_tables, "rights": _rights_table}
