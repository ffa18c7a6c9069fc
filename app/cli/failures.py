"""What may go wrong without being a bug, each told in a line or two, with the way out."""

from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError, OperationalError

from app.channels.registry import InvalidAccount
from app.content.templates import BadTemplate
from app.embedded import DataFolderInUse, ServerUnavailable
from app.limits import LimitsUnavailable
from app.store.schema import WrongSchema
from app.supervisor import ChildFailed
from app.usecases.errors import FieldError
from app.usecases.operating.fleet import UnknownWorker
from app.usecases.operating.keys import BadRate, UnknownBrand
from config.schema import DeclarationError
from config.settings import SettingsError
from converge_producer import BrokerUnreachable

USAGE = 2
FAILED = 1


class Problem(Exception):
    """Something that the user can mend; the text says what is wrong, and the way out."""

    def __init__(self, text: str, status: int = FAILED) -> None:
        super().__init__(text)
        self.status = status


_PLAIN = (
    SettingsError,
    DeclarationError,
    InvalidAccount,
    BadTemplate,
    WrongSchema,
    ServerUnavailable,
    DataFolderInUse,
    ChildFailed,
)
_MISNAMED = (UnknownWorker, FieldError, BadRate, UnknownBrand)
_LEDGER = "Look at CONVERGE_DATABASE_URL, and whether the server runs and lets you in."


def told(error: Exception) -> tuple[str, int] | None:
    """Return the text for an expected failure and the exit status; None for a bug."""
    if isinstance(error, Problem):
        return str(error), error.status
    if isinstance(error, _PLAIN):
        return _capital(str(error)), FAILED
    if isinstance(error, _MISNAMED):
        return _capital(str(error)), USAGE
    if isinstance(error, OperationalError):
        return f"The ledger (Postgres) cannot be used: {_first_line(error)}\n{_LEDGER}", FAILED
    if isinstance(error, BrokerUnreachable):
        return f"{error.reason}\nLook at CONVERGE_BROKER_URL.", FAILED
    if isinstance(error, LimitsUnavailable | RedisError):
        return f"Redis cannot be used ({_kind(error)}). Look at CONVERGE_REDIS_URL.", FAILED
    return None


def _first_line(error: DBAPIError) -> str:
    """What the server or the driver says, which names hosts but neither rows nor passwords."""
    lines = [line.strip() for line in str(error.orig).splitlines() if line.strip()]
    return lines[0] if lines else type(error.orig).__name__


def _kind(error: BaseException) -> str:
    return str(error) if isinstance(error, LimitsUnavailable) else type(error).__name__


def _capital(text: str) -> str:
    """A sentence, where the text begins with a plain word; a file or a field stays as it is."""
    first = text.split(" ", 1)[0]
    return text[0].upper() + text[1:] if first.isalpha() else text
