"""What an operation takes and answers, as OpenAPI says it (https://spec.openapis.org/oas/v3.1.1)."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final

from app.api.problems import MEDIA_TYPE
from app.api.schemas import NO_NUL, SCHEMAS, Schema, ref, text

RESPONSES: Final = "x-responses"
"""Where an operation keeps its answers until `finish` puts them in place of the framework's."""
PAGE_CODES: Final = (404, 410, 503)


def doc(
    answers: dict[int, Schema | None],
    errors: Sequence[int] = (),
    *,
    body: Schema | None = None,
    needs_body: bool = True,
    by_line: str | None = None,
    links: Mapping[str, tuple[str, str]] | None = None,
    key: bool = True,
    kind: str = "application/json",
) -> Schema:
    """An operation's answers by status (a schema, or None for no body), errors and body.

    Without `needs_body` the body may be left out. `by_line` is the media type in which it may also
    come, one `Intent` to a line. `links` says which operations go on from an answer: (their
    parameter, the answer's field) by their id.
    """
    linked: Schema = {
        name: {"operationId": name, "parameters": {parameter: f"$response.body#/{field}"}}
        for name, (parameter, field) in (links or {}).items()
    }
    more = {"links": linked} if linked else {}
    responses: Schema = {}
    for status, schema in answers.items():
        content = {} if schema is None else {"content": {kind: {"schema": schema}}}
        responses[str(status)] = {"description": HTTPStatus(status).phrase, **content, **more}
    for status in (*errors, *((401, 503) if key else ())):
        responses.setdefault(str(status), _problem(HTTPStatus(status).phrase))
    responses["default"] = _problem("Any other error")
    request: Schema = {}
    if body is not None:
        content = {"application/json": {"schema": body}}
        if by_line:
            content[by_line] = {"schema": text(description="one Intent as JSON to a line")}
        request = {"requestBody": {"required": needs_body, "content": content}}
    return {RESPONSES: responses, **request}


def page_doc(kind: str, status: int, errors: Sequence[int]) -> Schema:
    """An operation for browsers: what it answers, and errors that are plain pages."""
    content = {"content": {kind: {"schema": text()}}} if kind else {}
    responses: Schema = {str(status): {"description": HTTPStatus(status).phrase, **content}}
    for error in errors:
        page = {"text/html": {"schema": text()}}
        responses[str(error)] = {"description": HTTPStatus(error).phrase, "content": page}
    responses["default"] = _problem("Any other error")
    return {RESPONSES: responses}


def hook_doc(parameters: Sequence[str], method: str) -> Schema:
    """An operation that takes a provider's report, in whatever form the provider has."""
    return {
        "tags": ["webhooks"],
        "summary": "A provider's report",
        "description": "What a provider reports of one account. A repeat is as welcome as the "
        "first. 403: the signature does not fit.",
        "operationId": f"hook_{method.lower()}_{len(parameters)}",
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": text(pattern=NO_NUL)}
            for name in parameters
        ],
        "requestBody": {"content": {"*/*": {}}},
        **doc({204: None, 200: {}}, (403, 404, 413, 415, 503), key=False),
    }


def finish(document: Schema) -> Schema:
    """Put our answers and schemas in place of those that the framework guesses."""
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"] = operation.pop(RESPONSES)
    document.setdefault("components", {})["schemas"] = SCHEMAS
    return document


def _problem(description: str) -> Schema:
    return {
        "description": description,
        "content": {MEDIA_TYPE: {"schema": ref("Problem")}},
    }
