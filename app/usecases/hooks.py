"""Hooks: what providers report is verified and kept; a task reads it later."""

from hashlib import blake2b

from app.channels.contract import HookRequest, WebhookReader
from app.store.inbox import put_inbox
from app.usecases.runtime import Runtime

KEPT_HEADERS = ("content-type",)
"""What reading needs besides the body; signatures have served their purpose once verified."""


class UnknownHook(Exception):
    """No account of this name reads webhooks."""


def receive(runtime: Runtime, account_name: str, request: HookRequest) -> bool:
    """Verify a webhook and keep it; say whether it is new.

    Raises `UnknownHook` and `BadSignature`.
    """
    account = runtime.accounts.get(account_name)
    if account is None or not isinstance(account.provider, WebhookReader):
        raise UnknownHook("no account of this name reads webhooks")
    account.provider.verify(request)
    headers = {name: request.headers[name] for name in KEPT_HEADERS if name in request.headers}
    name = blake2b(request.body, digest_size=16).hexdigest()
    with runtime.engine.begin() as connection:
        return put_inbox(connection, account.name, name, request.body, headers)
