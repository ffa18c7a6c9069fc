"""What customers said of their addresses and time zone in person stands against the brand's lists,
which may be older than it."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from app.store.intents import ledger_now
from app.usecases.consent.preferences import change_preferences, correct_address, read_preferences
from app.usecases.consent.voices import Named, NoSuchCustomer, Voice
from app.usecases.operating.control import changes
from app.usecases.people.correcting import AddressChange
from app.usecases.people.customers import put_customers
from tests.store.conftest import House, customer, intent

ADA = Voice("preferences", own=True, actor="customer")
BRAND = Voice("api", own=False, actor="key abc")
MAIL, RIGHT, NUMBER = "ada@example.com", "right@example.com", "+12025550101"


@pytest.fixture
def ada(house: House) -> Named:
    """A customer with a mail address and a number."""
    brand = house.runtime.catalog().brands["demo"]
    put_customers(house.runtime, brand.id, [customer(phone=NUMBER, timezone="Europe/Berlin")])
    return Named(brand.id, "ada")


def addresses(house: House, ada: Named) -> list[str]:
    return [one["address"] for one in read_preferences(house.runtime, ada)["addresses"]]


def zone(house: House, ada: Named) -> Any:
    return read_preferences(house.runtime, ada)["timezone"]


def correct(house: House, ada: Named, old: str, new: str | None, voice: Voice = ADA) -> None:
    told = read_preferences(house.runtime, ada)["addresses"]
    (key,) = [one["id"] for one in told if one["address"] == old]
    correct_address(house.runtime, ada, AddressChange(key, new), voice)


def put(house: House, ada: Named, minutes: float | None = None, **facts: Any) -> str:
    """The brand's facts, as of so many minutes from now, or of no date."""
    with house.runtime.engine.begin() as connection:
        now = ledger_now(connection)
    dated = {} if minutes is None else {"as_of": (now + timedelta(minutes=minutes)).isoformat()}
    (verdict,) = put_customers(house.runtime, ada.brand_id, [{"ref": "ada", **facts, **dated}])
    return verdict.status


def test_an_address_that_was_removed_in_person_stays_away(house: House, ada: Named) -> None:
    correct(house, ada, MAIL, None)
    (verdict,) = house.accept(intent(customer(), policy="email-only"))
    assert (verdict.status, verdict.code) == ("refused", "no_endpoint")
    put(house, ada, email=[MAIL, RIGHT])
    assert addresses(house, ada) == [NUMBER, RIGHT]
    put(house, ada, email=MAIL)
    put(house, ada, -5, email=MAIL)
    assert addresses(house, ada) == [NUMBER]
    house.run()
    assert house.sink.messages == []
    assert put(house, ada, 5, email=MAIL) == "kept"  # known to be newer than the removal
    assert addresses(house, ada) == [MAIL, NUMBER]
    put(house, ada, email=None)
    put(house, ada, email=MAIL)  # the brand's own again
    assert addresses(house, ada) == [MAIL, NUMBER]


def test_an_address_that_was_corrected_in_person_is_the_one_that_is_used(
    house: House, ada: Named
) -> None:
    correct(house, ada, MAIL, RIGHT)
    house.accept(intent(customer(), policy="email-only"))
    house.run()
    assert [list(one.recipients) for one in house.sink.messages] == [[RIGHT]]
    put(house, ada, email=None)
    assert addresses(house, ada) == [NUMBER, RIGHT]
    put(house, ada, email="third@example.com")
    assert addresses(house, ada) == [NUMBER, RIGHT, "third@example.com"]
    put(house, ada, 5, email=MAIL)
    assert addresses(house, ada) == [MAIL, NUMBER]
    put(house, ada, email=RIGHT)
    assert addresses(house, ada) == [NUMBER, RIGHT]


def test_what_the_brand_corrects_is_the_brands(house: House, ada: Named) -> None:
    correct(house, ada, MAIL, RIGHT, BRAND)
    put(house, ada, email=MAIL)
    assert addresses(house, ada) == [MAIL, NUMBER]
    correct(house, ada, MAIL, None)
    told = read_preferences(house.runtime, ada)["addresses"]
    back = {"addresses": [*told, {"channel": "email", "address": MAIL}]}
    change_preferences(house.runtime, ada, back, BRAND)  # said of just this, and now
    assert addresses(house, ada) == [MAIL, NUMBER]
    put(house, ada, email=RIGHT)
    assert addresses(house, ada) == [NUMBER, RIGHT]


def test_a_time_zone_that_was_chosen_in_person_stays(house: House, ada: Named) -> None:
    put(house, ada, timezone="Europe/Paris")
    assert zone(house, ada) == "Europe/Paris"
    change_preferences(house.runtime, ada, {"timezone": "Asia/Tokyo"}, ADA)
    put(house, ada, timezone="Europe/Berlin", name="Ada")
    put(house, ada, -5, timezone="Europe/Berlin")
    house.accept(intent(customer(timezone="Europe/Berlin")))
    assert zone(house, ada) == "Asia/Tokyo"
    assert house.rows("SELECT name FROM customers")[0].name == "Ada"
    put(house, ada, 5, timezone="Europe/Berlin")
    assert zone(house, ada) == "Europe/Berlin"
    put(house, ada, timezone="Europe/Paris")
    assert zone(house, ada) == "Europe/Paris"


