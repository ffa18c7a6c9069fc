"""What is said in every measurement: one content of about 2 kB of mail, and who it goes to."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from app.content.headers import mail_date
from app.content.mail import SenderIdentity, compile_email
from app.content.message import Personal
from app.domain.body import EmailBody
from app.domain.tokens import Links, Signer

SENDER = SenderIdentity("Demo Store", "hello@store.example")
CONTENT: Mapping[str, Any] = {
    "subject": "Order {{ number }} is on its way",
    "text": (
        "Hello **{{ name }}**,\n\n"
        "your order {{ number }} left our warehouse today. It should be with you on {{ day }}; "
        "the carrier will ring twice and leave it with a neighbour if nobody is at home.\n\n"
        "Anything amiss? Answer this mail and a person will read it."
    ),
    "actions": [{"label": "Track it", "url": "https://shop.example/t/{{ number }}"}],
    "must_keep": ["{{ number }}"],
}
_SENTINELS = {"name": "QQNAMEQQ", "number": "QQNUMBERQQ", "day": "QQDAYQQ"}


def address(number: int) -> str:
    """The mail address of a customer."""
    return f"customer-{number}@example.com"


def customer(number: int) -> dict[str, Any]:
    """A customer with mail and phone, so that a policy has somewhere to climb."""
    return {
        "ref": f"cust-{number}",
        "email": address(number),
        "phone": f"+1202555{100 + number % 100:04d}",
        "name": f"Customer {number}",
        "locale": "en",
    }


def data(number: int) -> dict[str, str]:
    """What differs from message to message."""
    return {"name": f"Ada {number}", "number": str(100_000 + number), "day": "Tuesday"}


def intents(
    count: int, customers: int, label: str, urgency: str = "bulk", **more: Any
) -> list[dict[str, Any]]:
    """Documents of intents over known customers; `label` makes their keys unlike any others'."""
    return [
        {
            "key": f"{label}-{number}",
            "to": f"cust-{number % customers}",
            "topic": "orders",
            "urgency": urgency,
            "content": CONTENT,
            "data": data(number),
            **more,
        }
        for number in range(count)
    ]


def skeleton() -> str:
    """The same mail as a `%`-format of Python over address, name, number and day.

    It is made of a mail of ours, so that everybody sends the same bytes; the tokens in its links
    are a constant here.
    """
    links = Links("https://converge.example", Signer([b"0123456789abcdef0123"]), None)
    personal = Personal(1, _SENTINELS, links, "QQADDRESSQQ@example.com", None, "QQDATEQQ")
    compiled = compile_email(CONTENT, SENDER, tracking="all")
    text = compiled.render(personal).mime.decode().replace("%", "%%")
    text = text.replace("QQADDRESSQQ@example.com", "%(address)s").replace("QQDATEQQ", "%(date)s")
    for name, sentinel in _SENTINELS.items():
        text = text.replace(sentinel, f"%({name})s")
    return text


def body(form: str, fields: Mapping[str, str]) -> EmailBody:
    """Fill the skeleton."""
    return EmailBody((form % fields).encode())


def today() -> str:
    """The Date of a mail."""
    return mail_date(datetime.now(UTC))
