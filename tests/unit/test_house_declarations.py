"""brands.toml, policies.toml and providers.toml: what they become, and what is said of faults."""

from pathlib import Path

import pytest

from app.channels.registry import build_accounts
from app.domain.policy import Policy
from app.domain.vocabulary import Channel
from config import settings
from config.schema import DeclarationError, load_brands, load_policies, load_toml

SHIPPED = Path(settings.__file__).parent


def test_the_shipped_brand() -> None:
    demo = load_brands(SHIPPED / "brands.toml")["demo"]
    assert demo.settings()["default_sender"] == "store"
    assert demo.sender_settings()["store"]["tracking"] == "all"
    assert "orders" in demo.topics


LEFT = """
[b]
title = "B"
{more}
[b.senders.s]
name = "S"
[b.topics]
t = "T"
"""


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('opt_out = "topic"', r"\[b\] opt_out: .*'brand' or 'sender'"),
        ('help_text = ""', r"\[b\] help_text: "),
        (r'help_text = "a\u0000b"', r"\[b\] help_text: must be one line"),
        (f'help_text = "{"x" * 451}"', r"\[b\] help_text: "),
    ],
)
def test_how_a_brand_is_left_must_make_sense(tmp_path: Path, more: str, said: str) -> None:
    path = tmp_path / "brands.toml"
    path.write_text(LEFT.format(more=more))
    with pytest.raises(DeclarationError, match=said):
        load_brands(path)


def test_the_shipped_policies_are_ladders() -> None:
    policies = load_policies(SHIPPED / "policies.toml")
    assert {"notify", "urgent", "email-only", "sms-only"} <= policies.keys()
    notify = Policy.from_document(policies["notify"])
    assert notify.expires_after == 3 * 86_400
    assert [step.unless_seen_within for step in notify.steps] == [1800, 7200, None]
    assert notify.steps[1].channels == (Channel.CHAT, Channel.SMS)


def test_the_shipped_accounts_serve_every_channel_without_any_setting() -> None:
    accounts = build_accounts(load_toml(SHIPPED / "providers.toml"))
    assert {account.channel for account in accounts.values()} == set(Channel)
    assert all(account.sandbox for account in accounts.values()), "nothing leaves by default"


POLICY = """
[p]
expires_after = "1h"
[[p.steps]]
channels = ["email"]
unless_seen_within = "30m"
[[p.steps]]
channels = ["sms"]
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"1h"', '"soon"', r'policies.toml: \[p\] expires_after: must be a time such as "30s"'),
        ('"1h"', "60", r"\[p\] expires_after: must be a time"),
        ('"1h"', '"20m"', r"\[p\]: expires_after \(1200 s\) is over before the last step"),
        ('["email"]', '["fax"]', r"\[p\] steps\[0\].channels\[0\]: .*'email'"),
        ('["email"]', "[]", r"\[p\] steps\[0\].channels: "),
        ('unless_seen_within = "30m"', "", r"\[p\]: steps\[0\] needs unless_seen_within"),
        ('expires_after = "1h"', "", r"\[p\] expires_after: is missing"),
        ('"1h"', '"1h"\nseen_at = "guessed"', r"\[p\] seen_at: .*'opened'"),
        ('"1h"', '"1h"\nspeed = 1', r"\[p\] speed: is not known here"),
        ("unless_seen", "unles_seen", r"unles_seen_within: .*did you mean unless_seen_within\?"),
        (
            '"1h"',
            '"1h"\nzzz = 1',
            r"zzz: is not known here; known are expires_after, seen_at, steps$",
        ),
        ('["email"]', '"email"', r'\[p\] steps\[0\].channels: must be a list: \["…"\]'),
        ('["email"]', "[]", "channels: must not be empty"),
        ("[p]", "[p", "is not TOML"),
        ('["sms"]', '["sms"', r"is not TOML: Unclosed array \(at line 8, the last\)"),
    ],
)
def test_a_fault_in_a_policy_is_shown_with_its_place(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    path = tmp_path / "policies.toml"
    path.write_text(POLICY)
    assert load_policies(path)["p"]["steps"][0]["unless_seen_within_s"] == 1800
    path.write_text(POLICY.replace(old, new, 1))
    with pytest.raises(DeclarationError, match=said):
        load_policies(path)


BRAND = """
[shop]
title = "Shop"
default_sender = "desk"
[shop.senders.desk]
name = "Desk"
email = "desk@shop.example.com"
phone = "+15550100123"
[shop.topics]
orders = "Orders"
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"desk"', '"door"', r'brands.toml: \[shop\]: default_sender "door" is none of its'),
        (
            '"Desk"',
            '"Desk\\r\\nBcc: x@example.com"',
            r"\[shop\] senders.desk.name: must be one line",
        ),
        ("desk@shop", "desk shop", r"\[shop\] senders.desk.email"),
        ("desk@shop.example.com", "d\u00e9sk@shop.example.com", r"\[shop\] senders.desk.email"),
        ('"Desk"', '"Desk"\nreply_to = "the desk"', r"\[shop\] senders.desk.reply_to"),
        ('"Desk"', '"Desk"\nreply_to = "a@b.example, c@d.example"', r"senders.desk.reply_to"),
        ("+15550100123", "+1 (555) what", r"\[shop\] senders.desk.phone"),
        ('"Desk"', '"Desk"\ntracking = "some"', r"\[shop\] senders.desk.tracking: .*'clicks'"),
        ('"Desk"', '"Desk"\nrate_per_s = 0', r"\[shop\] senders.desk.rate_per_s"),
        ("[shop.senders.desk]", "[shop.senders.Desk]", r"\[shop\] senders.Desk"),
        ('orders = "Orders"', "", r"\[shop\] topics"),
    ],
)
def test_a_fault_in_a_brand_is_shown_with_its_place(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    path = tmp_path / "brands.toml"
    path.write_text(BRAND)
    assert load_brands(path)["shop"].topics == {"orders": "Orders"}
    path.write_text(BRAND.replace(old, new, 1))
    with pytest.raises(DeclarationError, match=said):
        load_brands(path)


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "policies.toml"
    path.write_text(POLICY.replace('"1h"', '"soon"').replace('"email"', '"fax"'))
    with pytest.raises(DeclarationError) as caught:
        load_policies(path)
    assert len(str(caught.value).splitlines()) == 2


def test_a_name_that_is_not_known_is_held_against_those_of_its_own_table(tmp_path: Path) -> None:
    path = tmp_path / "brands.toml"
    path.write_text(BRAND.replace('"Desk"', '"Desk"\nemial = "x"\ncaps = 1'))
    with pytest.raises(DeclarationError) as caught:
        load_brands(path)
    assert str(caught.value).splitlines() == [
        "brands.toml: [shop] senders.desk.emial: is not known here; did you mean email?",
        (
            "brands.toml: [shop] senders.desk.caps: is not known here; known are chat, email, "
            "name, phone, rate_per_s, reply_to, tracking"
        ),
    ]


def test_a_file_in_another_encoding_is_told_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "brands.toml"
    path.write_bytes(BRAND.replace('"Desk"', '"Bürö"').encode("latin-1"))
    with pytest.raises(DeclarationError, match=r"is not text in UTF-8 \(at line 6\); save it"):
        load_brands(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match=r"brands.toml cannot be read: No such file"):
        load_brands(tmp_path / "brands.toml")
