"""demo"""

import typer


def add_to(application: typer.Typer) -> None:
    """Add."""
