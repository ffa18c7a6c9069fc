"""The template language of contents: a small, bounded part of Jinja in its sandbox.

Placeholders, `if` and `for` with expressions and a list of filters; no calls, assignments, macros
or includes. Running one yields a *marked* text (see `marks`) and the values to put at the marks:
nothing is escaped here, because the same value goes into HTML, plain text and URLs.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, nodes
from jinja2 import pass_context as with_context
from jinja2.runtime import Context, Undefined

from app.content.bounds import (
    BOUNDED_FILTERS,
    MAX_TEXT,
    RUN,
    TOO_LONG,
    BoundedEnvironment,
    Bounding,
    Run,
    TooMuch,
)
from app.content.marks import OPEN, as_text, mark, tidy
from app.content.problem import ContentRefused

MAX_PLACEHOLDERS: Final = 500
MAX_NODES: Final = 5_000
"""Of a text's syntax tree; compiling so many takes some tenths of a second."""

_TOO_DEEP = "the template is nested too deeply"
_TEMPLATE_SIGNS = ("{{", "{%", "{#")
_MISSING = re.compile(r"'(\w+)' is undefined")
_FILTERS = (
    "abs", "capitalize", "count", "d", "default", "dictsort", "first", "float", "int",
    "items", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr",
    "reverse", "select", "selectattr", "sort", "string", "title", "trim",
    "truncate", "unique", "upper", "wordcount",
)  # fmt: skip
_NODES = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Name, nodes.Const,
    nodes.Tuple, nodes.List, nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Filter, nodes.Test,
    nodes.CondExpr, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Neg,
    nodes.Pos, nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Concat,
    nodes.Keyword, nodes.Pair,
)  # fmt: skip


@with_context
def _to_mark(context: Context, value: object) -> str:
    """Jinja's `finalize`: keep an output's value and leave a mark in its place."""
    if isinstance(value, Undefined):
        str(value)  # raises, and names the variable
    run: Run = context.parent[RUN]
    if not isinstance(value, str):
        run.look_at(value)
    text = as_text(value)
    run.length += len(text)
    if run.length > MAX_TEXT:
        raise TooMuch(TOO_LONG)
    run.values.append(text)
    return mark("", len(run.values) - 1)


def _environment() -> BoundedEnvironment:
    environment = BoundedEnvironment(
        undefined=StrictUndefined,
        finalize=_to_mark,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # values are escaped where they land, see the module's text
    )
    environment.globals.clear()
    allowed = {name: environment.filters[name] for name in _FILTERS}
    environment.filters = allowed | BOUNDED_FILTERS
    return environment


_ENVIRONMENT: Final = _environment()


def _refusal(node: nodes.Node) -> str | None:
    if not isinstance(node, _NODES):
        return f"{type(node).__name__.lower()} is not allowed in a content"
    if isinstance(node, nodes.Filter) and node.name not in _ENVIRONMENT.filters:
        return f"there is no filter {node.name!r}"
    if isinstance(node, nodes.Getattr) and node.attr.startswith("_"):
        return f"{node.attr!r} may not be read"
    if isinstance(node, nodes.For) and node.recursive:
        return "recursive loops are not allowed in a content"
    return None


def _parse(field: str, text: str) -> nodes.Template:
    try:
        tree = _ENVIRONMENT.parse(text)
        for count, node in enumerate(tree.find_all(nodes.Node)):
            if reason := _refusal(node):
                raise ContentRefused(field, f"line {node.lineno}: {reason}")
            if count > MAX_NODES:
                raise ContentRefused(field, f"the template has more than {MAX_NODES:,} parts")
    except TemplateSyntaxError as error:
        raise ContentRefused(field, f"line {error.lineno}: {error.message}") from None
    except RecursionError:
        raise ContentRefused(field, _TOO_DEEP) from None
    return tree


def _compile(field: str, tree: nodes.Template) -> Template:
    try:
        return _ENVIRONMENT.from_string(Bounding(_ENVIRONMENT).visit(tree))
    except (SyntaxError, RecursionError, MemoryError):  # Python has limits of its own
        raise ContentRefused(field, _TOO_DEEP) from None


_PlainParts: TypeAlias = list[nodes.TemplateData | nodes.Name]


