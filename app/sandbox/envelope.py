"""A mail as an SMTP server got it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Envelope:
    """One message as it arrived; `mime` without dot-stuffing. `at` is Unix time in seconds."""

    sender: str
    recipients: tuple[str, ...]
    mime: bytes
    at: float
    monotonic: float

    def header(self, name: str) -> str | None:
        """Find a header's value, unfolded no further than its first line."""
        head = b"\r\n" + self.mime.partition(b"\r\n\r\n")[0]
        start = head.find(b"\r\n%b:" % name.encode())
        if start < 0:
            start = head.lower().find(b"\r\n%b:" % name.lower().encode())
        if start < 0:
            return None
        value = head[start + len(name) + 3 :].partition(b"\r\n")[0]
        return value.strip().decode("utf-8", "replace")
