"""`python -m igr`, the `igr` command."""

from igr.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
