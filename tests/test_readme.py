"""README's transcript of the protocol: each command is asked of a server, and answered as it says there."""

from __future__ import annotations

import contextlib
import re
import shlex
import sqlite3
from pathlib import Path
from urllib.parse import quote

import httpx2
import pytest

import syncframe as sf

README = (Path(__file__).parent.parent / "README.md").read_text()
VERSION = re.compile(r"\b(\d+)-[0-9a-f]{8}\b")
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def steps():
    """The transcript's commands, each with the lines that follow it."""
    lines = "".join(re.findall(r"```console\n(.*?)```", README, re.DOTALL)).splitlines()
    starts = [n for n, line in enumerate(lines) if line.startswith("$ ")]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        yield lines[start][2:], lines[start + 1 : end]


def curl(client, words):
    """What curl would do with these arguments."""
    method, url, headers, query, data, is_get = None, None, {}, [], None, False
    words = iter(words)
    for word in words:
        if word == "-X":
            method = next(words)
        elif word == "-H":
            name, _, value = next(words).partition(": ")
            headers[name] = value
        elif word == "-d":
            data = next(words)
            query.append(data)
        elif word == "--data-urlencode":
            name, _, value = next(words).partition("=")
            query.append(f"{name}={quote(value)}")
        elif word == "-G":
            is_get = True
        elif word != "-i":
            url = word
    if is_get:
        url, data = f"{url}?{'&'.join(query)}", None
    return client.request(method or ("POST" if data else "GET"), url, headers=headers, content=data)


def plain(text):
    """A text without the random digits of versions, and without times."""
    return STAMP.sub("TIME", VERSION.sub(r"\1-*", text))


def filled(word, variables, versions):
    """A shell's word with its variables, and the versions that this server gave."""
    word = re.sub(r"\$(TODO|JSON|V2)\b", lambda match: variables[match[1]], word)
    return VERSION.sub(lambda match: versions.get(match[1], match[0]), word)


@pytest.fixture
def url(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "todo.db")) as connection, connection:
        connection.execute("create table todo (id text primary key, title text not null, done boolean)")
        connection.execute("insert into todo values ('t1', 'buy milk', 0)")
    with sf.serve(f"sqlite:///{tmp_path}/todo.db", track=True) as server:
        yield server.url


def test_every_command_of_the_transcript_is_answered_as_it_says(url):
    variables, versions, asked = {}, {}, 0
    with httpx2.Client() as client:
        for command, expected in steps():
            words = [word.replace("\\$", "$") for word in shlex.split(command)]
            if words[0] != "curl":
                variables |= dict(word.partition("=")[::2] for word in words)
                variables["TODO"] = f"{url}/tables/todo"
                continue
            response = curl(client, [filled(word, variables, versions) for word in words[1:]])
            asked += 1
            head = [f"HTTP/1.1 {response.status_code} {response.reason_phrase}"]
            head += [f"{name}: {response.headers[name]}" for name in ("etag", "location") if name in response.headers]
            versions |= {m[1]: m[0] for m in VERSION.finditer(response.text + response.headers.get("etag", ""))}
            told = [plain(line).replace(url, "http://127.0.0.1:8000") for line in [*head, *response.text.splitlines()]]
            assert [line for line in expected if plain(line) not in told] == [], (command, told)
            assert response.status_code < 500

    assert asked == 14
