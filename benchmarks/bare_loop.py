"""(a) The bare loop: claim, format, send over pipelined SMTP, record; nothing else.

`python -m benchmarks.bare_loop DATABASE_URL PORT` empties its table `bench_mails` of work and
prints how many mails it sent, the seconds from its first claim to its last commit, and those of
them in which it computed. No limits, no signed links, no attempts kept, no decisions, no broker:
what any mailing system on Postgres has to do at the least.
"""

import sys
import time

import psycopg

from app.channels.contract import Accepted, Message
from app.channels.email.smtp import SmtpProvider
from app.channels.email.smtp_pool import SmtpSettings
from app.domain.vocabulary import Channel
from benchmarks import mail

BATCH = 200
TABLE = """
    DROP TABLE IF EXISTS bench_mails;
    CREATE TABLE bench_mails (
        id bigint PRIMARY KEY, address text NOT NULL, data jsonb NOT NULL,
        state smallint NOT NULL DEFAULT 0, ref text, sent_at timestamptz);
    CREATE INDEX bench_mails_waiting ON bench_mails (id) WHERE state = 0"""
FILL = """
    INSERT INTO bench_mails (id, address, data)
    SELECT number, 'customer-' || number %% 5000 || '@example.com',
           jsonb_build_object('name', 'Ada ' || number, 'number', (100000 + number)::text,
                              'day', 'Tuesday')
      FROM generate_series(1, %s) AS g(number)"""
_CLAIM = """
    UPDATE bench_mails SET state = 1 WHERE id IN (
        SELECT id FROM bench_mails WHERE state = 0 ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED)
    RETURNING id, address, data"""
_RECORD = """
    UPDATE bench_mails m SET state = 2, ref = r.ref, sent_at = now()
      FROM unnest(%s::bigint[], %s::text[]) AS r(id, ref) WHERE m.id = r.id"""


def run(database_url: str, port: int) -> tuple[int, float, float]:
    """Send everything that waits; return how many mails, the seconds, and processor seconds."""
    settings = SmtpSettings(host="127.0.0.1", port=port, tls="none")
    provider = SmtpProvider("bare", Channel.EMAIL, settings)
    form, date = mail.skeleton(), mail.today()
    sent = 0
    with psycopg.connect(database_url) as connection:
        connection.execute("SELECT 1")
        connection.commit()
        started, computed = time.monotonic(), time.process_time()
        while True:
            rows = connection.execute(_CLAIM, (BATCH,)).fetchall()
            connection.commit()
            if not rows:
                break
            batch = [
                Message(
                    number,
                    str(number),
                    address,
                    mail.SENDER.address,
                    mail.body(form, {**data, "address": address, "date": date}),
                )
                for number, address, data in rows
            ]
            outcomes = provider.send(batch, time.monotonic() + 60)
            done = [
                (message.delivery_id, outcome.ref)
                for message, outcome in zip(batch, outcomes, strict=True)
                if isinstance(outcome, Accepted)
            ]
            connection.execute(_RECORD, ([one[0] for one in done], [one[1] for one in done]))
            connection.commit()
            sent += len(done)
        seconds, computed = time.monotonic() - started, time.process_time() - computed
    provider.close()
    return sent, seconds, computed


if __name__ == "__main__":
    sys.stdout.write(" ".join(map(str, run(sys.argv[1], int(sys.argv[2])))))
