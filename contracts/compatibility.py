"""Finds the changes of a published contract that would break a reader of the same version."""

from collections.abc import Iterator, Mapping

from contracts.json_schemas import Json

# Explanations: no reader depends on them.
_ANNOTATIONS = frozenset({"title", "description", "examples", "deprecated", "$comment"})
_COMPARED_BY_NAME = frozenset({"properties", "required", "$defs"})


def breaking_schema_changes(old: Mapping[str, Json], new: Mapping[str, Json]) -> list[str]:
    """One line per change of a schema, by name, that exists before and after.

    The log keeps old events and old readers stay deployed, so both directions count: old
    readers with new events, new readers with old ones. That leaves a field that may be
    absent as the only thing to add.
    """
    return [
        line
        for name in sorted(old.keys() & new.keys())
        for line in _changes(old[name], new[name], name)
    ]


def breaking_catalogue_changes(old: Json, new: Json) -> list[str]:
    """One line per change between two AsyncAPI documents that would break a topic's readers."""
    lines = []
    for name, before in sorted(old["channels"].items()):
        after = new["channels"].get(name)
        if after is None:
            lines.append(f"topic {name}: removed")
            continue
        if after["x-key"] != before["x-key"]:
            lines.append(f"topic {name}: keyed by {after['x-key']}, was {before['x-key']}")
        partitions_before, partitions_after = _partitions(before), _partitions(after)
        if partitions_after < partitions_before:
            lines.append(
                f"topic {name}: partitions lowered from {partitions_before} to {partitions_after}"
            )
        if before["x-consumers"]:
            readers = ", ".join(before["x-consumers"])
            lines += [
                f"topic {name}: {event_type} removed, while read by {readers}"
                for event_type in sorted(before["messages"].keys() - after["messages"].keys())
            ]
    return lines


def _partitions(channel: Json) -> int:
    partitions: int = channel["bindings"]["kafka"]["partitions"]
    return partitions


def _changes(old: Json, new: Json, path: str) -> Iterator[str]:
    old_fields, new_fields = old.get("properties", {}), new.get("properties", {})
    for field in sorted(old_fields):
        if field in new_fields:
            yield from _changes(old_fields[field], new_fields[field], f"{path}.{field}")
        else:
            yield f"{path}.{field}: removed"

    old_required, new_required = set(old.get("required", [])), set(new.get("required", []))
    for field in sorted(new_required - old_required):
        yield f"{path}.{field}: required now, and older events lack it"
    for field in sorted(old_required - new_required):
        if field in new_fields:
            yield f"{path}.{field}: may be absent now, and older readers rely on it"

    old_models, new_models = old.get("$defs", {}), new.get("$defs", {})
    for model in sorted(old_models.keys() & new_models.keys()):
        yield from _changes(old_models[model], new_models[model], f"{path}#{model}")

    for keyword in sorted((old.keys() | new.keys()) - _COMPARED_BY_NAME - _ANNOTATIONS):
        before, after = (_meaning(schema.get(keyword)) for schema in (old, new))
        if before != after:
            yield f"{path}: {keyword} is {after!r}, was {before!r}"


def _meaning(value: object) -> object:
    """A keyword's value without the annotations in it."""
    if isinstance(value, dict):
        return {key: _meaning(v) for key, v in value.items() if key not in _ANNOTATIONS}
    if isinstance(value, list):
        return [_meaning(item) for item in value]
    return value
