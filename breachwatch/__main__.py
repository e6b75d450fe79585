"""`python -m breachwatch` and the `breachwatch` command."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from breachwatch.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
