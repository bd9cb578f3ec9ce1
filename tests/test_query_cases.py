"""The queries of the Datasync toolkit's own server tests, asked of our server over HTTP in its dialect.

`data/datasync_query_cases.json` has each with the answer that the toolkit's server gives: the status, how
many rows, the count, the link to the next page, and the first ids in order; for some, what follows when the
links are followed.  What differs here, and why, stands in DIFFERENT.
"""

from __future__ import annotations

import datetime as dt
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote

import duckdb
import httpx2
import pytest

from syncframe.server import serve

DATA = Path(__file__).parent / "data"
CASES = json.loads((DATA / "datasync_query_cases.json").read_text())
MOVIES = json.loads((DATA / "movies.json").read_text())
COUNTRIES = {"DE": "Germany", "EG": "Egypt", "FR": "France", "GR": "Greece", "IT": "Italy", "US": "United States"}
FIRST_DAY = dt.date(2022, 1, 1)

# `rating` is an enum there, and sorted by the place of its members; here it is a text like any other, and
# sorted by its letters.  Status, count and link are the same, the first rows are these.
DIFFERENT = {
    "Query_Test_051": ["id-053", "id-058", "id-079", "id-115", "id-153"],
    "Query_Test_112": ["id-004", "id-005", "id-011", "id-016", "id-031"],
    "Query_Test_171": ["id-053", "id-058", "id-079", "id-115", "id-153"],
    "Query_Test_232": ["id-040", "id-041", "id-044", "id-046", "id-049"],
}

DDL = [
    """
    create table {name} (
        id varchar not null primary key, "bestPictureWinner" boolean, duration integer, rating varchar,
        "releaseDate" date, title varchar, year integer
    )
    """,
    'create table {name} (id varchar not null primary key, "dateOnlyValue" date, "timeOnlyValue" time)',
    'create table {name} (id varchar not null primary key, "stringValue" varchar)',
]


def seeded(execute: Any) -> None:
    """Make and fill the tables as the cases' `setup` says; `execute` runs SQL with many rows of parameters."""
    for name, ddl in zip(("movies", "softmovies", "kitchensink", "countries"), (0, 0, 1, 2), strict=True):
        execute(DDL[ddl].format(name=name), [()])
    columns = ("id", "bestPictureWinner", "duration", "rating", "releaseDate", "title", "year")
    for name in ("movies", "softmovies"):
        execute(f"insert into {name} values (?, ?, ?, ?, ?, ?, ?)", [[m[c] for c in columns] for m in MOVIES])
    days = [FIRST_DAY + dt.timedelta(days=n) for n in range(365)]
    execute(
        "insert into kitchensink values (?, ?, ?)",
        [[f"id-{n:03}", day.isoformat(), f"{day.month:02}:{day.day:02}:00"] for n, day in enumerate(days)],
    )
    execute("insert into countries values (?, ?)", [list(country) for country in COUNTRIES.items()])


@pytest.fixture(scope="module", params=["sqlite", "duckdb"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    path = tmp_path_factory.mktemp("cases") / f"cases.{request.param}"
    connection: Any = sqlite3.connect(path) if request.param == "sqlite" else duckdb.connect(str(path))
    seeded(connection.executemany)
    connection.commit()
    connection.close()
    with (
        serve(f"{request.param}:///{path}", track=True) as server,
        httpx2.Client(base_url=server.url, timeout=60) as client,
    ):
        rated = client.get("/tables/softmovies?$filter=rating eq 'R'").json()["items"]
        deletes = [
            {"operation_id": row["id"], "kind": "delete", "key": row["id"], "base_version": row["version"]}
            for row in rated
        ]
        done = client.post("/syncframe/push", json={"table": "softmovies", "operations": deletes}).json()
        assert [outcome["status"] for outcome in done] == ["accepted"] * 95
        yield client


def test_the_given_cases_are_all_here() -> None:
    assert len(CASES) == len({case["name"] for case in CASES}) == 182


def table_of(case: dict[str, Any]) -> str:
    # The toolkit seeds its one kitchen sink with countries for this case.
    return "countries" if "countries.json" in case.get("setup", "") else case["table"]


def asked(client: httpx2.Client, table: str, query: str) -> httpx2.Response:
    return client.get(f"/tables/{table}?{quote(query, safe='$&=')}")


def as_pairs(query: str | None) -> list[tuple[str, str]] | None:
    return None if query is None else sorted(parse_qsl(query, keep_blank_values=True))


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_the_answer_is_the_toolkit_s(client: httpx2.Client, case: dict[str, Any]) -> None:
    response = asked(client, table_of(case), case["query"])

    assert response.status_code == case["status"]
    told = response.json()
    if case["status"] != 200:
        assert told["error"]
    elif "items" in case:
        assert (len(told["items"]), told["count"]) == (case["items"], case["count"])
        assert as_pairs(told["nextLink"]) == as_pairs(case["nextLink"])
        expected = DIFFERENT.get(case["name"], case["ids"])
        assert [item["id"] for item in told["items"][: len(expected)]] == expected


@pytest.mark.parametrize("case", [c for c in CASES if "paged_requests" in c], ids=lambda case: case["name"])
def test_the_links_lead_through_all_pages(client: httpx2.Client, case: dict[str, Any]) -> None:
    seen, requests, query = [], 0, case["query"]
    link: str | None = quote(query, safe="$&=")
    while link is not None:
        told = client.get(f"/tables/{case['table']}?{link}").json()
        seen += [item["id"] for item in told["items"]]
        requests += 1
        link = told["nextLink"]

    assert (len(seen), requests) == (case["paged_total_items"], case["paged_requests"])
    assert len({*seen}) == len(seen)


def test_the_pages_of_a_counted_case_have_as_many_rows_as_were_counted(client: httpx2.Client) -> None:
    linked = [case for case in CASES if case.get("nextLink") and case.get("count") and "$top" not in case["query"]]

    for case in linked:
        seen: list[str] = []
        link: str | None = quote(case["query"], safe="$&=")
        while link is not None:
            told = client.get(f"/tables/{case['table']}?{link}").json()
            seen += [item["id"] for item in told["items"]]
            link = told["nextLink"]
        assert (len(seen), len({*seen})) == (case["count"], case["count"]), case["name"]

    assert len(linked) == 16
