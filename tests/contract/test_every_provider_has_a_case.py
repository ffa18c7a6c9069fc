"""The contract suite is worth what it covers."""

from app.channels.registry import PROVIDERS
from app.domain.vocabulary import Channel
from tests.contract.case import CASES, Situation
from tests.contract.test_contract import EXPECTED


def test_every_registered_provider_has_a_case() -> None:
    without = set(PROVIDERS) - {case.provider for case in CASES}
    assert not without, f"write a case in tests/contract/case.py for: {sorted(without)}"


def test_every_situation_has_an_expectation() -> None:
    assert set(EXPECTED) == set(Situation)


def test_an_exemption_has_a_reason() -> None:
    for case in CASES:
        assert all(case.exempt.values())
        assert len(case.exempt) < len(Situation) / 2


def test_a_provider_of_chat_alone_names_the_services_that_it_reaches() -> None:
    for name, provider in PROVIDERS.items():
        if provider.traits.channels <= {Channel.CHAT, Channel.SOCIAL}:
            assert provider.traits.services, f"{name} would be given addresses at any service"
