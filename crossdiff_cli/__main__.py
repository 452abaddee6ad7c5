"""`python -m crossdiff_cli`: the same as the `crossdiff` command."""

from crossdiff_cli.cli.main import main

if __name__ == "__main__":
    main()
