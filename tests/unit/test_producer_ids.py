"""Ids that every process agrees on, and fingerprints that tell changed content."""

import copy
import json
import random
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converge_producer import fingerprint, intent_id
from converge_producer.wire import INTENT_NAMESPACE
from tests.unit.test_producer_validation import FULL

NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=60)


@given(brand=NAMES, sender=st.none() | NAMES, key=NAMES)
def test_an_id_is_the_uuid5_of_brand_sender_and_key(
    brand: str, sender: str | None, key: str
) -> None:
    name = "\x1f".join((brand, sender or "", key))
    assert intent_id(brand, sender, key) == uuid.uuid5(INTENT_NAMESPACE, name)


@given(st.lists(st.tuples(NAMES, NAMES, NAMES), min_size=2, max_size=2, unique=True))
def test_no_two_triples_share_an_id(triples: list[tuple[str, str, str]]) -> None:
    assert intent_id(*triples[0]) != intent_id(*triples[1])


def test_a_rehearsal_has_an_id_of_its_own() -> None:
    assert intent_id("demo", "store", "k", test=True) != intent_id("demo", "store", "k")


def test_an_id_never_changes_between_releases() -> None:
    assert (
        str(intent_id("demo", "store", "order-991-shipped"))
        == "78f45e14-82e9-5caf-a747-f1f41a0fba55"
    )


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
