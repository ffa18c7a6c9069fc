"""(b) and (c): Celery without Converge. `celery -A benchmarks.plain_celery` runs either.

(b) is an application with all settings of ours and a task that does nothing. (c) is what one writes
by hand: Celery as it comes, a task per message, `EmailMessage`, an SMTP connection for each, and a
row updated for each.
"""

import os
import smtplib
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from functools import cache
from typing import Any

import psycopg
from celery import Celery

from benchmarks import mail
from benchmarks import plain_celery_names as names
from config.settings import load_settings
from workers.application import make_app

SETTINGS = load_settings()


def _plain() -> Celery:
    plain = Celery("by_hand", broker=SETTINGS.broker_url)
    plain.conf.update(task_ignore_result=True, task_default_queue=names.IDLE)
    plain.conf.broker_connection_retry_on_startup = True
    return plain


app = make_app(SETTINGS) if os.environ.get(names.KIND) == names.OURS else _plain()
app.conf.include = ()
app.conf.beat_schedule = {}


@app.task(name=names.NOTHING)
def nothing(_payload: dict[str, Any]) -> None:
    """Do nothing."""


@app.task(name=names.BY_HAND)
def send_mail(number: int) -> None:
    """Read a row, write the mail, send it over a connection of its own, update the row."""
    connection = _database()
    row = connection.execute(
        "SELECT address, data FROM bench_mails WHERE id = %s AND state = 0", (number,)
    ).fetchone()
    if row is None:
        connection.commit()
        return
    address, data = row
    message = EmailMessage()
    message["From"] = f"{mail.SENDER.name} <{mail.SENDER.address}>"
    message["To"] = address
    message["Subject"] = f"Order {data['number']} is on its way"
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain=mail.SENDER.domain)
    text, markup = _texts()
    message.set_content(text % data)
    message.add_alternative(markup % data, subtype="html")
    with smtplib.SMTP("127.0.0.1", int(os.environ["BENCH_SMTP_PORT"])) as smtp:
        smtp.send_message(message)
    connection.execute("UPDATE bench_mails SET state = 2, sent_at = now() WHERE id = %s", (number,))
    connection.commit()


@cache
def _database() -> psycopg.Connection:
    return psycopg.connect(SETTINGS.database_url)


@cache
def _texts() -> tuple[str, str]:
    """Both texts of the mail that everybody sends, without its headers."""
    form = mail.skeleton().replace("\r\n", "\n")
    parts = form.split("\n--=_")
    text, markup = (part.split("\n\n", 1)[1] for part in parts[1:3])
    return text, markup
