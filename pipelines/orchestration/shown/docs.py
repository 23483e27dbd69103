"""A DAG's documentation, as Airflow's page shows it: the runbook is a link where it has an address.

Tested in tests/pipelines/orchestration/shown/test_docs.py.
"""

from pipelines.settings import Settings

RUNBOOK = "`docs/runbook.md`"
"""How a DAG's documentation names it."""


def with_runbook(text: str | None, settings: Settings) -> str:
    """Return a DAG's documentation with a link wherever it names the runbook.

    A browser opens no file from Airflow's page, so that without an address the name stays.

    Args:
        text: The DAG file's docstring.
        settings: The runbook's address, where this deployment has one.
    """
    page = settings.runbook_url
    if not page.startswith(("http://", "https://")):
        return text or ""
    return (text or "").replace(RUNBOOK, f"[docs/runbook.md](<{page}>)")
