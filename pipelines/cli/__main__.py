"""`python -m pipelines.cli` is `homefeed`, for environments whose scripts are not on the PATH.

Tested in tests/pipelines/cli/test_main.py, which runs every command in this way.
"""

from pipelines.cli.main import main

main()
