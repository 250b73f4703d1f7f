"""`turnout shadow` against real listeners: the table, JSON, and one line where there is nothing."""

import re

import msgspec
from click.testing import CliRunner, Result

from router.admin.shadows import ShadowsView, shadows_view
from router.commands.shadow import shadow
from tests.router.admin.test_shadows import counts
from tests.router.commands.test_status import Listener


def run(*arguments: str, view: ShadowsView | None = None, token: str | None = None) -> Result:
    body = msgspec.json.encode(shadows_view(counts().tallies) if view is None else view)
    with Listener(200, body, token).running() as listener:
        result = CliRunner().invoke(shadow, ["--admin", listener.url, *arguments])
        assert listener.paths == ["/api/shadow"]
        return result


def test_the_table_says_how_the_versions_compare() -> None:
    result = run("m")
    assert result.exit_code == 0
    said = " ".join(result.output.split())
    assert "m: copies to v2 of what v1 served" in said
    assert "4 compared, 1 failed, 4 sent" in said
    assert "why not: 1 total timeout" in said
    assert "another count of prompt tokens 4 4 100.0%" in said
    assert re.search(r"first token (99|10)[.\d]* ms (19|20)\d ms (1\.9|2\.0)\d", said)
    assert "greedy: 2 of 4 texts are equal; 75.0% of a text is in common on average" in said
    assert "r3: prompt_tokens 10, 12 by the copy; text after 4 of 8 characters" in said
    assert "a: copies" not in said


def test_every_model_is_shown_that_has_copies() -> None:
    """Also one none of whose copies was sent."""
    assert "a: copies to v2 of what v1 served" in run().output
    assert "1 dropped saturated" in run().output


def test_json_is_the_document_of_these_models() -> None:
    view = msgspec.json.decode(run("m", "--json").output, type=ShadowsView)
    assert view.shadows == [each for each in shadows_view(counts().tallies).shadows if each.model == "m"]


def test_where_there_is_nothing_it_says_what_to_do() -> None:
    for arguments, view in ((("other",), None), ((), ShadowsView([]))):
        result = run(*arguments, view=view)
        assert result.exit_code == 1
        assert "[models.NAME.shadow]" in result.output


def test_the_token_is_asked_for() -> None:
    result = run(token="s3cret")
    assert result.exit_code == 1
    assert "asks for its token" in result.output
    assert run("--token", "s3cret", token="s3cret").exit_code == 0
