"""A mail account's hook: whoever runs the mail server posts here what comes back, mail by mail."""

from app.channels.contract import HookRequest, InboundMessage, Receipt, UnreadableHook
from app.channels.email.mail_reports import read_report
from app.channels.signature import verify_signature


class MailHook:
    """Reads mails as they came: the body is `message/rfc822`, signed with the account's secret.

    With `tokens_alone`, which a return path with tokens allows, a report without a token of ours is
    not believed: anybody may write to that path, and name any address.
    """

    def __init__(self, secret: str, *, tokens_alone: bool = False) -> None:
        self._secret = secret
        self._tokens_alone = tokens_alone

    def verify(self, request: HookRequest) -> None:
        """Check the signature and its age; raise `BadSignature`."""
        verify_signature(self._secret, request)

    def read(self, request: HookRequest) -> list[Receipt | InboundMessage]:
        """Read a bounce or a complaint; raise `UnreadableHook`."""
        told = read_report(request.body, request.received_at)
        believed = [one for one in told if one.trace or not self._tokens_alone]
        if told and not believed:
            raise UnreadableHook("a report without the token that mails of this account carry")
        return [*believed]
