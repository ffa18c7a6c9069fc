"""Documents as JSON at accept: the fast way says what the exact one says; fingerprints tell changed
content."""

import copy
import json
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.usecases.intake.packing import fingerprint, pack
from converge_producer import InvalidIntent, validate_intent
from converge_producer.wire import encode
from tests.unit.test_producer_validation import FULL

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), JSON))
def test_what_is_packed_says_the_same(document: dict[str, Any]) -> None:
    try:
        exact = encode(document)
        exact.encode()
    except ValueError:  # half a surrogate pair
        with pytest.raises(ValueError, match="surrogates"):
            pack(document).encode()
        return
    assert json.loads(pack(document)) == json.loads(exact)


@pytest.mark.parametrize("value", [math.nan, math.inf, {1, 2}, "\ud800"])
def test_what_is_no_json_is_refused_as_the_producer_refuses_it(value: Any) -> None:
    document = {**FULL, "data": {"value": value}}
    with pytest.raises(InvalidIntent) as exact:
        validate_intent(document)
    with pytest.raises(InvalidIntent) as fast:
        validate_intent(document, None, pack)
    assert str(fast.value) == str(exact.value)


def test_numbers_of_any_size_are_packed_and_told_apart() -> None:
    large = {"data": {"n": 2**80}}
    assert json.loads(pack(large)) == large
    assert fingerprint(large) != fingerprint({"data": {"n": 2**80 + 1}})


def test_a_fingerprint_is_blind_to_order_nulls_defaults_key_and_the_customers_facts() -> None:
    print_of = fingerprint(FULL)
    assert len(print_of) == 16
    shuffled = list(FULL.items())
    random.Random(7).shuffle(shuffled)
    assert fingerprint(dict(shuffled)) == print_of
    assert fingerprint({name: v for name, v in FULL.items() if v is not None}) == print_of
    bare = {name: v for name, v in FULL.items() if name not in ("kind", "urgency", "key")}
    assert fingerprint(bare) == print_of
    assert fingerprint({**FULL, "to": {"ref": "cust-42", "name": "Ada"}}) == print_of
    assert fingerprint(json.loads(json.dumps(FULL))) == print_of


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("to",), "cust-43"),
        (("topic",), "billing"),
        (("kind",), "conversational"),
        (("urgency",), "urgent"),
        (("policy",), "loud"),
        (("data", "name"), "Grace"),
        (("content", "text"), "Hello"),
        (("content", "overrides", "sms"), "Other"),
        (("expires_at",), "2031-01-01T00:00:00Z"),
    ],
)
def test_a_fingerprint_changes_with_what_the_customer_would_notice(
    path: tuple[str, ...], value: Any
) -> None:
    changed = copy.deepcopy(FULL)
    inner = changed
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    assert fingerprint(changed) != fingerprint(FULL)
