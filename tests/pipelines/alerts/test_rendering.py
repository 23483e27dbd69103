"""How an alert looks: rendering loses nothing, and what the alert holds harms nothing."""

import html

from pipelines.alerts.compose import compose_failure
from pipelines.alerts.rendering import render
from pipelines.contracts.artifacts import StageFailure
from pipelines.settings import Settings
from support.runs import make_run


def test_rendering_escapes_html_and_keeps_one_subject_line(tmp_path):
    run = make_run(tmp_path)
    failure = StageFailure(
        stage="build_snapshot",
        error_class="DataContractError",
        message="rows <b>lost</b> & found",
        exit_code=65,
        is_retryable=False,
        occurred_at=run.as_of,
    )
    alert = compose_failure(failure, run, Settings(), failure.stage)
    alert = alert.model_copy(update={"title": "broke\r\nBcc: everyone@example.com"})
    rendered = render(alert)
    assert rendered.subject == "[homefeed] broke Bcc: everyone@example.com"
    assert "rows &lt;b&gt;lost&lt;/b&gt; &amp; found" in rendered.html
    assert "<b>lost" not in rendered.html
    assert "rows <b>lost</b> & found" in rendered.text
    commands = [line for _, line in alert.next_step.commands]
    assert len(commands) == 2
    for part in (alert.certainty, alert.done, alert.next_step.sentence, *commands):
        assert part in rendered.text
        assert html.escape(part, quote=False) in html.unescape(rendered.html)
