"""Batches of intents: parsed, accepted in chunks, and answered with a verdict for each line."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final
from uuid import uuid4

import orjson

from app.api.callers import hold_to_rate
from app.api.parts import Parts, parse
from app.api.problems import Problem
from app.store.keys import Key
from app.usecases.intake.accept import accept
from app.usecases.intake.submission import Submission, Verdict
from app.usecases.observing import observe_accepted

CHUNK: Final = 500
NDJSON: Final = "application/x-ndjson"
_BY_LINE: Final = (NDJSON, "application/jsonl", "application/x-jsonlines", "application/ndjson")
BATCH_TYPES: Final = (*_BY_LINE, "application/json")

Result = dict[str, Any]


def take_batch(shared: Parts, key: Key, body: bytes, given: str, trace: str | None) -> bytes:
    """Accept a batch, traced under `trace`; return the answer. Raises `Problem`."""
    results: list[Result] = []
    documents: list[tuple[int, Any]] = []
    for line, document, broken in _lines(body) if given in _BY_LINE else _items(body):
        if broken:
            results.append(
                {
                    "line": line,
                    "status": "refused",
                    "field": "line",
                    "code": "malformed",
                    "reason": broken,
                }
            )
        else:
            documents.append((line, document))
    hold_to_rate(shared.rates, key, len(results) + len(documents))
    codes = Counter(one["code"] for one in results)
    observe_accepted(shared.runtime, {"refused": len(results)}, codes)
    for start in range(0, len(documents), CHUNK):
        chunk = documents[start : start + CHUNK]
        submission = Submission(key.brand, uuid4(), key.senders, test=key.test, trace=trace)
        verdicts = accept(shared.runtime, submission, [document for _, document in chunk])
        results += [
            _result(line, verdict) for (line, _), verdict in zip(chunk, verdicts, strict=True)
        ]
    results.sort(key=lambda one: one["line"])
    return orjson.dumps({"results": results})


def _lines(body: bytes) -> Iterable[tuple[int, Any, str]]:
    """Each line that is not blank, with its number, its document, or what is wrong with it."""
    for line, raw in enumerate(body.split(b"\n"), 1):
        if raw and not raw.isspace():
            try:
                yield line, orjson.loads(raw), ""
            except orjson.JSONDecodeError as error:
                why = f"{error.msg} (column {error.colno})"
                yield line, None, f"the line cannot be read as JSON: {why}"


def _items(body: bytes) -> Iterable[tuple[int, Any, str]]:
    document = parse(body)
    if not isinstance(document, list):
        raise Problem(
            422,
            "invalid",
            f"must be an array of intents; for one intent to a line send {NDJSON}",
            field="body",
        )
    return ((line, one, "") for line, one in enumerate(document, 1))


def _result(line: int, verdict: Verdict) -> Result:
    if verdict.field is None:
        return {"line": line, "id": verdict.id, "key": verdict.key, "status": verdict.status}
    return {
        "line": line,
        "id": verdict.id,
        "key": verdict.key,
        "status": verdict.status,
        "field": verdict.field or "intent",
        "code": verdict.code,
        "reason": verdict.reason,
    }