def test_a_time_zone_that_was_seen_and_left_is_the_brands(house: House, ada: Named) -> None:
    change_preferences(house.runtime, ada, {"timezone": "Europe/Berlin", "channels": ["sms"]}, ADA)
    put(house, ada, timezone="Europe/Paris")
    change_preferences(house.runtime, ada, {"timezone": "Asia/Tokyo"}, BRAND)
    put(house, ada, timezone="Europe/Paris")
    assert zone(house, ada) == "Europe/Paris"


def states(house: House) -> dict[str, str]:
    rows = house.rows("SELECT address, state FROM endpoints WHERE channel = 'email'")
    return {row.address: row.state for row in rows}


def test_an_address_that_bounced_can_be_replaced_and_given_again(house: House, ada: Named) -> None:
    house.execute("UPDATE endpoints SET state = 'invalid', reason = 'gone' WHERE channel = 'email'")
    put(house, ada, email=MAIL)  # a list that says it once more mends nothing
    assert states(house) == {MAIL: "invalid"}
    put(house, ada, email=RIGHT)
    assert states(house) == {MAIL: "removed", RIGHT: "active"}
    put(house, ada, email=MAIL)
    assert states(house) == {MAIL: "active", RIGHT: "removed"}
    assert read_preferences(house.runtime, ada)["addresses"][0]["reason"] is None


def test_the_brand_replaces_an_address_of_the_customer_that_bounced(
    house: House, ada: Named
) -> None:
    correct(house, ada, MAIL, RIGHT)
    house.execute("UPDATE endpoints SET state = 'invalid' WHERE state = 'active'")
    put(house, ada, email="third@example.com")
    assert states(house) == {MAIL: "removed", RIGHT: "removed", "third@example.com": "active"}


def bobs_number_is_agreed(house: House) -> bool:
    """Whether Bob's yes to marketing is one about his number."""
    (row,) = house.rows(
        """SELECT e.verified_at IS NOT NULL OR e.given_at < o.at AS agreed
             FROM customers c JOIN endpoints e ON e.customer_id = c.id
             JOIN consents o ON o.customer_id = c.id WHERE c.ref = 'bob' AND e.channel = 'sms'"""
    )
    return bool(row.agreed)


def test_a_number_that_is_typed_takes_nothing_from_others_until_it_is_verified(
    house: House, ada: Named
) -> None:
    other = "+12025550155"
    put_customers(house.runtime, ada.brand_id, [{"ref": "bob", "phone": other}])
    bob = Named(ada.brand_id, "bob")
    change_preferences(house.runtime, bob, {"marketing": True}, ADA)
    verified = [
        {**one, "verified": True} for one in read_preferences(house.runtime, bob)["addresses"]
    ]
    change_preferences(house.runtime, bob, {"addresses": verified}, BRAND)
    correct(house, ada, NUMBER, other)
    assert bobs_number_is_agreed(house)
    told = read_preferences(house.runtime, ada)["addresses"]
    known = [{**one, "verified": one["address"] == other} for one in told]
    change_preferences(house.runtime, ada, {"addresses": known}, BRAND)
    assert not bobs_number_is_agreed(house)
    change_preferences(house.runtime, bob, {"addresses": verified}, BRAND)  # he has it again
    change_preferences(house.runtime, ada, {"addresses": known}, BRAND)
    assert bobs_number_is_agreed(house)


def test_a_number_that_the_brand_gives_is_no_longer_who_had_it(house: House, ada: Named) -> None:
    other = "+12025550155"
    put_customers(house.runtime, ada.brand_id, [{"ref": "bob", "phone": other}])
    change_preferences(house.runtime, Named(ada.brand_id, "bob"), {"marketing": True}, ADA)
    correct(house, ada, NUMBER, other, BRAND)
    assert not bobs_number_is_agreed(house)


def test_what_the_brand_changes_of_a_customer_is_audited(house: House, ada: Named) -> None:
    facts = {"ref": "ada", "email": [MAIL, RIGHT], "timezone": "Asia/Tokyo", "name": None}
    for _ in range(2):  # what is told again changes nothing
        put_customers(house.runtime, ada.brand_id, [facts, customer("cyd")], actor="key abc")
    put_customers(house.runtime, ada.brand_id, [{"ref": "ada", "phone": None}], actor="key abc")
    seen = changes(house.runtime, since=None, limit=9, customer=ada)
    assert [(one.actor, one.action, one.subject["changed"]) for one in seen] == [
        ("key abc", "customer.change", ["sms"]),
        ("key abc", "customer.change", ["email", "timezone"]),
    ]
    assert changes(house.runtime, since=None, limit=9, customer=replace(ada, ref="cyd")) == []
    with pytest.raises(NoSuchCustomer):
        changes(house.runtime, since=None, limit=9, customer=replace(ada, ref="dan"))


@pytest.mark.parametrize("inline", [False, True])
def test_what_is_held_for_want_of_a_fact_is_decided_once_it_is_known(
    house: House, ada: Named, inline: bool
) -> None:
    later = "now() + interval '5 hours'"
    house.accept(intent(policy="email-only", key="held"))
    hold = f"UPDATE intents SET decide_at = {later} WHERE key = 'held'"

    def tell(**facts: Any) -> bool:
        house.execute(hold)
        if inline:
            house.accept(intent({"ref": "ada", **facts}, policy="email-only"))
        else:
            put(house, ada, **facts)
        (row,) = house.rows("SELECT decide_at <= now() AS soon FROM intents WHERE key = 'held'")
        return bool(row.soon)

    assert tell(timezone="Asia/Tokyo")
    assert tell(email=[MAIL, RIGHT])
    assert not tell(timezone="Asia/Tokyo", email=[RIGHT, MAIL])
    assert not tell(name="Ada")
    assert tell(locale="de")
