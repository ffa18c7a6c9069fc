"""What keeps a template from eating its worker: every run has a budget of work and of length.

Jinja's sandbox stops code, not waste: `{{ [1]|batch(10**9, 'x') }}` or a long text joined to itself
a thousand times would take all memory. So before anything is done with a value its size is taken
from the run's budget, by nodes that `Bounding` puts into the syntax tree.
"""

from collections.abc import Iterable
from typing import Any, Final, Literal

from jinja2 import TemplateError, nodes, pass_environment
from jinja2 import pass_context as with_context
from jinja2.environment import Environment
from jinja2.filters import do_round, do_sum
from jinja2.runtime import Context, LoopContext, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from app.content.marks import as_text

MAX_TEXT: Final = 100_000
MAX_STEPS: Final = 2_000
MAX_WORK: Final = 1_000_000
"""Characters, items and parts of the template that one run may look at; about half a second."""

RUN: Final = "\0run"
TOO_LONG: Final = f"what is put in makes it longer than {MAX_TEXT:,} characters"
_STEP, _LOOK = "step\0", "look\0"
_MOST_DIGITS = 15
_MOST_BITS = 10_000
_ARGUMENT = 10  # each so many characters of arguments count as another look at the value


class TooMuch(TemplateError):
    """The run would make or look at more than a message can need."""


class Run:
    """What one run has made and done so far."""

    __slots__ = ("length", "steps", "values", "work")

    def __init__(self, values: list[str]) -> None:
        self.values = values
        self.length = 0
        self.steps = 0
        self.work = 0

    def spend(self, work: int) -> None:
        """Take from the budget; raises `TooMuch`."""
        self.work += work
        if self.work > MAX_WORK:
            raise TooMuch("it makes too much of its data")

    def look_at(self, value: object, times: int = 1) -> None:
        """Take the size of a value, with all that it holds, from the budget."""
        waiting = [value]
        while waiting:
            each = waiting.pop()
            if isinstance(each, str):
                self.spend(times * (1 + len(each)))
                continue
            self.spend(times)
            if isinstance(each, dict):
                waiting += each
                waiting += each.values()
            elif isinstance(each, list | tuple):
                waiting += each


@with_context
def _step(context: Context, items: Iterable[object], weight: int) -> Iterable[object]:
    """What a loop runs over; `weight` is how many parts its body has."""
    run: Run = context.parent[RUN]
    for item in items:
        run.steps += 1
        if run.steps > MAX_STEPS:
            raise TooMuch(f"loops take more than {MAX_STEPS} steps")
        run.spend(weight)
        yield item


@with_context
def _look(context: Context, value: object, *arguments: object) -> object:
    """The value itself, once its size is paid for."""
    told = sum(len(each) for each in arguments if isinstance(each, str))
    context.parent[RUN].look_at(value, 1 + told // _ARGUMENT)
    return value


@with_context
def _join(context: Context, items: Iterable[object], separator: str = "") -> str:
    texts = [as_text(item) for item in items]
    if sum(map(len, texts)) + len(separator) * len(texts) > MAX_TEXT:
        raise TooMuch("join makes too long a text")
    text = separator.join(texts)
    context.parent[RUN].spend(len(text))
    return text


@with_context
def _replace(context: Context, text: object, old: str, new: str) -> str:
    source = as_text(text)
    if len(source) + source.count(old) * len(new) > MAX_TEXT:
        raise TooMuch("replace makes too long a text")
    replaced = source.replace(old, new)
    context.parent[RUN].spend(len(replaced))
    return replaced


def _round(
    value: float, precision: int = 0, method: Literal["common", "ceil", "floor"] = "common"
) -> float:
    if abs(precision) > _MOST_DIGITS:
        raise TooMuch(f"round takes at most {_MOST_DIGITS} digits")
    return do_round(value, precision, method)


@pass_environment
def _sum(environment: Environment, items: Iterable[Any], attribute: str | None = None) -> Any:
    return do_sum(environment, items, attribute)  # numbers alone: lists would be copied for each


BOUNDED_FILTERS: Final[dict[str, Any]] = {
    "join": _join, "replace": _replace, "round": _round, "sum": _sum, _STEP: _step, _LOOK: _look,
}  # fmt: skip


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, with bounds on what operators make, and data that have no methods.

    `{{ order.items }}` is what the data call so; Jinja alone would write Python's method.
    """

    intercepted_binops = frozenset({"*", "%", "+"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Calculate; raises `TooMuch` where that would make something huge."""
        if isinstance(left, int | float) and isinstance(right, int | float):
            if max(_bits(left), _bits(right)) > _MOST_BITS:
                raise TooMuch("a number is too large")
        elif operator != "+":
            # "x" * 10**9 and "%1000000000d" % 1 would take the memory of the whole worker.
            raise TooMuch(f"{operator} works on numbers alone")
        else:
            run: Run = context.parent[RUN]
            run.look_at(left)
            run.look_at(right)
        return super().call_binop(context, operator, left, right)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """What `obj.attribute` means: an item of data, or what Jinja's own `loop` tells."""
        if isinstance(obj, LoopContext):
            return super().getattr(obj, attribute)
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """What `obj[argument]` means: an item, a character, a slice."""
        if isinstance(obj, Undefined):
            return super().getitem(obj, argument)
        try:
            return obj[argument]
        except (LookupError, TypeError):
            return self.undefined(obj=obj, name=argument)


def _bits(number: float) -> int:
    return number.bit_length() if isinstance(number, int) else 0


class Bounding(NodeTransformer):
    """Puts into a syntax tree what takes from the budget. `~` becomes `join`, which has a bound."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:  # noqa: N802  # Jinja's names
        """A filter looks at its value, once for every name in its arguments."""
        self.generic_visit(node)
        node.node = self._looked_at(node.node, _arguments(node)) if node.node else None
        return node

    def visit_Test(self, node: nodes.Test) -> nodes.Node:  # noqa: N802  # Jinja's name
        """A test looks at its value."""
        self.generic_visit(node)
        node.node = self._looked_at(node.node, _arguments(node))
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802  # Jinja's name
        """A comparison looks at both sides."""
        self.generic_visit(node)
        node.expr = self._looked_at(node.expr)
        for operand in node.ops:
            operand.expr = self._looked_at(operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802  # Jinja's name
        """A slice is a copy."""
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = self._looked_at(node.node)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802  # Jinja's name
        """What is concatenated is joined."""
        self.generic_visit(node)
        together = nodes.List(node.nodes, lineno=node.lineno)
        return self._filter(self._looked_at(together), "join", [])

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802  # Jinja's name
        """A loop counts its steps, each as dear as its body is long."""
        weight = sum(1 for _ in node.find_all(nodes.Node))
        self.generic_visit(node)
        counted = nodes.Const(weight, lineno=node.lineno)
        node.iter = self._filter(self._looked_at(node.iter), _STEP, [counted])
        return node

    def _looked_at(self, node: Any, arguments: list[nodes.Expr] | None = None) -> nodes.Expr:
        if isinstance(node, nodes.Const):
            constant: nodes.Expr = node
            return constant
        return self._filter(node, _LOOK, arguments or [])

    def _filter(self, node: Any, name: str, arguments: list[nodes.Expr]) -> nodes.Expr:
        made = nodes.Filter(node, name, arguments, [], None, None, lineno=node.lineno)
        made.set_environment(self._environment)
        return made


def _arguments(node: nodes.Filter | nodes.Test) -> list[nodes.Expr]:
    """What may name many attributes: those in constants and variables, not made on the way."""
    return [*node.args, *(each.value for each in node.kwargs)]