def _plain_parts(tree: nodes.Template) -> _PlainParts | None:
    """The pieces of a template that has bare `{{ name }}` placeholders and nothing else."""
    parts: _PlainParts = []
    for output in tree.body:
        if not isinstance(output, nodes.Output):
            return None
        for part in output.nodes:
            if not isinstance(part, nodes.TemplateData | nodes.Name):
                return None
            parts.append(part)
    return parts


@dataclass(frozen=True, slots=True)
class Expansion:
    """Texts with marks, and the value for each mark's number."""

    marked: tuple[str, ...]
    values: list[str]


class Texts:
    """Some texts of one content, compiled together: their marks share one numbering.

    `names` are the variables of bare placeholders. `fixed` says that there is nothing else in the
    texts, so that `marked` is the same for everybody; else Jinja runs for each person.
    """

    __slots__ = ("_templates", "fixed", "marked", "names")

    def __init__(self, fields: Mapping[str, str]) -> None:
        """`fields` maps a field's path to its text; raises `ContentRefused` naming it."""
        self._templates: list[tuple[int, str, Template]] = []
        numbers: dict[str, int] = {}
        marked = []
        for place, (field, text) in enumerate(fields.items()):
            if len(text) > MAX_TEXT:
                raise ContentRefused(field, f"longer than {MAX_TEXT:,} characters")
            clean = tidy(text)
            if any(sign in clean for sign in _TEMPLATE_SIGNS):
                tree = _parse(field, clean)
                parts = _plain_parts(tree)
                if parts is None:
                    self._templates.append((place, field, _compile(field, tree)))
                clean = _mark_plainly(parts or [], numbers)
            marked.append(clean)
        if sum(text.count(OPEN) for text in marked) > MAX_PLACEHOLDERS:
            raise ContentRefused("content", f"more than {MAX_PLACEHOLDERS} placeholders")
        self.marked = tuple(marked)
        self.names = tuple(numbers)
        self.fixed = not self._templates

    def expand(self, data: Mapping[str, Any]) -> Expansion:
        """Run the texts with one person's data; raises `ContentRefused`."""
        try:
            values = [as_text(data[name]) for name in self.names]
        except KeyError as error:
            raise missing(str(error.args[0])) from None
        if sum(map(len, values)) > MAX_TEXT:
            raise ContentRefused("data", TOO_LONG)
        return Expansion(self.marked if self.fixed else self._run(data, values), values)

    def _run(self, data: Mapping[str, Any], values: list[str]) -> tuple[str, ...]:
        """The marked texts where Jinja has its say; the values of its outputs join `values`."""
        variables = {**data, RUN: Run(values)}
        marked = list(self.marked)
        for place, field, template in self._templates:
            try:
                marked[place] = _run_one(template, variables)
            except Exception as error:  # noqa: BLE001  # of a filter, and about this message alone
                raise _explain(field, error) from None
        return tuple(marked)


def _run_one(template: Template, variables: dict[str, Any]) -> str:
    pieces = []
    length = 0
    for piece in template.generate(variables):
        length += len(piece)
        if length > MAX_TEXT:
            raise TooMuch(f"longer than {MAX_TEXT:,} characters")
        pieces.append(piece)
    return "".join(pieces)


def _mark_plainly(parts: _PlainParts, numbers: dict[str, int]) -> str:
    """The parts with marks; a name that is new in `numbers` gets the next one."""
    return "".join(
        part.data
        if isinstance(part, nodes.TemplateData)
        else mark("", numbers.setdefault(part.name, len(numbers)))
        for part in parts
    )


def missing(name: str) -> ContentRefused:
    """The refusal of a person's data that lack a variable of the content."""
    return ContentRefused(f"data.{name}", f"the content uses {{{{ {name} }}}}, and data lacks it")


def _explain(field: str, error: Exception) -> ContentRefused:
    # Other errors can quote the person's data, and this text is kept.
    told = isinstance(error, TemplateError | TypeError | AssertionError)
    reason = str(error) if told else type(error).__name__
    if found := _MISSING.search(reason):
        return missing(found[1])
    return ContentRefused(field, f"the template fails: {reason}")
