"""Ids that every process agrees on."""

import uuid

from hypothesis import given
from hypothesis import strategies as st

from converge_producer import intent_id
from converge_producer.wire import INTENT_NAMESPACE

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


def test_a_test_intent_has_an_id_of_its_own() -> None:
    assert intent_id("demo", "store", "k", test=True) != intent_id("demo", "store", "k")


def test_an_id_never_changes_between_releases() -> None:
    assert (
        str(intent_id("demo", "store", "order-991-shipped"))
        == "78f45e14-82e9-5caf-a747-f1f41a0fba55"
    )
