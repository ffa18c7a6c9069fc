"""SMTP replies as vendors really write them, and what each must mean."""

import pytest

from app.channels.contract import Blame, Rejected, Retryable
from app.channels.email.smtp_replies import Step, queue_id, refusal

REFUSALS = [
    (Step.RCPT, "550 5.1.1 <x>: Recipient address rejected: User unknown", Blame.RECIPIENT),
    (Step.RCPT, "550 No such user here", Blame.RECIPIENT),
    (Step.RCPT, "550 5.4.1 Recipient address rejected: Access denied", Blame.RECIPIENT),
    (Step.RCPT, "552 5.2.2 Over quota", Blame.RECIPIENT),
    (Step.RCPT, "556 5.1.10 Domain takes no mail", Blame.RECIPIENT),
    (Step.BODY, "550 5.2.1 The account is disabled", Blame.RECIPIENT),
    (Step.RCPT, "550 5.7.1 This group takes mail from members only", Blame.RECIPIENT),
    (Step.RCPT, "554 5.7.1 <x>: Relay access denied", Blame.ACCOUNT),
    (Step.RCPT, "554 5.7.1 Service unavailable; Client host blocked", Blame.ACCOUNT),
    (Step.MAIL, "530 5.7.0 Authentication required", Blame.ACCOUNT),
    (Step.MAIL, "530 5.5.1 Must issue a STARTTLS command first", Blame.ACCOUNT),
    (Step.MAIL, "535 5.7.8 Bad credentials", Blame.ACCOUNT),
    (Step.MAIL, "553 5.1.8 Sender domain does not exist", Blame.ACCOUNT),
    (Step.MAIL, "550 5.1.0 Sender rejected", Blame.ACCOUNT),
    (Step.BODY, "550 5.7.26 Unauthenticated mail is not accepted", Blame.ACCOUNT),
    (Step.MAIL, "552 5.3.4 Message size exceeds limit", Blame.CONTENT),
    (Step.BODY, "552 Too much", Blame.CONTENT),
    (Step.BODY, "554 5.6.0 Bad MIME", Blame.CONTENT),
    (Step.BODY, "554 5.7.1 Message blocked as spam", Blame.CONTENT),
    (Step.BODY, "554 Transaction failed", Blame.CONTENT),
]


@pytest.mark.parametrize(("step", "reply", "blame"), REFUSALS)
def test_blame(step: Step, reply: str, blame: Blame) -> None:
    outcome = refusal(step, int(reply[:3]), reply[4:].encode())
    assert isinstance(outcome, Rejected)
    assert outcome.blame is blame


@pytest.mark.parametrize("reply", ["450 4.2.0 Greylisted", "451 Later", "452 4.2.2 Full", "421 x"])
@pytest.mark.parametrize("step", list(Step))
def test_4yz_is_for_later_at_every_step(step: Step, reply: str) -> None:
    assert isinstance(refusal(step, int(reply[:3]), reply[4:].encode()), Retryable)


LATER = [
    (Step.RCPT, "450 4.2.0 <x>: Recipient address rejected: Greylisted", Blame.RECIPIENT),
    (Step.RCPT, "451 4.7.1 Greylisting in action, please come back later", Blame.RECIPIENT),
    (Step.RCPT, "451 Graylisted, try again in 5 minutes", Blame.RECIPIENT),
    (Step.RCPT, "451 4.4.1 No answer from host", Blame.RECIPIENT),
    (Step.RCPT, "450 4.1.1 Unverified recipient", Blame.RECIPIENT),
    (Step.RCPT, "450 4.1.2 Domain not found", Blame.RECIPIENT),
    (Step.RCPT, "452 4.2.2 Mailbox full", Blame.RECIPIENT),
    (Step.RCPT, "450 Mailbox busy", Blame.RECIPIENT),
    (Step.RCPT, "450 4.1.8 Sender address rejected: Domain not found", Blame.ACCOUNT),
    (Step.RCPT, "450 4.7.1 Too much mail from you", Blame.ACCOUNT),
    (Step.RCPT, "450 4.7.25 Client host rejected: cannot find your hostname", Blame.ACCOUNT),
    (Step.RCPT, "450 Client host has a poor reputation", Blame.ACCOUNT),
    (Step.RCPT, "450 4.2.1 Blocked for now", Blame.ACCOUNT),
    (Step.RCPT, "451 4.3.0 Temporary lookup failure", Blame.ACCOUNT),
    (Step.RCPT, "452 4.3.1 Insufficient system storage", Blame.ACCOUNT),
    (Step.RCPT, "452 4.5.3 Too many recipients", Blame.ACCOUNT),
    (Step.RCPT, "451 Temporary local problem", Blame.ACCOUNT),
    (Step.RCPT, "421 4.4.1 Closing", Blame.ACCOUNT),
    (Step.MAIL, "450 4.2.0 Later", Blame.ACCOUNT),
    (Step.MAIL, "451 4.4.1 No answer from host", Blame.ACCOUNT),
    (Step.BODY, "451 4.4.1 No answer from host", Blame.ACCOUNT),
]


@pytest.mark.parametrize(("step", "reply", "blame"), LATER)
def test_what_is_for_later_blames_the_account_but_where_it_is_clearly_the_recipients(
    step: Step, reply: str, blame: Blame
) -> None:
    outcome = refusal(step, int(reply[:3]), reply[4:].encode())
    assert isinstance(outcome, Retryable)
    assert outcome.blame is blame


def test_the_reason_has_the_enhanced_code_and_no_text() -> None:
    assert refusal(Step.RCPT, 550, b"5.1.1 <ada@example.com> unknown") == Rejected(
        "smtp_550_5.1.1", Blame.RECIPIENT
    )
    assert refusal(Step.RCPT, 451, b"ada@example.com is away") == Retryable("smtp_451")


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        (b"2.0.0 Ok: queued as 4XyZ12abc", "4XyZ12abc"),
        (b"OK id=1rT2ab-0003Xy-2C", "1rT2ab-0003Xy-2C"),
        (b"2.0.0 45BNo1Xj012345 Message accepted for delivery", "45BNo1Xj012345"),
        (b"Ok 0100018f0a1b2c3d-11111111-2222-000000", "0100018f0a1b2c3d-11111111-2222-000000"),
        (b"2.0.0 Ok", None),
        (b"Thank you", None),
    ],
)
def test_queue_ids(text: bytes, reference: str | None) -> None:
    assert queue_id(text) == reference
