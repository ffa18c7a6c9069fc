"""Whether the channels that a policy names are served, and show what it waits for."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.channels.registry import Account, serving
from app.domain.evidence import Evidence
from app.domain.policy import Policy
from app.domain.vocabulary import Channel
from app.usecases.operating.apply import Declared
from app.usecases.telling.plain import listed, named


def complaints(declared: Declared, accounts: Sequence[Account]) -> dict[str, list[str]]:
    """Return what is wrong with a policy's channels, in words, by the name of the policy."""
    unheard, never_seen = unserved(declared, accounts), blind(declared, accounts)
    return {
        name: [*_told_unserved(unheard.get(name, {}), accounts), *never_seen.get(name, [])]
        for name in declared.policies
        if name in unheard or name in never_seen
    }


def unserved(
    declared: Declared, accounts: Sequence[Account]
) -> dict[str, dict[Channel, list[int]]]:
    """The channels that no account serves for live messages, with the steps (from 1) that name
    them, by the name of the policy."""
    served = {account.channel for account in serving(accounts, test=False)}
    found: dict[str, dict[Channel, list[int]]] = {}
    for name, document in declared.policies.items():
        for number, step in enumerate(Policy.from_document(document).steps, start=1):
            for channel in step.channels:
                if channel not in served:
                    found.setdefault(name, {}).setdefault(channel, []).append(number)
    return found


def _told_unserved(
    steps: Mapping[Channel, Sequence[int]], accounts: Sequence[Account]
) -> list[str]:
    return [
        f"step{'s' * (len(numbers) > 1)} {listed(list(map(str, numbers)))}: "
        f"{no_account([channel], accounts)}"
        for channel, numbers in steps.items()
    ]


def no_account(channels: Sequence[Channel], accounts: Sequence[Account]) -> str:
    """That no account serves these, and where the sandbox does, why that is no help."""
    told = f"no account is declared for {listed(list(map(named, channels)), 'or')}"
    if not {account.channel for account in accounts}.isdisjoint(channels):
        told += ", but for the sandbox, where live messages never go"
    return f"{told}; add one to providers.toml"


def blind(declared: Declared, accounts: Sequence[Account]) -> dict[str, list[str]]:
    """What waits for evidence that can never come, in words, by the name of the policy."""
    live = serving(accounts, test=False)
    senders = {
        f"{brand}/{name}": settings
        for brand, wish in declared.brands.items()
        for name, settings in wish.senders.items()
    }
    found = {}
    for name, document in declared.policies.items():
        problems = _of_policy(Policy.from_document(document), senders, live)
        if problems:
            found[name] = problems
    return found


def _of_policy(
    policy: Policy, senders: Mapping[str, Mapping[str, Any]], accounts: Sequence[Account]
) -> list[str]:
    wanted = Evidence.parse(policy.seen_at)
    problems = []
    for number, step in enumerate(policy.steps, start=1):
        for channel in step.channels:
            able = [account for account in accounts if account.channel == channel]
            if not able:
                continue
            unseen = [
                name
                for name, settings in senders.items()
                if _best(settings.get("tracking", "all"), able) < wanted
            ]
            if unseen:
                problems.append(
                    f"step {number}: {channel} can never show {policy.seen_at!r} for "
                    f"{', '.join(unseen)}: {_way_out(channel, wanted)}"
                )
    return problems


def _best(tracking: str, able: Sequence[Account]) -> Evidence:
    """The surest evidence that a channel can give, an answer of the customer left out."""
    if tracking != "off":
        return Evidence.CLICKED
    if any(account.traits.receipts for account in able):
        # Handsets and chats confirm delivery; that they confirm reading, too, is not for sure.
        return Evidence.DELIVERED
    return Evidence.SENT


def _way_out(channel: Channel, wanted: Evidence) -> str:
    if wanted is Evidence.REPLIED:
        return "answers are not read yet; wait for less"
    lower = ' or set seen_at = "delivered"' if channel is not Channel.EMAIL else ""
    return f"its tracking is off; turn it on in brands.toml{lower}"
