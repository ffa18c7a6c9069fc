"""Health, metrics, headers, and whether OpenAPI tells the truth."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from app.api.schemas import SCHEMAS
from app.domain.masking import masked
from converge_producer.customer import CUSTOMER_CHECKS
from converge_producer.wire import _CONTENT_CHECKS, _INTENT_CHECKS, validate_intent
from tests.e2e.api import Site, intent
from tests.e2e.conftest import wait_for


def test_health_readiness_and_metrics_need_no_key(site: Site) -> None:
    assert site.get("/healthz", key="").json() == {"status": "ok"}
    ready = site.get("/readyz", key="")
    assert (ready.status_code, set(ready.json()["checks"].values())) == (200, {"ok"})
    site.post("/v1/intents", intent())
    site.fetch("/c/secret-token")

    def counted() -> str:
        text: str = site.get("/metrics", key="").text
        both = ('converge_intents_total{verdict="accepted"} 1.0', 'route="/c/{token}",status="404"')
        return text if all(one in text for one in both) else ""

    text = wait_for(counted, "what this process counted is in the ledger, and back")
    assert "secret-token" not in text
    assert site.key not in text


def test_a_wrong_schema_is_not_ready_and_says_the_command(site: Site) -> None:
    site.house.execute("UPDATE alembic_version SET version_num = '0000'")
    ready = site.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (503, "unavailable")
    assert "converge migrate" in ready.json()["checks"]["schema"]


def test_every_answer_is_guarded_and_every_error_a_problem(site: Site) -> None:
    answers = [
        site.get("/v1/intents"),
        site.get("/nowhere"),
        site.fetch("/o/x"),
        site.get("/v1/intents", key=""),
    ]
    for answer in answers:
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Cache-Control"] == "no-store"
        assert "Strict-Transport-Security" in answer.headers  # the public URL is https
    site.problem(site.get("/nowhere"), 404, None)
    wrong = site.call("DELETE", "/v1/intents")
    site.problem(wrong, 405, None)
    assert wrong.headers["Allow"] == "GET, POST"
    for path in ("/v1/customers/a%00b", "/v1/intents?key=%00"):
        site.problem(site.get(path), 400, "URL")


def test_openapi_lists_what_there_is(site: Site) -> None:
    document = site.get("/openapi.json", key="").json()
    operations = {
        (method, path): one
        for path, item in document["paths"].items()
        for method, one in item.items()
    }
    assert ("post", "/v1/intents/batch") in operations
    for (_, path), one in operations.items():
        assert ("security" in one) == path.startswith("/v1/"), path
        assert "default" in one["responses"], path
    used = {ref.rpartition("/")[2] for ref in _refs(document)}
    assert used == set(document["components"]["schemas"])
    assert set(SCHEMAS["Intent"]["properties"]) == set(_INTENT_CHECKS)
    assert set(SCHEMAS["Customer"]["properties"]) == set(CUSTOMER_CHECKS)
    content = SCHEMAS["Intent"]["properties"]["content"]
    assert set(content["properties"]) == set(_CONTENT_CHECKS)
    validate_intent({name: intent()[name] for name in SCHEMAS["Intent"]["required"]})


def test_openapi_tells_the_truth_about_answers(site: Site) -> None:
    document = site.get("/openapi.json", key="").json()
    taken = site.post("/v1/intents", intent(key="991"))
    site.house.run()
    path = taken.headers["Location"]
    lines = json.dumps(intent(key="992")) + "\nbroken\n"
    by_line = {"data": lines, "headers": {"Content-Type": "application/x-ndjson"}}
    calls = [
        ("post", "/v1/intents", taken),
        ("post", "/v1/intents", site.post("/v1/intents", intent(key="991"))),
        ("post", "/v1/intents", site.post("/v1/intents", intent(key="991", campaign="x"))),
        ("post", "/v1/intents", site.post("/v1/intents", intent(topic="x"))),
        ("post", "/v1/intents", site.post("/v1/intents", intent(), key="nonsense")),
        ("post", "/v1/intents/batch", site.call("POST", "/v1/intents/batch", **by_line)),
        ("get", "/v1/intents", site.get("/v1/intents")),
        ("get", "/v1/intents/{intent_id}", site.get(path)),
        ("get", "/v1/intents/{intent_id}", site.get("/v1/intents/none")),
        ("post", "/v1/intents/{intent_id}/cancel", site.post(f"{path}/cancel")),
        ("put", "/v1/customers/{ref}", site.put("/v1/customers/ada", {})),
        ("get", "/v1/customers/{ref}", site.get("/v1/customers/ada")),
        ("get", "/v1/customers/{ref}/timeline", site.get("/v1/customers/ada/timeline")),
        ("delete", "/v1/customers/{ref}", site.call("DELETE", "/v1/customers/ada")),
        ("get", "/o/{token}", site.fetch("/o/x")),
        ("get", "/c/{token}", site.fetch("/c/x")),
        ("get", "/readyz", site.get("/readyz")),
    ]
    for method, template, answer in calls:
        told = document["paths"][template][method]["responses"][str(answer.status_code)]
        kind = answer.headers.get("Content-Type", "").partition(";")[0]
        assert list(told.get("content", {"": None})) == [kind], (template, answer.status_code)
        if kind.endswith("json"):
            _check(document, told["content"][kind]["schema"], answer.json(), template)


def _check(document: Any, schema: Any, value: Any, where: str) -> None:
    """Hold a value to as much of JSON Schema as our descriptions use."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return _check(document, document["components"]["schemas"][name], value, where)
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        problems = []
        for one in options:
            try:
                return _check(document, one, value, where)
            except AssertionError as problem:
                problems.append(problem)
        raise AssertionError(f"{where}: {problems}")
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    known = {dict: "object", list: "array", str: "string", int: "integer", bool: "boolean"}
    assert known.get(type(value), "null") in kinds, (where, value)
    if "enum" in schema:
        assert value in schema["enum"], (where, value)
    if isinstance(value, dict) and "properties" in schema:
        assert set(schema.get("required", ())) <= set(value), where
        assert set(value) <= set(schema["properties"]), (where, set(value))
        for name, inner in value.items():
            _check(document, schema["properties"][name], inner, f"{where}.{name}")
    if isinstance(value, list):
        for inner in value:
            _check(document, schema["items"], inner, f"{where}[]")
    return None


def _refs(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from _refs(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _refs(inner)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("ada@example.com", "a***@example.com"),
        ("+15550100101", "+1•••0101"),
        ("@ada:example.org", "@a***:example.org"),
        ("U02ABC", "U0***"),
        ("+1555", "+1***"),
        ("x", "***"),
        ("", "***"),
    ],
)
def test_addresses_are_shown_masked(address: str, shown: str) -> None:
    assert masked(address) == shown
