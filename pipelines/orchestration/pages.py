"""What Airflow's pages show beside its own: words about a DAG and its form, and buttons of a task.

Airflow keeps the texts with the DAG, and makes a new version of the DAG where they differ, so they
say nothing that changes while the code stays. It stores a button's address when the task ends, so
that its pages read nothing of the workspace.
"""

from typing import Any

from airflow.sdk import BaseOperatorLink

from pipelines.alerts.links import DOCS_IN_MLFLOW, IN_MLFLOW, PAGE_IN_MLFLOW
from pipelines.recipes import RECIPES
from pipelines.recipes.references import EXPECTED
from pipelines.recipes.triggering import choices
from pipelines.settings import Settings


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
    return (text or "").replace("`docs/runbook.md`", f"[docs/runbook.md](<{page}>)")


def about_recipe(settings: Settings) -> str:
    """Return what `recipe` may be, and what each offered recipe is for, as Markdown."""
    offered = []
    for name in choices(settings.recipe):
        purpose = "this deployment's own."
        if name in RECIPES:
            first = (RECIPES[name].__doc__ or "").strip().splitlines()[0]
            purpose = first.removeprefix("Return ").replace("`", "")
        # Not as code, whose boxes Airflow's form draws over the lines above and below.
        offered.append(f"- **{name}**: {purpose}")
    lead = f"Configuration to run: {EXPECTED}. HOMEFEED_RECIPE_PACKAGES: which packages."
    return "\n".join([lead, "", *offered, "", f"This deployment's own is **{settings.recipe}**."])


class OutcomeLink(BaseOperatorLink):
    """A link of a cycle's outcome, as the alert and the page have it."""

    def __init__(self, label: str) -> None:
        self._label = label

    @property
    def name(self) -> str:
        """What the button says."""
        return self._label

    @property
    def xcom_key(self) -> str:
        """Where Airflow keeps the address."""
        return f"link_{self._label.lower().replace(' ', '_')}"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the address, '' where the cycle was not judged or no server shows it.

        Args:
            operator: The task.
            ti_key: The task instance that has just ended.
        """
        from pipelines import storage
        from pipelines.contracts.judgement import Judgement
        from pipelines.contracts.run_layout import manifest_uri
        from pipelines.stages.runner import read_artifact

        resolved = ti_key.xcom_pull(task_ids="resolve_run")
        # Airflow also asks when an attempt has failed, and would log an error of this one.
        if not resolved or not storage.exists(manifest_uri(resolved["run_uri"], operator.task_id)):
            return ""
        judged = read_artifact(resolved["run_uri"], operator.task_id, Judgement)
        return dict(judged.outcome.links).get(self._label, "") if judged.outcome else ""


LINKS = {"compare_with_champion": [*map(OutcomeLink, (IN_MLFLOW, PAGE_IN_MLFLOW, DOCS_IN_MLFLOW))]}
"""The links of each stage that has any."""
