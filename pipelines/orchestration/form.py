"""What Airflow's pages show of a DAG in words: its documentation, and the recipes of the form.

Airflow keeps these texts with the DAG, and makes a new version of the DAG where they differ. So
they say nothing that changes while the code stays. Tested in
tests/pipelines/orchestration/test_form.py.
"""

from pipelines.recipes import RECIPES
from pipelines.recipes.references import EXPECTED
from pipelines.recipes.triggering import choices
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
