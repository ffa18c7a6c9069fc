"""A brand that was declared a moment ago, in a process that has not read of it yet."""

from dataclasses import replace
from uuid import uuid4

from app.usecases.intake.accept import accept
from app.usecases.intake.submission import Submission
from app.usecases.operating.apply import apply
from tests.store.conftest import DECLARED, House, customer, intent


def test_an_intent_of_a_brand_declared_just_now_is_decided(house: House) -> None:
    before = house.runtime.catalog()
    brand = DECLARED.brands["demo"]
    apply(house.runtime, replace(DECLARED, brands={"demo": brand, "other": brand}))
    other = Submission("other", uuid4())
    [verdict] = accept(house.runtime, other, [intent(customer())])
    assert verdict.status == "accepted"
    house.execute("UPDATE intents SET decide_at = now()")
    house.runtime.catalog._copy.put(before)  # as a process that read it before has
    house.run()
    [row] = house.rows("SELECT count(*) AS n FROM decisions")
    assert row.n > 1
