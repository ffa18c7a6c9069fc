"""Upkeep: what has served its time goes, what somebody waits for stays."""

from app.store.inbox import put_inbox
from app.usecases.upkeep import upkeep
from tests.store.conftest import House, intent


def test_old_things_go_and_what_is_waited_for_stays(house: House) -> None:
    with house.runtime.engine.begin() as connection:
        for name in ("read", "waits", "new"):
            put_inbox(connection, "relay", name, b"body", {})
    house.execute("UPDATE inbox SET due_at = NULL WHERE external_id <> 'waits'")
    house.execute(
        "UPDATE inbox SET received_at = now() - interval '8 days' WHERE external_id <> 'new'"
    )
    house.accept(intent("nobody"), keep_refusals=True)
    assert upkeep(house.runtime) == {"inbox": 1, "refusal_documents": 0}
    assert {row[0] for row in house.rows("SELECT external_id FROM inbox")} == {"waits", "new"}
    house.execute("UPDATE refusals SET refused_at = now() - interval '8 days'")
    assert upkeep(house.runtime) == {"inbox": 0, "refusal_documents": 1}
    assert upkeep(house.runtime) == {"inbox": 0, "refusal_documents": 0}
