"""The command line, `converge`: for operators, admins and whoever tries Converge out."""

from app.cli.commands import main

__all__ = ["main"]
