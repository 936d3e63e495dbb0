"""Creates the ACLs that the catalogue gives, through aiokafka, which has no method for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import for_code
from aiokafka.protocol.admin import CreateAclsRequest, DescribeAclsRequest

from chassis.kafka.shown import until_shown
from contracts.acls import Acl, Operation, Pattern, Resource

_ANY: Final = 1
_ALLOW: Final = 3
_EVERY_HOST: Final = "*"
_EVERYBODY: Final = "*"


@dataclass(frozen=True, slots=True)
class Granted:
    """What was created, and what else the same logins, or others at the same things, may do."""

    created: Sequence[Acl]
    others: Sequence[str]


async def create_acls(client: AIOKafkaAdminClient, wanted: Sequence[Acl]) -> Granted:
    """Create those that are missing, and wait until the broker shows them; none is ever removed.

    :raises KafkaError: the cluster has no authorizer, or refuses one
    :raises NotShown: it has taken them, and does not show them
    """
    existing = await _existing(client)
    entries = {_entry(each): each for each in wanted}
    missing = [entry for entry in entries if entry not in existing]
    for resource, name, pattern, *rest in missing:
        request = CreateAclsRequest(resource, name, pattern, *rest)
        answer = await client._send_request(request)  # noqa: SLF001 - see above
        for code, message in answer.creation_responses:
            _raise_for(code, message)

    async def missing_still() -> list[str]:
        return [_words(each) for each in set(missing) - await _existing(client)]

    if missing:
        await until_shown(missing_still)
    principals = {principal for _, _, _, principal, *_ in entries} | {_principal(_EVERYBODY)}
    things = {(resource, name) for resource, name, *_ in entries}
    others = [
        _words(each)
        for each in existing - entries.keys()
        if each[3] in principals or (each[0], each[1]) in things
    ]
    return Granted([entries[each] for each in missing], sorted(others))


_Entry = tuple[int, str, int, str, str, int, int]


def _entry(acl: Acl) -> _Entry:
    of = (acl.resource.value, acl.name, acl.pattern.value, _principal(acl.login))
    return (*of, _EVERY_HOST, acl.operation.value, _ALLOW)


def _principal(login: str) -> str:
    return f"User:{login}"


async def _existing(client: AIOKafkaAdminClient) -> set[_Entry]:
    everything: Any = DescribeAclsRequest(_ANY, None, _ANY, None, None, _ANY, _ANY)
    answer = await client._send_request(everything)  # noqa: SLF001 - as above
    _raise_for(answer.error_code, answer.error_message)
    return {
        (resource, name, pattern, *entry)
        for resource, name, pattern, entries in answer.resources
        for entry in entries
    }


def _words(entry: _Entry) -> str:
    resource, name, pattern, principal, host, operation, permission = entry
    kind = Resource(resource).name if resource in {*Resource} else f"resource {resource}"
    what = Operation(operation).name if operation in {*Operation} else f"operation {operation}"
    names = f"{name}*" if pattern == Pattern.PREFIXED else name
    may = "may" if permission == _ALLOW else "may not"
    return f"{principal} from {host} {may} {what} {kind} {names}"


def _raise_for(code: int, message: str | None) -> None:
    if code != 0:
        raise for_code(code)(message or "")
