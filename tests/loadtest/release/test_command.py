import json

from click.testing import CliRunner, Result

from loadtest.release.command import bench_release


def call(*arguments: object) -> Result:
    return CliRunner().invoke(bench_release, [str(argument) for argument in arguments])


def test_the_table_and_its_json_are_of_the_same_releases() -> None:
    small = ["--releases", 3, "--requests", 3_000, "--processes", 1, "--cell", "errors +10 points from 10 %"]
    table, printed = call(*small), call(*small, "--json")
    assert table.exit_code == printed.exit_code == 0, table.output
    document = json.loads(printed.stdout)
    (row,) = document["rows"]
    assert row["releases"] == 3 and row["rolled_back"] == 1.0 and row["holds"]
    assert "/".join(str(value) for value in row["until_rollback"].values()) in table.output
    assert all(cost > 0 for cost in document["settings"]["microseconds_per_request"].values())
    assert document["settings"]["requests"] == 3_000


def test_a_cell_that_is_not_there_is_bad_usage() -> None:
    assert call("--cell", "no such").exit_code == 2
