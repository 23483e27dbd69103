"""Objects of Kubernetes, read by the models of its own client, which know every field there is."""

import json
from types import SimpleNamespace
from typing import Any

from kubernetes.client import ApiClient


def read_back(value: Any, kind: str) -> Any:
    """Return an object as the client's models read it; every field must be known to them."""
    plain = ApiClient().sanitize_for_serialization(value)
    found = ApiClient().deserialize(SimpleNamespace(data=json.dumps(plain)), kind)
    assert ApiClient().sanitize_for_serialization(found) == _without_nothing(plain)
    return found


def _without_nothing(value: Any) -> Any:
    """Return a value without what is null, which no server distinguishes from what is absent."""
    if isinstance(value, dict):
        return {key: _without_nothing(each) for key, each in value.items() if each is not None}
    return [_without_nothing(each) for each in value] if isinstance(value, list) else value
