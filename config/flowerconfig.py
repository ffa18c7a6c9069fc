"""Flower's configuration: `celery -A workers flower --conf=config/flowerconfig.py`.

Everybody signs in, nobody controls workers from it unless told otherwise, and arguments that do not
look like ours are hidden. `/metrics` and `/healthcheck` of Flower are open by its own design: they
hold names of tasks and workers, and counts.
"""

import re
from typing import Any

from config.settings import load_settings

_settings = load_settings()

address = _settings.flower_host
port = _settings.flower_port
basic_auth = [_settings.flower_credentials]
read_only = _settings.flower_read_only
max_tasks = 20_000  # some 5 KB each in its memory
natural_time = False
persistent = False
tasks_columns = "name,uuid,state,args,result,received,runtime,worker"

# "<200 email deliveries, relay-1>", and "sent 180, retry 15, rejected 5" or "nothing"
_OUR_ARGUMENTS = re.compile(r"<[^<>]*>")
_OUR_RESULT = re.compile(r"'?(?:nothing|[a-z_ ]+ \d+(?:, [a-z_ ]+ \d+)*)'?")


def format_task(task: Any) -> Any:
    """Show arguments and results only in the form that ours have, which holds nothing private."""
    if task.args is not None and not _OUR_ARGUMENTS.fullmatch(str(task.args)):
        task.args = "<hidden>"
    task.kwargs = "{}" if task.kwargs in (None, "{}", {}) else "<hidden>"
    if task.result is not None and not _OUR_RESULT.fullmatch(str(task.result)):
        task.result = "<hidden>"
    return task
