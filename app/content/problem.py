"""What is wrong with a content, said so that its author can mend it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ContentProblem:
    """`field` is a path in the intent, such as `data.name`; `reason` a sentence for its author."""

    field: str
    reason: str


class ContentRefused(Exception):
    """This content cannot be said to this person. It concerns one message, never its batch."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.problem = ContentProblem(field, reason)
