"""Conditional requests: whether a client has the newest answer already (RFC 9110, 13.1.2)."""

import re
from typing import Final

# A tag may contain a comma, so the list is not split at commas.
_TAG: Final = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')


def is_known(tag: str, if_none_match: str | None) -> bool:
    """Return whether the client that sent this field has the answer with this entity tag.

    Tags are compared weakly: a proxy that compresses an answer makes its tag a weak one.

    :param tag: in its quotation marks, without ``W/``
    :param if_none_match: the header field of the request; None: it has none
    """
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or tag in _TAG.findall(if_none_match)
