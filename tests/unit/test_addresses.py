"""Addresses are checked where they come in."""

import pytest

from app.usecases.people.addresses import customer_row
from converge_producer import InvalidIntent


@pytest.mark.parametrize(
    "user",
    [
        "@ada:example.org",
        "@Ada_O'Neil:example.org",  # as older ones may be
        "@ada=40mail:matrix.example.org:8448",
        "@ada:192.0.2.1",
        "@ada:[2001:db8::1]:8448",
        "@" + "a" * 242 + ":example.org",
    ],
)
@pytest.mark.parametrize("form", ["text", "object"])
def test_users_of_matrix(user: str, form: str) -> None:
    given = f"matrix:{user}" if form == "text" else {"service": "matrix", "address": user}
    [endpoint] = customer_row({"ref": "ada", "chat": given}, None, "")["endpoints"]
    assert endpoint == {"channel": "chat", "service": "matrix", "address": user}


@pytest.mark.parametrize(
    "user",
    [
        "ada",
        "@ada",
        "@:example.org",
        "ada@example.org",
        "@ada:",
        "@ada :example.org",
        "@ada:example.org\n",
        "@adé:example.org",
        "@ada:exämple.org",
        "#room:example.org",
        "@" + "a" * 243 + ":example.org",
    ],
)
def test_what_is_no_user_of_matrix(user: str) -> None:
    with pytest.raises(InvalidIntent, match="not a user of Matrix"):
        customer_row({"ref": "ada", "chat": f"matrix:{user}"}, None, "to.")


def test_handles_of_other_services_are_their_own() -> None:
    [endpoint] = customer_row({"ref": "ada", "chat": "slack:U123"}, None, "")["endpoints"]
    assert endpoint["address"] == "U123"
