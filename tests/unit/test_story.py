"""Sentences: every code of ours has words, and none is shown as it is."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.domain import decision as deciding
from app.domain.consent import Ground
from app.domain.decision import BARS, Preferred, Reason
from app.domain.pause import Pause
from app.domain.policy import Policy, Step
from app.domain.selection import Left
from app.domain.vocabulary import Channel, EventType, IntentState, Source
from app.usecases.delivering.attempts import OUTCOMES
from app.usecases.telling import decisions, plain, story

NOW = datetime(2026, 3, 29, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
LADDER = Policy(
    "notify", (Step((Channel.EMAIL,), 1800), Step((Channel.CHAT, Channel.SMS))), expires_after=7200
)
CODE = re.compile(r"[a-z]+_[a-z_]+")
"""What no sentence of ours may hold."""


def literals(call: str) -> set[str]:
    """The reasons that the decision gives in calls such as `Stop(IntentState.X, "reason")`."""
    source = Path(deciding.__file__).read_text()
    return set(re.findall(rf"{call}\([^()]*?\"([a-z_]+)\"", source))


@pytest.mark.parametrize("why", Reason)
def test_every_reason_has_words(why: Reason) -> None:
    told = plain.left(why, Source.TEXT, NOW)
    assert told != plain.words(why)
    assert not CODE.search(told), told
    assert ("2026-03-29 12:00 UTC" in told) == (why in BARS)
    assert plain.left(why, None, None)


@pytest.mark.parametrize("source", Source)
@pytest.mark.parametrize("why", [Reason.NO_CONSENT, Reason.MUTED_SENDER])
def test_every_way_of_saying_no_has_words(source: Source, why: Reason) -> None:
    told = plain.left(why, source, None)
    assert told.startswith("the customer ")
    assert plain.SOURCES[source] in told
    assert not CODE.search(told), told


def test_a_missing_yes_is_told_apart_from_a_no() -> None:
    assert "has not said yes" in plain.left(Reason.NO_CONSENT, Ground.NO_YES, None)


@pytest.mark.parametrize(
    ("why", "told", "until", "sentence"),
    [
        ("no_consent", "text", None, "the customer said no in a message to us"),
        ("no_consent", "api", NOW, "the customer said no over the API, until 2026-03-29 12:00 UTC"),
        (
            "muted_sender",
            "preferences",
            NOW + timedelta(seconds=5),
            (
                "the customer muted this sender in the preference centre, until "
                "2026-03-29 12:00:05 UTC"
            ),
        ),
        (
            "muted_sender",
            "preferences",
            None,
            "the customer muted this sender in the preference centre, for good",
        ),
        ("quiet_until", "quiet_hours", NOW, "it is in quiet hours until 2026-03-29 12:00 UTC"),
        (
            "quiet_until",
            "America/Adak",
            NOW,
            "it is in quiet hours until 2026-03-29 12:00 UTC, by the clock of America/Adak",
        ),
        ("capped_until", "daily", NOW, 'the cap "daily" is used up until 2026-03-29 12:00 UTC'),
        ("no_consent", "a_new_way", None, "the customer said no (a new way)"),
        ("a_new_reason", None, None, "a new reason"),
    ],
)
def test_a_bar_says_by_what_and_until_when(
    why: str, told: str | None, until: datetime | None, sentence: str
) -> None:
    assert plain.left(why, told, until) == sentence


def test_every_end_has_words() -> None:
    reasons = literals("Stop") | {"nothing_can_still_come", "unreachable", "cancelled", "replaced"}
    reasons |= {bar.value for bar in BARS} | {f"dropped_{bar}" for bar in BARS}
    assert {"expires_at", "unseen_after_the_last_step"} <= reasons
    for reason in reasons:
        assert plain.end(reason) != plain.words(reason), reason
        assert not CODE.search(plain.end(reason))


def test_every_wait_has_words() -> None:
    reasons = literals("Wait") | {"not_yet_unseen"} | {bar.value for bar in BARS}
    assert {"in_flight", "last_step", "send_after"} <= reasons
    for reason in reasons:
        told = decisions.decided(decision("wait", reason=reason, until=NOW), NOW)
        assert not CODE.search(told), told
        assert plain.words(reason) not in told, told


@pytest.mark.parametrize("event", EventType)
def test_every_event_has_words(event: EventType) -> None:
    assert plain.EVENTS[event]


def test_every_channel_outcome_state_and_preference_has_words() -> None:
    assert set(plain.BY) == set(Channel)
    assert set(plain.OUTCOMES) == set(OUTCOMES.values())
    assert set(plain.STATES) == set(IntentState)
    assert set(plain.PREFERRED) == set(Preferred)
    assert set(plain.ACCOUNTS_LEFT) == set(Left)


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("smtp_550_5.1.1", " (smtp_550_5.1.1)"),
        ("lease_ended", " (its worker was not heard of again)"),
        ("content_text", " (its text cannot be said in this form)"),
        ("person", ""),
        (None, ""),
    ],
)
def test_a_providers_code_stays_and_ours_get_words(code: str | None, shown: str) -> None:
    assert plain.because(code) == shown


def way(step: int, channel: str, why: str = "chosen", **more: Any) -> dict[str, Any]:
    endpoint = 1 if why in ("chosen", "paused", "unhealthy", "lower_score") else None
    return {
        "step": step, "channel": channel, "why": why, "endpoint_id": endpoint, "until": None,
        "told": None, **more,
    }  # fmt: skip


def decision(verdict: str, *considered: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "number": 1, "at": NOW, "cause": "accepted", "verdict": verdict, "until": None,
        "reason": "", "considered": list(considered), **more,
    }  # fmt: skip


QUIET = way(1, "email", "quiet_until", until=NOW + HOUR, told="quiet_hours")


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (decision("send", way(1, "email")), "Decided on arrival: step 1, by email."),
        (
            decision("send", way(2, "chat", told="active"), way(2, "sms", "lower_score")),
            (
                "Decided on arrival: step 2, by chat, where the customer was active a moment ago. "
                "Not by SMS (step 2): another way of this step comes first."
            ),
        ),
        (
            decision("send", QUIET, way(2, "chat", "no_endpoint"), way(2, "sms"), cause="due"),
            (
                "Decided again: step 2, by SMS. Not by email (step 1): it is in quiet hours until "
                "2026-03-29 13:00 UTC; not by chat (step 2): no address is known."
            ),
        ),
        (
            decision("send", *(way(n, "sms", "over") for n in (1, 2, 3)), way(3, "email")),
            (
                "Decided on arrival: step 3, by email. Not by SMS (step 1), by SMS (step 2) or by "
                "SMS (step 3): no address is left that was not tried."
            ),
        ),
        (
            decision("send", way(1, "email", "paused")),
            "Decided on arrival: step 1, by email, which is paused: it waits for that.",
        ),
        (
            decision("wait", QUIET, reason="quiet_until", until=NOW + HOUR),
            (
                "Decided on arrival: wait until 2026-03-29 13:00 UTC: it may be said then. "
                "Not by email (step 1): it is in quiet hours until 2026-03-29 13:00 UTC."
            ),
        ),
        (
            decision(
                "wait",
                way(1, "email", "no_consent", told="text"),
                reason="no_consent",
                until=NOW + HOUR,
            ),
            (
                "Decided on arrival: wait until 2026-03-29 13:00 UTC: the customer may still allow "
                "it. Not by email (step 1): the customer said no in a message to us."
            ),
        ),
        (
            decision("stop", reason="dropped_muted_sender", cause="due"),
            (
                "Decided again: stop, for the customer muted the sender, and it was to be dropped "
                "then."
            ),
        ),
    ],
)
def test_a_decision_is_a_sentence(made: dict[str, Any], sentence: str) -> None:
    assert decisions.decided(made, NOW + 2 * HOUR) == sentence


def attempt(**more: Any) -> dict[str, Any]:
    return {
        "number": 1, "account": "relay", "outcome": "accepted", "reason": None,
        "finished_at": NOW, **more,
    }  # fmt: skip


def delivery(**more: Any) -> dict[str, Any]:
    return {
        "id": 7, "step": 1, "channel": "email", "address": "a***@example.com", "account": "relay",
        "state": "sent", "reason": None, "attempts": [], "due_at": None, "handed_over_at": None,
        "crossed": False, "choice": None, **more,
    }  # fmt: skip


def intent(**more: Any) -> dict[str, Any]:
    return {
        "customer": "ada", "sender": "store", "topic": "orders", "kind": "transactional",
        "urgency": "normal", "policy": "notify", "campaign": None, "test": False,
        "brand_id": 1, "sender_id": 1, "state": "open", "reason": None, "seen_as": None,
        "seen_on": None, "accepted_at": NOW, "send_after": None, "expires_at": NOW + 2 * HOUR,
        "ended_at": None, "decide_at": NOW, "deliveries": [], "events": [], "decisions": [],
        "refusals": [], **more,
    }  # fmt: skip


def texts(told: dict[str, Any]) -> list[str]:
    return [one["text"] for one in story.entries(told, LADDER)]


def test_the_clock_is_told_where_it_starts() -> None:
    sent = delivery(attempts=[attempt()], handed_over_at=NOW)
    assert texts(intent(deliveries=[sent]))[-1] == (
        "By email to a***@example.com, try 1: relay took it. Its clock runs from now: unless it is "
        "seen within 30 min, by 2026-03-29 12:30 UTC, step 2 (chat or SMS) follows."
    )
    last = delivery(step=2, channel="sms", attempts=[attempt()], handed_over_at=NOW)
    assert (
        "No step follows; it has until 2026-03-29 14:00 UTC" in texts(intent(deliveries=[last]))[-1]
    )


def test_what_was_taken_back_is_told_with_the_decision_that_followed() -> None:
    told = intent(
        deliveries=[delivery(state="cancelled", reason="no_consent")],
        decisions=[
            decision("send", way(1, "email")),
            decision("wait", number=2, cause="due", reason="in_flight", until=NOW),
            decision("send", way(1, "email", "over"), way(2, "sms"), number=3, cause="due"),
        ],
    )
    assert [one.startswith("The email message") for one in texts(told)] == [
        False, False, False, True,
    ]  # fmt: skip
    assert texts(told)[-1].startswith(
        "The email message to a***@example.com was taken back before it left "
        "(the customer does not allow it). Decided again: step 2, by SMS."
    )


def test_what_had_not_left_at_the_end_is_told_with_the_end() -> None:
    left = delivery(state="cancelled", reason="seen", channel="sms", step=2)
    seen = intent(state="seen", ended_at=NOW, seen_as="opened", seen_on="email", deliveries=[left])
    assert texts(seen)[-1] == (
        "Seen: opened on email. Nothing more is sent. The SMS message to a***@example.com had not "
        "left, and does not."
    )
    replaced = intent(state="cancelled", reason="replaced", ended_at=NOW)
    assert texts(replaced)[-1] == "Cancelled: a newer message took its place."


@pytest.mark.parametrize(
    ("changes", "at", "text"),
    [
        ({"state": "seen"}, None, "Nothing: it has ended."),
        (
            {"deliveries": [delivery(state="planned", due_at=NOW + HOUR, reason="quiet_until")]},
            NOW + HOUR,
            (
                "The email message to a***@example.com is held: it is in quiet hours until "
                "2026-03-29 13:00 UTC. Then it is asked again."
            ),
        ),
        (
            {
                "deliveries": [delivery(state="planned", due_at=NOW + HOUR, reason="quiet_until")],
                "expires_at": NOW + HOUR / 2,
            },
            NOW + HOUR / 2,
            (
                "The email message to a***@example.com is held: it is in quiet hours until "
                "2026-03-29 13:00 UTC. It expires before that, 2026-03-29 12:30 UTC."
            ),
        ),
        (
            {"deliveries": [delivery(state="planned", due_at=NOW, channel="sms")]},
            None,
            (
                "The SMS message to a***@example.com is held by a pause since 2026-03-29 11:00 "
                "UTC; it leaves when that ends."
            ),
        ),
        (
            {"deliveries": [delivery(state="planned", due_at=NOW - HOUR, reason="http_503")]},
            NOW,
            (
                "The email message to a***@example.com leaves when its time has come and an "
                "account has room (http_503)."
            ),
        ),
        (
            {"deliveries": [delivery(state="sending", due_at=NOW + HOUR)]},
            NOW + HOUR,
            (
                "relay is being handed the email message to a***@example.com; without a verdict by "
                "then, its outcome is unknown."
            ),
        ),
        (
            {"deliveries": [delivery(due_at=NOW + HOUR)]},
            NOW + HOUR,
            "Unless it is seen by then, step 2 (chat or SMS).",
        ),
        (
            {
                "deliveries": [delivery()],
                "decisions": [
                    decision(
                        "wait",
                        way(2, "sms", "capped_until", until=NOW + HOUR, told="daily"),
                        reason="capped_until",
                        until=NOW + HOUR,
                    )
                ],
            },
            NOW + HOUR,
            (
                "Wait until 2026-03-29 13:00 UTC: it may be said then. Not by SMS (step 2): the "
                'cap "daily" is used up until 2026-03-29 13:00 UTC.'
            ),
        ),
        (
            {"decisions": [decision("wait", reason="send_after", until=NOW + HOUR)]},
            NOW + HOUR,
            "It is said then, and not earlier.",
        ),
    ],
)
def test_what_happens_next_is_a_sentence(
    changes: dict[str, Any], at: datetime | None, text: str
) -> None:
    pauses = [Pause(NOW - HOUR, channel="sms")]
    told = story.what_next(intent(**changes), LADDER, pauses, NOW)
    assert told == {"at": at, "text": text}


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (
            {"allow": False, "source": "text"},
            "The customer forbade all messages, in a message to us.",
        ),
        (
            {"allow": True, "source": "api", "by": "brand", "scope": {"kind": "marketing"}},
            "The brand noted that the customer allowed marketing messages, over the API.",
        ),
        (
            {
                "allow": False,
                "source": "preferences",
                "until": NOW,
                "scope": {"sender": "store", "topic": "orders", "channel": "sms"},
            },
            (
                "The customer forbade messages about orders from store by SMS until "
                "2026-03-29 12:00 UTC, in the preference centre."
            ),
        ),
    ],
)
def test_a_statement_is_a_sentence(said: dict[str, Any], sentence: str) -> None:
    names = dict.fromkeys(("channel", "address", "sender", "topic", "kind"))
    scope = {**names, **said.pop("scope", {})}
    assert plain.statement({"by": "customer", "until": None, **said, "scope": scope}) == sentence
