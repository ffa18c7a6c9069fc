"""Whether what a policy waits for can ever be seen on the channels that it names."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.channels.registry import Account
from app.domain.evidence import Evidence
from app.domain.policy import Policy
from app.domain.vocabulary import Channel
from app.usecases.apply import Declared


def complaints(declared: Declared, accounts: Sequence[Account]) -> dict[str, list[str]]:
    """Return what is unsatisfiable, in words, by the name of the policy."""
    senders = {
        f"{brand}/{name}": settings
        for brand, wish in declared.brands.items()
        for name, settings in wish.senders.items()
    }
    found = {}
    for name, document in declared.policies.items():
        problems = _of_policy(Policy.from_document(document), senders, accounts)
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
            serving = [account for account in accounts if account.channel == channel]
            if not serving:
                problems.append(
                    f"step {number}: no account serves {channel}; add one to providers.toml"
                )
                continue
            blind = [
                name
                for name, settings in senders.items()
                if _best(settings.get("tracking", "all"), serving) < wanted
            ]
            if blind:
                problems.append(
                    f"step {number}: {channel} can never show {policy.seen_at!r} for "
                    f"{', '.join(blind)}: {_way_out(channel, wanted)}"
                )
    return problems


def _best(tracking: str, serving: Sequence[Account]) -> Evidence:
    """The surest evidence that a channel can give, an answer of the customer left out."""
    if tracking != "off":
        return Evidence.CLICKED
    if any(account.traits.receipts for account in serving):
        # Handsets and chats confirm delivery; that they confirm reading, too, is not for sure.
        return Evidence.DELIVERED
    return Evidence.SENT


def _way_out(channel: Channel, wanted: Evidence) -> str:
    if wanted is Evidence.REPLIED:
        return "answers are not read yet; wait for less"
    lower = ' or set seen_at = "delivered"' if channel is not Channel.EMAIL else ""
    return f"its tracking is off; turn it on in brands.toml{lower}"
