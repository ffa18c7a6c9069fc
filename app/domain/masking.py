"""Addresses as they may be shown: enough to recognise one's own, too little to use."""

_SHOWN_DIGITS = 4


def masked(address: str) -> str:
    """`a***@example.com`, `+1•••0101`, `@a***:example.org`; other handles keep two characters."""
    name, at, domain = address.rpartition("@")
    if at and name:
        return f"{name[0]}***@{domain}"
    if address.startswith("+") and address[1:].isdigit() and len(address) > 2 + _SHOWN_DIGITS:
        return f"{address[:2]}•••{address[-_SHOWN_DIGITS:]}"
    handle, colon, server = address.partition(":")
    shown = handle[: min(2, len(handle) // 2)]
    return f"{shown}***{colon}{server}"
