"""Merges the services' OpenAPI documents: a listener's operations, and what they refer to."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final

from gateway.routes import ForwardedRoute

Document = Mapping[str, Any]
# Where a document keeps a component: its kind (schemas, securitySchemes, …) and its name.
Component = tuple[str, str]
Naming = Callable[[Component], str]

_COMPONENTS: Final = "#/components/"


class ApiDocument:
    """The merged document of all services whose documents are known."""

    def __init__(
        self, *, title: str, description: str, version: str, routes: Iterable[ForwardedRoute]
    ) -> None:
        self.title = title
        self.description = description
        self.routes = tuple(routes)
        self._info = {"title": title, "description": description, "version": version}
        self._known: dict[str, Document] = {}
        self._merged = self._merge(self._known)

    def learn(self, service: str, document: Document) -> None:
        """Replace a service's document by this one.

        :raises Exception: of any type, if it is not an OpenAPI document; nothing is changed then
        """
        if self._known.get(service) != document:
            known = {**self._known, service: document}
            self._merged = self._merge(known)
            self._known = known

    def merged(self) -> dict[str, Any]:
        """Return one document for the gateway; it does not contain ``x-missing-services`` yet."""
        return self._merged

    def _merge(self, known: Mapping[str, Document]) -> dict[str, Any]:
        missing = sorted({route.service for route in self.routes} - known.keys())
        info = dict(self._info)
        if missing:
            info["description"] += f"\n\n**Not described yet: {', '.join(missing)}.**"
        paths, components = merge(known, self.routes)
        return {
            "openapi": "3.1.0",
            "info": info,
            "x-missing-services": missing,
            "paths": paths,
            "components": components,
        }


def merge(
    documents: Mapping[str, Document], routes: Iterable[ForwardedRoute]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the paths of these routes and the components they need.

    Components of one name are merged if they are the same; else their service is put before the
    name.
    """
    operations = {
        route: operation
        for route in routes
        if (operation := _operation(documents.get(route.service, {}), route))
    }
    needed = {
        service: _reachable(document, (o for r, o in operations.items() if r.service == service))
        for service, document in documents.items()
    }
    clashing = _clashing(documents, needed)

    def naming(service: str) -> Naming:
        return lambda each: f"{service}.{each[1]}" if each in clashing else each[1]

    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for route, operation in operations.items():
        described = _operation_renamed(operation, naming(route.service))
        described["responses"] = dict(
            sorted((described.get("responses", {}) | _answers_of_ours(described)).items())
        )
        paths[route.path][route.method.lower()] = {"tags": [route.service], **described}
    components: dict[str, dict[str, Any]] = defaultdict(dict)
    for service, names in needed.items():
        name_of = naming(service)
        for kind, name in sorted(names):
            definition = _component(documents[service], (kind, name))
            components[kind][name_of((kind, name))] = _renamed(definition, name_of)
    return dict(paths), dict(components)


def _answers_of_ours(operation: Mapping[str, Any]) -> dict[str, Any]:
    """Return how the gateway's own refusals are described, as the service describes its own."""
    responses = operation.get("responses", {})
    return {
        status: responses[kind] | {"description": HTTPStatus(int(status)).phrase}
        for status, kind in (("429", "4XX"), ("502", "5XX"), ("503", "5XX"), ("504", "5XX"))
        if kind in responses
    }


def _operation(document: Document, route: ForwardedRoute) -> dict[str, Any] | None:
    path = document.get("paths", {}).get(route.service_path, {})
    operation: dict[str, Any] | None = path.get(route.method.lower())
    if operation is None or route.service_path == route.path or "operationId" not in operation:
        return operation
    # Every service has this operation, but an id must be unique.
    return operation | {"operationId": f"{route.service}_{operation['operationId']}"}


def _component(document: Document, component: Component) -> Any:
    kind, name = component
    return document["components"][kind][name]


def _reachable(document: Document, operations: Iterable[dict[str, Any]]) -> set[Component]:
    found: set[Component] = set()
    waiting: list[Any] = []
    for operation in operations:
        waiting.append(operation)
        found |= {("securitySchemes", name) for each in _security(operation) for name in each}
    while waiting:
        new = set(_references(waiting.pop())) - found
        found |= new
        waiting += [_component(document, each) for each in new]
    return found


def _clashing(
    documents: Mapping[str, Document], needed: Mapping[str, set[Component]]
) -> set[Component]:
    """Return the components that differ between the services that need them."""
    definitions: dict[Component, list[Any]] = defaultdict(list)
    for service, components in needed.items():
        for each in components:
            definitions[each].append(_component(documents[service], each))
    clashing: set[Component] = set()
    while True:
        # A component also differs if it refers to one that differs.
        more = {
            each
            for each, (first, *others) in definitions.items()
            if each not in clashing
            and others
            and (
                any(other != first for other in others)
                or not clashing.isdisjoint(_references(first))
            )
        }
        if not more:
            return clashing
        clashing |= more


def _references(node: Any) -> Iterator[Component]:
    if isinstance(node, dict | list):
        for value in node.values() if isinstance(node, dict) else node:
            yield from _references(value)
    elif (referred := _referred(node)) is not None:
        yield referred


def _renamed(node: Any, name_of: Naming) -> Any:
    """Return the node with each reference under its component's name in the merged document."""
    if isinstance(node, dict):
        return {key: _renamed(value, name_of) for key, value in node.items()}
    if isinstance(node, list):
        return [_renamed(value, name_of) for value in node]
    referred = _referred(node)
    return node if referred is None else f"{_COMPONENTS}{referred[0]}/{name_of(referred)}"


def _referred(node: Any) -> Component | None:
    # In $ref and in a discriminator's mapping; no other string in a document looks like this.
    if not isinstance(node, str) or not node.startswith(_COMPONENTS):
        return None
    kind, name = node.removeprefix(_COMPONENTS).split("/")
    return kind, name


def _operation_renamed(operation: dict[str, Any], name_of: Naming) -> dict[str, Any]:
    renamed: dict[str, Any] = _renamed(operation, name_of)
    if "security" in operation:
        renamed["security"] = [
            {name_of(("securitySchemes", name)): scopes for name, scopes in each.items()}
            for each in operation["security"]
        ]
    return renamed


def _security(operation: dict[str, Any]) -> list[dict[str, list[str]]]:
    security: list[dict[str, list[str]]] = operation.get("security", [])
    return security
