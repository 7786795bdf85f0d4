"""How many rows a plan of SQLite reads."""

from __future__ import annotations

import pytest

from apbatch.index.sql.estimates import rows_of_plan

COUNTED = {"file_by_night": [500_000, 1_000, 1], "file_by_place": [1]}


@pytest.mark.parametrize(
    ("lines", "rows"),
    [
        (["SCAN f", "USE TEMP B-TREE FOR ORDER BY"], 1_000_000),
        (["SCAN f USING INDEX file_by_path"], 1_000_000),
        (["SEARCH f USING INDEX file_by_night (experiment=?)"], 1_000_000),
        (["SEARCH f USING COVERING INDEX file_by_night (experiment=? AND night=?)"], 1_000),
        (["SEARCH f USING INDEX file_by_night (experiment=? AND night>? AND night<?)"], 62_500),
        (["SEARCH f USING INDEX file_by_place (place=?)"], 1),
        (["SEARCH f USING INDEX not_counted (experiment=?)"], 1_000_000),
        (["SEARCH f USING INDEX not_counted (experiment=? AND run=?)"], 1_000),
        (["SEARCH f USING INTEGER PRIMARY KEY (rowid=?)", "SEARCH a USING INTEGER PRIMARY KEY (rowid=?)"], 2),
        (
            ["SEARCH a USING COVERING INDEX a_zenith (zenith<?)", "SEARCH f USING INTEGER PRIMARY KEY (rowid=?)"],
            250_001,
        ),
        (["MERGE (UNION ALL)", *2 * ["SEARCH f USING INDEX file_by_night (experiment=?)"]], 1_000_000),
        (["CO-ROUTINE f", "SEARCH f USING INDEX file_by_place (place=?)", "SCAN f"], 1),
        (["SEARCH f USING INDEX file_by_place (place=?)", "SCAN file USING INDEX file_settled"], 1),
        (["SCAN part", "SCAN item VIRTUAL TABLE INDEX 1:"], 0),
    ],
)
def test_the_rows_of_a_plan(lines: list[str], rows: int) -> None:
    assert rows_of_plan(lines, 1_000_000, COUNTED) == rows
