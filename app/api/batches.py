"""Batches of intents: parsed, accepted in chunks, and answered with a verdict for each line."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final
from uuid import uuid4

import orjson

from app.api.parts import parse
from app.api.problems import Problem
from app.store.keys import Key
from app.usecases.accept import Submission, Verdict, accept
from app.usecases.runtime import Runtime

CHUNK: Final = 500
NDJSON: Final = "application/x-ndjson"
_BY_LINE: Final = (NDJSON, "application/jsonl", "application/x-jsonlines", "application/ndjson")
BATCH_TYPES: Final = (*_BY_LINE, "application/json")

Result = dict[str, Any]


def take_batch(runtime: Runtime, key: Key, body: bytes, given: str) -> tuple[bytes, Counter[str]]:
    """Accept a batch; return the answer and how many of each verdict. Raises `Problem`."""
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
    for start in range(0, len(documents), CHUNK):
        chunk = documents[start : start + CHUNK]
        submission = Submission(brand=key.brand, chunk=uuid4(), senders=key.senders, test=key.test)
        verdicts = accept(runtime, submission, [document for _, document in chunk])
        results += [
            _result(line, verdict) for (line, _), verdict in zip(chunk, verdicts, strict=True)
        ]
    results.sort(key=lambda one: one["line"])
    return orjson.dumps({"results": results}), Counter(one["status"] for one in results)


def _lines(body: bytes) -> Iterable[tuple[int, Any, str]]:
    """Each line that is not blank, with its number, its document, or what is wrong with it."""
    for line, raw in enumerate(body.split(b"\n"), 1):
        if raw and not raw.isspace():
            try:
                yield line, orjson.loads(raw), ""
            except orjson.JSONDecodeError as error:
                yield line, None, f"the line is not JSON (column {error.colno})"


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
