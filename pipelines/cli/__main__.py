"""`python -m pipelines.cli` is `homefeed`, for environments whose scripts are not on the PATH."""

from pipelines.cli.main import main

main()
