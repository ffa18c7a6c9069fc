"""What is wrong with what somebody asked for, whoever asks and wherever."""


class FieldError(Exception):
    """Something named cannot be taken: `field` says what, `reason` why, and the way out."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason
