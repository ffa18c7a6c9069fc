"""The command line, `converge`: for operators, admins and whoever tries Converge out."""


def main() -> None:
    """Run `converge`."""
    from app.cli.commands import run

    run()
