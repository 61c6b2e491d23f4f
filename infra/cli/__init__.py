"""The command `rat`. `rat --help` answers at once: what is heavy is imported by the command that needs it."""


def main() -> None:
    """Run the command."""
    from infra.cli.app import app

    app()
