"""Settings with the embedded servers filled in where no others are configured."""

from app.embedded import EmbeddedServers
from config.settings import Settings, SettingsError, load_settings


def running_settings() -> Settings:
    """Read the settings; in the embedded profile find the servers that `converge up` runs.

    Raises `SettingsError` when there are none: only `converge up` and its like start servers.
    """
    settings = load_settings()
    if not settings.embedded:
        return settings
    found = EmbeddedServers(settings.data_dir).find()
    if found is None:
        raise SettingsError(
            f"No servers run in {settings.data_dir}. Start them with `converge up` in the same "
            "folder, or set CONVERGE_DATABASE_URL and CONVERGE_REDIS_URL."
        )
    return settings.with_servers(found.database_url, found.redis_url, found.secret)
