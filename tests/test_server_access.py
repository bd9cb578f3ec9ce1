"""Who may do what: tokens and keys, rights for each table, row filters, and where a client finds its token."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.server
import io
import json
import logging
import sqlite3
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb
import httpx2
import jwt
import pandas as pd
import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from starlette.datastructures import Headers

import syncframe as sf
from syncframe.backends import Operations, Outcomes
from syncframe.backends import open as open_backend
from syncframe.errors import AccessError, BackendError, CheckpointLost, SyncError
from syncframe.query import Query, Read, parse
from syncframe.remote import Rows
from syncframe.schema import Schema
from syncframe.secrets import FileToken, found_token
from syncframe.server import serve
from syncframe.server.access import Access, Identity, Keys
from syncframe.server.exchange import Refusal
from syncframe.server.rights import Right, Rights
from syncframe.server.tables import chosen
from syncframe.server.tokens import BadToken, Jwt, KeysWanted, Verifier
from syncframe.testing import batch, delete, insert, update

V2 = {"ZUMO-API-VERSION": "2.0.0"}
ARROW = {"content-type": "application/vnd.apache.arrow.stream"}
KEY = "a-key-of-more-than-sixteen-letters"
SECRET = b"thirty-two bytes are the least.." + b"!" * 32
HOUR_S = 3_600


# An authority, whose keys are behind a URL


class Authority:
    """Keys that sign tokens, and the JWKS of their public halves."""

    def __init__(self) -> None:
        self.rsa = rsa.generate_private_key(65_537, 2_048)
        self.ec = ec.generate_private_key(ec.SECP256R1())
        self.ed = ed25519.Ed25519PrivateKey.generate()
        self.asked = 0
        self.listed = ["rsa", "ec", "ed"]

    def jwks(self) -> dict[str, Any]:
        algorithms = jwt.algorithms
        made = {
            "rsa": algorithms.RSAAlgorithm.to_jwk(self.rsa.public_key(), as_dict=True),
            "ec": algorithms.ECAlgorithm.to_jwk(self.ec.public_key(), as_dict=True),
            "ed": algorithms.OKPAlgorithm.to_jwk(self.ed.public_key(), as_dict=True),
        }
        return {"keys": [{**made[name], "kid": name, "use": "sig"} for name in self.listed]}

    def token(self, subject: str | None = "ann", kind: str = "ec", **claims: Any) -> str:
        key, algorithm = {"rsa": (self.rsa, "RS256"), "ec": (self.ec, "ES256"), "ed": (self.ed, "EdDSA")}[kind]
        return jwt.encode(claimed(subject, **claims), key, algorithm, headers={"kid": kind})


def claimed(subject: str | None = "ann", **claims: Any) -> dict[str, Any]:
    told = {
        "sub": subject,
        "exp": int(time.time()) + HOUR_S,
        "iss": "https://login.example",
        "aud": "syncframe",
        **claims,
    }
    return {name: value for name, value in told.items() if value is not None}


@contextmanager
def published(authority: Authority) -> Iterator[str]:
    """The URL of its JWKS."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            authority.asked += 1
            body = json.dumps(authority.jwks()).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/jwks.json"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def of(authority: Authority, **settings: Any) -> Jwt:
    return Jwt(**{"keys": authority.jwks(), "issuer": "https://login.example", "audience": "syncframe", **settings})


def unsigned(header: Mapping[str, Any], claims: Mapping[str, Any], signature: str = "") -> str:
    return f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}.{signature}"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def hmac_signed(header: Mapping[str, Any], claims: Mapping[str, Any], secret: bytes) -> str:
    text = unsigned(header, claims)[:-1]
    return f"{text}.{b64(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"


def pem(key: Any) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


# Good tokens


@pytest.mark.parametrize("kind", ["rsa", "ec", "ed"])
def test_a_token_of_each_kind_of_key_is_taken(authority: Authority, kind: str) -> None:
    assert Verifier(of(authority)).claims(authority.token("ann", kind))["sub"] == "ann"


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_token_of_a_shared_secret_is_taken(tmp_path: Path, algorithm: str) -> None:
    file = tmp_path / "secret.key"
    file.write_bytes(SECRET + b"\n")
    token = jwt.encode({"sub": "ann", "exp": time.time() + 60}, SECRET, algorithm)

    for keys in (SECRET, SECRET.decode(), file, str(file)):
        assert Verifier(Jwt(keys=keys)).claims(token)["sub"] == "ann"


def test_public_keys_may_stand_in_pem(authority: Authority, tmp_path: Path) -> None:
    file = tmp_path / "public.pem"
    file.write_bytes(pem(authority.rsa) + pem(authority.ec))

    for keys in (file, file.read_text(), [pem(authority.rsa), pem(authority.ec)]):
        verifier = Verifier(of(authority, keys=keys))
        assert [verifier.claims(authority.token("ann", kind))["sub"] for kind in ("rsa", "ec")] == ["ann", "ann"]


def test_the_clocks_may_be_apart_by_the_leeway(authority: Authority) -> None:
    token = authority.token(exp=int(time.time()) - 30, nbf=int(time.time()) + 30)

    assert Verifier(of(authority)).claims(token)["sub"] == "ann"
    with pytest.raises(BadToken):
        Verifier(of(authority, leeway_s=0)).claims(token)


# Bad tokens


def _now() -> int:
    return int(time.time())


BAD_TOKENS: dict[str, Callable[[Authority], str]] = {
    "expired": lambda a: a.token(exp=_now() - 120),
    "without exp": lambda a: a.token(exp=None),
    "exp a text": lambda a: a.token(exp=str(_now() + HOUR_S)),
    "exp true": lambda a: a.token(exp=True),
    "exp infinite": lambda a: a.token(exp=float("inf")),
    "exp NaN": lambda a: a.token(exp=float("nan")),
    "not yet": lambda a: a.token(nbf=_now() + 120),
    "nbf a text": lambda a: a.token(nbf="0"),
    "issued tomorrow": lambda a: a.token(iat=_now() + 86_400),
    "another issuer": lambda a: a.token(iss="https://login.example.net"),
    "no issuer": lambda a: a.token(iss=None),
    "another audience": lambda a: a.token(aud="else"),
    "audiences of others": lambda a: a.token(aud=["a", "b"]),
    "no audience": lambda a: a.token(aud=None),
    "sub a number": lambda a: jwt.encode({**claimed(), "sub": 7}, a.ec, "ES256", headers={"kid": "ec"}),
    "another's key": lambda a: Authority().token(),
    "another's key without kid": lambda a: jwt.encode(claimed(), ec.generate_private_key(ec.SECP256R1()), "ES256"),
    "unknown kid": lambda a: jwt.encode(claimed(), a.ec, "ES256", headers={"kid": "gone"}),
    "kid of another": lambda a: jwt.encode(claimed(), a.ec, "ES256", headers={"kid": "rsa"}),
    "none": lambda a: unsigned({"alg": "none", "typ": "JWT"}, claimed()),
    "None": lambda a: unsigned({"alg": "None", "kid": "ec"}, claimed()),
    "none with a signature": lambda a: unsigned({"alg": "none", "kid": "ec"}, claimed(), "c2lnbmVk"),
    "no algorithm": lambda a: unsigned({"typ": "JWT"}, claimed()),
    "algorithms": lambda a: unsigned({"alg": ["ES256"]}, claimed()),
    "RSA's public PEM as secret": lambda a: hmac_signed({"alg": "HS256", "kid": "rsa"}, claimed(), pem(a.rsa)),
    "EC's public PEM as secret": lambda a: hmac_signed({"alg": "HS256"}, claimed(), pem(a.ec)),
    "RSA's modulus as secret": lambda a: hmac_signed({"alg": "HS256"}, claimed(), a.jwks()["keys"][0]["n"].encode()),
    "an empty secret": lambda a: hmac_signed({"alg": "HS256"}, claimed(), b""),
    "RSA by PS256, said to be RS256": lambda a: _renamed(jwt.encode(claimed(), a.rsa, "PS256"), "RS256"),
    "crit": lambda a: jwt.encode(claimed(), a.ec, "ES256", headers={"kid": "ec", "crit": ["exp"]}),
    "b64": lambda a: _signed({"alg": "ES256", "kid": "ec", "b64": True}, a),
    "brings its key": lambda a: _with_jwk(),
    "signature of nothing": lambda a: a.token().rpartition(".")[0] + ".",
    "signature of zeros": lambda a: a.token().rpartition(".")[0] + "." + b64(bytes(64)),
    "claims of another": lambda a: _grafted(a),
    "too long": lambda a: a.token(padding="x" * 8_192),
    "four parts": lambda a: a.token() + ".x",
    "two parts": lambda a: a.token().rpartition(".")[0],
    "no base64": lambda a: "a.b.c",
    "claims are a list": lambda a: _signed_bytes(a, b"[1]"),
    "claims are nothing": lambda a: _signed_bytes(a, b""),
    "claims are deep": lambda a: _signed_bytes(a, b'{"a":' * 1_000 + b"1" + b"}" * 1_000),
    "claims are no UTF-8": lambda a: _signed_bytes(a, b'{"sub":"\xff"}'),
}


def _renamed(token: str, algorithm: str) -> str:
    _, claims, signature = token.split(".")
    return f"{b64(json.dumps({'alg': algorithm, 'kid': 'rsa'}).encode())}.{claims}.{signature}"


def _signed(header: dict[str, Any], authority: Authority) -> str:
    text = unsigned(header, claimed())[:-1]
    algorithm = jwt.get_algorithm_by_name("ES256")
    return f"{text}.{b64(algorithm.sign(text.encode(), authority.ec))}"


def _with_jwk() -> str:
    other = Authority()
    header = {"kid": "mine", "jwk": {**other.jwks()["keys"][1], "kid": "mine"}}
    return jwt.encode(claimed(), other.ec, "ES256", headers=header)


def _grafted(authority: Authority) -> str:
    header, _, signature = authority.token("ann").split(".")
    return f"{header}.{authority.token('bob').split('.')[1]}.{signature}"


def _signed_bytes(authority: Authority, payload: bytes) -> str:
    return jwt.PyJWS().encode(payload, authority.ec, "ES256", headers={"kid": "ec"})


@pytest.mark.parametrize("made", BAD_TOKENS.values(), ids=BAD_TOKENS)
def test_a_token_that_is_wrong_is_refused_and_not_shown(authority: Authority, made: Callable[[Authority], str]) -> None:
    token = made(authority)

    with pytest.raises(BadToken) as caught:
        Verifier(of(authority)).claims(token)

    assert token not in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_audience_that_nobody_set_is_refused(authority: Authority) -> None:
    verifier = Verifier(Jwt(keys=authority.jwks()))

    assert verifier.claims(authority.token(aud=None))["sub"] == "ann"
    with pytest.raises(BadToken):
        verifier.claims(authority.token())


def test_only_the_algorithms_that_are_set_are_taken(authority: Authority) -> None:
    verifier = Verifier(of(authority, algorithms=["RS256"]))

    assert verifier.claims(authority.token(kind="rsa"))["sub"] == "ann"
    with pytest.raises(BadToken):
        verifier.claims(authority.token(kind="ec"))


def test_a_short_secret_is_for_short_hashes_only() -> None:
    verifier = Verifier(Jwt(keys=SECRET[:32]))

    with pytest.warns(jwt.InsecureKeyLengthWarning), pytest.raises(BadToken):
        verifier.claims(jwt.encode({"exp": time.time() + 60}, SECRET[:32], "HS512"))


WRONG_SETTINGS = {
    "no keys": ({}, "no keys"),
    "an unknown one": ({"keys": SECRET, "secret": 1}, "'secret'"),
    "a short secret": ({"keys": "short"}, "32"),
    "a path that is not there": ({"keys": "/etc/syncframe/keys-of-the-authority.json"}, "not there"),
    "a name that is not there": ({"keys": "keys-of-the-authority-in-production.json"}, "not there"),
    "http of elsewhere": ({"keys": "http://login.example/jwks"}, "http://login.example"),
    "a URL with a password": ({"keys": "https://me:pw@login.example/jwks"}, "password"),
    "nobody there": ({"keys": "http://127.0.0.1:9/jwks"}, "cannot be fetched"),
    "none": ({"keys": SECRET, "algorithms": ["none"]}, "'none'"),
    "one algorithm as text": ({"keys": SECRET, "algorithms": "HS256"}, "algorithm"),
    "algorithms of another key": ({"keys": SECRET, "algorithms": ["RS256"]}, "no key"),
    "an empty audience": ({"keys": SECRET, "audience": []}, "audience"),
    "a leeway of a day": ({"keys": SECRET, "leeway_s": 86_400}, "leeway_s"),
    "a private key": ({"keys": "PRIVATE"}, "private key"),
    "a short RSA key": ({"keys": "SHORT"}, "1024 bits"),
    "an empty set": ({"keys": {"keys": []}}, "no key"),
}


@pytest.mark.parametrize(("given", "words"), WRONG_SETTINGS.values(), ids=WRONG_SETTINGS)
def test_settings_that_make_no_sense_are_refused_at_the_start(given: dict[str, Any], words: str) -> None:
    if given.get("keys") == "PRIVATE":
        key = ed25519.Ed25519PrivateKey.generate()
        given = {"keys": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())}
    if given.get("keys") == "SHORT":
        given = {"keys": pem(rsa.generate_private_key(65_537, 1_024))}

    with pytest.raises(SyncError, match=words) as caught:
        Verifier(Jwt.of(given))

    assert "pw" not in str(caught.value)


def test_keys_of_a_set_that_cannot_be_used_are_left_out(authority: Authority, caplog: Any) -> None:
    listed = authority.jwks()["keys"]
    private = jwt.algorithms.ECAlgorithm.to_jwk(authority.ec, as_dict=True)
    keys = [
        {**listed[1], "use": "enc", "kid": "ec"}, {"kty": "oct", "k": b64(b"short")}, {"kty": "new"}, 7,
        {**listed[0], "alg": "ES256"}, {**private, "kid": "ec"},
    ]  # fmt: skip

    verifier = Verifier(of(authority, keys={"keys": keys}))

    assert verifier.claims(authority.token())["sub"] == "ann"
    assert caplog.text.count("is left out") == 5
    assert private["d"] not in caplog.text


def test_settings_may_stand_in_a_file(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "jwks.json").write_text(json.dumps(authority.jwks()))
    (tmp_path / "jwt.toml").write_text('keys = "jwks.json"\naudience = ["syncframe"]\nleeway_s = 5\n')
    (tmp_path / "jwt.json").write_text('{"keys": ["jwks.json"], "audience": "syncframe"}')

    for name in ("jwt.toml", "jwt.json"):
        assert Verifier(Jwt.of(tmp_path / name)).claims(authority.token())["sub"] == "ann"
    with pytest.raises(SyncError, match=r"nothing\.toml"):
        Jwt.of(tmp_path / "nothing.toml")


def test_a_file_of_keys_is_read_again_when_it_is_another(authority: Authority, tmp_path: Path, caplog: Any) -> None:
    file, other = tmp_path / "jwks.json", Authority()
    file.write_text(json.dumps(authority.jwks()))
    verifier = Verifier(of(authority, keys=file))
    assert verifier.claims(authority.token())["sub"] == "ann"

    file.write_text("half a fi")
    assert verifier.claims(authority.token())["sub"] == "ann"
    assert "stay as they were" in caplog.text

    file.write_text(json.dumps(other.jwks(), indent=1))
    assert verifier.claims(other.token())["sub"] == "ann"
    with pytest.raises(BadToken):
        verifier.claims(authority.token())


def test_keys_behind_a_url_are_fetched_again_once_a_minute_at_most() -> None:
    authority, clock = Authority(), [0.0]
    authority.listed = ["rsa"]
    with published(authority) as url:
        verifier = Verifier(of(authority, keys=url), clock=lambda: clock[0])
        assert (verifier.claims(authority.token(kind="rsa"))["sub"], authority.asked) == ("ann", 1)

        authority.listed = ["rsa", "ec"]
        for _ in range(3):
            with pytest.raises(BadToken):
                verifier.claims(authority.token())
        assert authority.asked == 1

        clock[0] = 61.0
        with pytest.raises(KeysWanted):
            verifier.claims(authority.token())
        assert verifier.claims(authority.token(), may_fetch=True)["sub"] == "ann"
        for _ in range(3):
            with pytest.raises(BadToken):
                verifier.claims(jwt.encode(claimed(), authority.ec, "ES256", headers={"kid": "unknown"}))
        assert authority.asked == 2

        # After an hour a key that was withdrawn is none any more.
        authority.listed, clock[0] = ["ec"], 4_000.0
        with pytest.raises(BadToken):
            verifier.claims(authority.token(kind="rsa"), may_fetch=True)
        assert authority.asked == 3

    clock[0] = 9_000.0
    assert verifier.claims(authority.token(), may_fetch=True)["sub"] == "ann"  # nobody is there: they stay


def test_a_secret_that_can_be_fetched_is_none() -> None:
    authority = Authority()
    authority.jwks = lambda: {"keys": [{"kty": "oct", "k": b64(SECRET)}]}  # type: ignore[method-assign]

    with published(authority) as url, pytest.raises(SyncError, match="no key"):
        Verifier(Jwt(keys=url))


# A served database

TABLES = [
    "create table notes (id varchar not null primary key, owner varchar, title varchar, n bigint)",
    "create table board (id varchar not null primary key, text varchar)",
    "create table inbox (id varchar not null primary key, sender varchar, body varchar)",
    "create table vault (id varchar not null primary key, worth bigint)",
    "create table hours (place varchar not null, day date not null, owner varchar, primary key (place, day))",
    "insert into notes values ('a1', 'ann', 'mine', 1), ('a2', 'ann', 'mine too', 2), ('a3', 'ann', 'gone', 3)",
    "insert into notes values ('hid1', 'bob', 'HIDDEN', 5000000000000), ('hid2', 'bob', 'HIDDEN', 7), ('hid3', null, 'HIDDEN', 9)",
    "insert into notes values ('hid4', 'bob', 'HIDDEN', 11)",
    "insert into board values ('b1', 'for all')",
    "insert into inbox values ('hid5', 'bob', 'HIDDEN')",
    "insert into vault values ('hid6', 1)",
    "insert into hours values ('here', '2024-01-01', 'ann'), ('HIDDEN', '2024-01-02', 'bob')",
]
RIGHTS: dict[str, Any] = {
    "notes": [
        {"who": "*", "may": ["read", "insert", "update", "delete"], "where": "owner = :sub"},
        {"who": {"role": "auditor"}, "may": ["read"]},
        {"who": "key:robot", "may": ["read"]},
    ],
    "board": [{"who": "*", "may": ["read"]}, {"who": {"role": "editor"}, "may": ["insert", "update"]}],
    "inbox": [{"who": "*", "may": ["insert"], "where": "sender = :sub"}],
    "hours": [{"who": "*", "may": ["read", "update", "delete"], "where": "owner = :sub"}],
}
DELETED_KEYS = ("a3", "hid4")


def built(kind: str, path: Path) -> str:
    connection: Any = sqlite3.connect(path) if kind == "sqlite" else duckdb.connect(str(path))
    with closing(connection):
        for statement in TABLES:
            connection.execute(statement)
        connection.commit()
    return f"{kind}:///{path}"


_made: dict[str, bytes] = {}


def with_tombstones(kind: str, path: Path) -> Any:
    """A back end that is tracked, with a row of ann's and a row of bob's that are deleted."""
    if kind not in _made:
        backend: Any = open_backend(built(kind, path))
        backend.track(["notes", "board", "inbox", "vault", "hours"])
        for key in DELETED_KEYS:
            Rows(backend, "notes").delete(key)
        backend.close()
        _made[kind] = path.read_bytes()
    path.write_bytes(_made[kind])
    return open_backend(f"{kind}:///{path}")


class Served:
    """A server, its authority, and requests of identities to it."""

    def __init__(self, url: str, backend: Any, authority: Authority) -> None:
        self.url, self.backend, self.authority = url, backend, authority
        self.client = httpx2.Client(base_url=url, timeout=60)

    def headers(self, who: str | None) -> dict[str, str]:
        match who:
            case None:
                return {}
            case "key":
                return {"x-zumo-auth": KEY}
            case "robot":
                return {"x-zumo-auth": f"{KEY}-of-the-robot"}
            case "editor" | "auditor":
                return {"authorization": f"Bearer {self.authority.token(who, role=who)}"}
        made = BAD_TOKENS.get(who)
        return {"authorization": f"Bearer {self.authority.token(who) if made is None else made(self.authority)}"}

    def ask(self, who: str | None, method: str, path: str, *, headers: Mapping[str, str] = {}, **body: Any) -> Any:
        return self.client.request(method, path, headers={**self.headers(who), **headers}, **body)

    def guard(self, who: str, **claims: Any) -> Any:
        """The back end as an identity sees it."""
        identity = Identity(who, {"sub": who, **claims})
        tables = chosen(self.backend, None, track=False)
        object.__setattr__(tables, "rights", Rights.of(RIGHTS))
        return tables.seen_by(identity).backend

    def dump(self) -> str:
        """All that is in the database, the change logs too."""
        told = []
        with self.backend.session() as session:
            for name in session.names():
                rows = session.values(f'select * from "{name}"', [])
                told.append(f"{name}: {sorted(map(repr, rows))}")
        return "\n".join(told)

    def rows(self, table: str = "notes") -> dict[Any, Any]:
        found = self.backend.read(table, Read()).to_pylist()
        return {row["id"]: {name: value for name, value in row.items() if not name.startswith("_")} for row in found}

    def version(self, key: str, table: str = "notes") -> str:
        found = self.backend.rows(table, pa.table({"id": [key]})).to_pylist()
        return str(found[0]["_syncframe_version"])


@pytest.fixture(params=["sqlite", "duckdb"])
def served(request: pytest.FixtureRequest, tmp_path: Path, authority: Authority) -> Iterator[Served]:
    backend = with_tombstones(request.param, tmp_path / f"data.{request.param}")
    keys = {"robot": f"{KEY}-of-the-robot"}
    tokens = [KEY, *(f"{name} {key}" for name, key in keys.items())]
    with serve(backend, tokens=tokens, jwt=of(authority), rights=RIGHTS) as server:
        yield Served(server.url, backend, authority)
    backend.close()


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Served]:
    """One that nothing is written to."""
    backend = with_tombstones("sqlite", tmp_path_factory.mktemp("still") / "data.db")
    with serve(backend, tokens=[KEY, f"robot {KEY}-of-the-robot"], jwt=of(authority), rights=RIGHTS) as server:
        yield Served(server.url, backend, authority)
    backend.close()


def pushed(table: str, *operations: dict[str, Any]) -> dict[str, Any]:
    return {"json": {"table": table, "operations": list(operations)}}


def op(kind: str, key: Any, base: str | None = None, **values: Any) -> dict[str, Any]:
    return {"operation_id": f"op-{kind}-{key}", "kind": kind, "base_version": base, "key": key, "values": values}


NOTE = {"id": "new", "owner": "ann", "title": "t", "n": 1}
BAD_REQUESTS: list[tuple[str | None, str, str, dict[str, Any], int]] = [
    # Nobody, or nobody that is known
    (None, "GET", "/tables/notes", {}, 401),
    (None, "GET", "/syncframe", {}, 401),
    (None, "GET", "/tables/nothing", {}, 401),
    (None, "OPTIONS", "/tables/notes", {}, 401),
    (None, "POST", "/tables/notes", {"json": NOTE}, 401),
    ("expired", "GET", "/tables/notes", {}, 401),
    ("expired", "DELETE", "/tables/notes/a1", {}, 401),
    ("none", "GET", "/tables/notes", {}, 401),
    ("none", "POST", "/tables/notes", {"json": NOTE}, 401),
    ("another's key", "GET", "/tables/notes/a1", {}, 401),
    ("another's key", "POST", "/syncframe/pull?table=notes", {"json": {}}, 401),
    ("RSA's public PEM as secret", "GET", "/tables/notes", {}, 401),
    ("RSA's public PEM as secret", "POST", "/syncframe/push", pushed("notes", op("insert", "new", owner="ann")), 401),
    ("another audience", "GET", "/tables/board", {}, 401),
    ("another issuer", "GET", "/tables/board", {}, 401),
    ("not yet", "GET", "/tables/board", {}, 401),
    ("without exp", "GET", "/tables/board", {}, 401),
    ("crit", "GET", "/tables/board", {}, 401),
    ("claims of another", "GET", "/tables/notes", {}, 401),
    ("too long", "GET", "/tables/notes", {}, 401),
    ("unknown kid", "GET", "/tables/notes", {}, 401),
    # A table that is not for them is not there
    ("ann", "GET", "/tables/vault", {}, 404),
    ("ann", "GET", "/tables/vault/hid6", {}, 404),
    ("ann", "POST", "/tables/vault", {"json": {"id": "x", "worth": 1}}, 404),
    ("ann", "DELETE", "/tables/vault/hid6", {}, 404),
    ("ann", "PATCH", "/tables/vault/hid6", {"json": {"worth": 2}, "headers": V2}, 404),
    ("ann", "GET", "/syncframe/schema?table=vault", {}, 404),
    ("ann", "POST", "/syncframe/pull?table=vault", {"json": {}}, 404),
    ("ann", "POST", "/syncframe/read?table=vault", {"json": {}}, 404),
    ("ann", "POST", "/syncframe/count?table=vault", {"json": {}}, 404),
    ("ann", "POST", "/syncframe/push", pushed("vault", op("insert", "x", worth=1)), 404),
    ("robot", "GET", "/tables/vault", {}, 404),
    # A verb that is not for them
    ("ann", "POST", "/tables/board", {"json": {"id": "x", "text": "t"}}, 403),
    ("ann", "PUT", "/tables/board/b1", {"json": {"text": "t"}}, 403),
    ("ann", "PATCH", "/tables/board/b1", {"json": {"text": "t"}, "headers": V2}, 403),
    ("ann", "DELETE", "/tables/board/b1", {}, 403),
    ("ann", "DELETE", "/tables/board/nothing", {}, 403),
    ("editor", "DELETE", "/tables/board/b1", {}, 403),
    ("ann", "POST", "/tables/board/b1", {"headers": V2}, 403),
    ("ann", "POST", "/syncframe/push", pushed("board", op("insert", "x", text="t")), 403),
    ("ann", "POST", "/syncframe/push?atomic=1", pushed("board", op("delete", "b1", "v")), 403),
    ("ann", "GET", "/tables/inbox", {}, 403),
    ("ann", "GET", "/tables/inbox/hid5", {}, 403),
    ("ann", "POST", "/syncframe/pull?table=inbox", {"json": {}}, 403),
    ("ann", "POST", "/syncframe/read?table=inbox", {"json": {}}, 403),
    ("ann", "POST", "/syncframe/count?table=inbox", {"json": {}}, 403),
    ("robot", "POST", "/tables/notes", {"json": NOTE}, 403),
    ("robot", "DELETE", "/tables/notes/a1", {}, 403),
    # A row that is not for them is not there
    ("ann", "GET", "/tables/notes/hid1", {}, 404),
    ("ann", "GET", "/tables/notes/hid1", {"headers": V2}, 404),
    ("ann", "GET", "/tables/notes/hid3", {}, 404),
    ("ann", "GET", "/tables/notes/hid4?__includedeleted=true", {}, 404),
    ("ann", "GET", "/tables/notes/hid1", {"headers": {"if-none-match": "*"}}, 404),
    ("ann", "PUT", "/tables/notes/hid1", {"json": {"owner": "ann"}}, 404),
    ("ann", "PUT", "/tables/notes/hid1", {"json": {"owner": "ann"}, "headers": {"if-match": '"x"'}}, 404),
    ("ann", "PUT", "/tables/notes/hid1", {"json": {"owner": "ann"}, "headers": {"if-none-match": "*"}}, 404),
    ("ann", "PUT", "/tables/notes/hid4?__includedeleted=true", {"json": {"owner": "ann", "deleted": False}}, 404),
    ("ann", "PATCH", "/tables/notes/hid1", {"json": {"n": 1}, "headers": V2}, 404),
    ("ann", "PATCH", "/tables/notes", {"json": {"id": "hid1", "n": 1}, "headers": V2}, 404),
    ("ann", "PATCH", "/tables/notes/hid1", {"json": {"n": 1, "version": "x"}, "headers": V2}, 404),
    ("ann", "POST", "/tables/notes/hid4", {"headers": V2}, 404),
    ("ann", "POST", "/tables/notes/hid1", {"headers": V2}, 404),
    ("ann", "DELETE", "/tables/notes/hid1", {}, 404),
    ("ann", "DELETE", "/tables/notes/hid1", {"headers": {"if-match": '"x"'}}, 404),
    ("ann", "DELETE", "/tables/hours/_48_49_44_44_45_4e|2024-01-02", {}, 404),
    # What would lie outside their rows
    ("ann", "POST", "/tables/notes", {"json": {**NOTE, "owner": "bob"}}, 403),
    ("ann", "POST", "/tables/notes", {"json": {**NOTE, "owner": None}}, 403),
    ("ann", "POST", "/tables/notes", {"json": {"id": "new", "title": "t"}, "headers": V2}, 403),
    ("ann", "POST", "/tables/notes", {"json": {**NOTE, "owner": "ann' or 'a' = 'a"}}, 403),
    ("ann", "POST", "/tables/notes", {"json": {**NOTE, "id": "hid1"}}, 403),
    ("ann", "POST", "/tables/notes", {"json": {**NOTE, "id": "hid4"}, "headers": V2}, 403),
    ("ann", "PUT", "/tables/notes/a1", {"json": {"owner": "bob"}}, 403),
    ("ann", "PUT", "/tables/notes/a1", {"json": {"title": "owner becomes NULL"}}, 403),
    ("ann", "PATCH", "/tables/notes/a1", {"json": {"owner": "bob"}, "headers": V2}, 403),
    ("ann", "PUT", "/tables/notes/a3?__includedeleted=true", {"json": {"owner": "bob", "deleted": False}}, 403),
    ("ann", "POST", "/tables/inbox", {"json": {"id": "x", "sender": "bob"}}, 403),
    ("ann", "POST", "/tables/inbox", {"json": {"id": "hid5", "sender": "ann"}}, 403),
    # Subjects that would be more than they are
    ("key:robot", "GET", "/tables/notes/a1", {}, 404),
    ("ann' or 'a' = 'a", "GET", "/tables/notes/a1", {}, 404),
    ("*", "GET", "/tables/notes/hid1", {}, 404),
    ("x' --", "GET", "/tables/notes/hid1", {}, 404),
]  # fmt: skip


@pytest.mark.parametrize(
    ("who", "method", "path", "request_", "status"),
    BAD_REQUESTS,
    ids=[f"{who} {method} {path} {n}" for n, (who, method, path, _, _) in enumerate(BAD_REQUESTS)],
)
def test_a_bad_request_gets_its_status_and_sees_and_changes_nothing(
    still: Served, who: str | None, method: str, path: str, request_: dict[str, Any], status: int, caplog: Any
) -> None:
    before = still.dump()

    with caplog.at_level(logging.DEBUG):
        answer = still.ask(who, method, path, **request_)

    assert answer.status_code == status
    assert ("www-authenticate" in answer.headers) == (status == 401)
    assert answer.headers.get("etag") is None
    told = json.dumps(answer.json())
    assert "HIDDEN" not in told
    if "hid" not in path and "hid" not in json.dumps(request_.get("json", "")):
        assert "hid" not in told
    assert still.dump() == before
    for secret in still.headers(who).values():
        assert secret.removeprefix("Bearer ") not in caplog.text + told


def test_there_are_more_than_sixty_bad_requests() -> None:
    assert len(BAD_REQUESTS) > 60


def test_a_table_that_is_not_for_them_is_answered_as_one_that_is_not_there(still: Served) -> None:
    answers = [still.ask("ann", "GET", f"/tables/{name}").json() for name in ("vault", "fault")]

    assert json.dumps(answers[0]).replace("vault", "fault") == json.dumps(answers[1])
    assert "vault" not in answers[0]["hint"]


def test_a_row_that_is_not_for_them_is_answered_as_one_that_is_not_there(still: Served) -> None:
    for method, request_ in [
        ("GET", {}), ("DELETE", {}), ("PUT", {"json": {"owner": "ann"}}), ("PATCH", {"json": {"n": 1}, "headers": V2}),
        ("POST", {"headers": V2}),
    ]:  # fmt: skip
        answers = [still.ask("ann", method, f"/tables/notes/{key}", **request_) for key in ("hid1", "nil1")]
        assert answers[0].text.replace("hid1", "nil1") == answers[1].text
        assert answers[0].status_code == answers[1].status_code == 404


def test_the_log_names_who_asked_and_never_the_token(still: Served, caplog: Any) -> None:
    def named() -> list[str | None]:
        return [record.__dict__["request"].get("who") for record in caplog.records if hasattr(record, "request")]

    with caplog.at_level(logging.INFO, "syncframe.server"):
        for who in ("ann", "robot", "key", "key:robot", "an\nn"):
            still.ask(who, "GET", "/tables/board")
        still.ask("expired", "GET", "/tables/board")
        until = time.monotonic() + 10
        while len(named()) < 6 and time.monotonic() < until:
            time.sleep(0.01)  # a line is written after its answer

    assert named() == ["ann", "key:robot", "key", "sub:key:robot", "an?n", None]
    assert "it has expired" in caplog.text
    assert still.authority.token("ann")[:40] not in caplog.text


# Rights by table and verb


def test_each_sees_the_tables_that_are_theirs(still: Served) -> None:
    told = {who: still.ask(who, "GET", "/syncframe").json()["tables"] for who in ("ann", "robot", "key")}

    assert told == {
        "ann": ["board", "hours", "inbox", "notes"],
        "robot": ["board", "hours", "inbox", "notes"],
        "key": ["board", "hours", "inbox", "notes"],
    }


def test_a_key_without_a_name_is_one_of_everybody_and_no_claim_is_made_up_for_it(served: Served) -> None:
    assert served.ask("key", "GET", "/tables/vault/hid6").status_code == 404
    assert served.ask("key", "GET", "/tables/board").status_code == 200
    assert served.ask("key", "GET", "/tables/notes").status_code == 403
    assert served.ask("key", "DELETE", "/tables/notes/hid1").status_code in (403, 404)
    assert "hid1" in served.rows()


def test_rules_add_up(served: Served) -> None:
    """The auditor reads all, and writes what is the auditor's own."""
    assert len(served.ask("auditor", "GET", "/tables/notes").json()["items"]) == 5
    assert served.ask("auditor", "PATCH", "/tables/notes/a1", json={"n": 9}, headers=V2).status_code == 403
    assert served.ask("auditor", "DELETE", "/tables/notes/a1").status_code == 403
    assert served.ask("auditor", "POST", "/tables/notes", json={**NOTE, "owner": "auditor"}).status_code == 201
    assert served.ask("auditor", "PUT", "/tables/notes/new", json={"owner": "auditor", "n": 9}).status_code == 200
    assert served.ask("auditor", "DELETE", "/tables/notes/new").status_code == 204


def test_what_is_theirs_can_be_written_in_every_dialect(served: Served) -> None:
    assert served.ask("ann", "POST", "/tables/notes", json=NOTE).status_code == 201
    assert served.ask("ann", "PATCH", "/tables/notes/new", json={"n": 2}, headers=V2).json()["n"] == 2
    tag = served.ask("ann", "GET", "/tables/notes/new").headers["etag"]
    assert (
        served.ask("ann", "PUT", "/tables/notes/new", json={"owner": "ann"}, headers={"if-match": tag}).status_code
        == 200
    )
    stale = served.ask("ann", "PUT", "/tables/notes/new", json={"owner": "ann"}, headers={"if-match": tag})
    assert (stale.status_code, stale.json()["owner"]) == (412, "ann")
    assert served.ask("ann", "POST", "/tables/notes", json=NOTE).status_code == 409
    assert served.ask("ann", "DELETE", "/tables/notes/new").status_code == 204
    assert served.ask("ann", "POST", "/tables/notes/new", headers=V2).status_code == 201
    assert served.ask("ann", "POST", "/tables/notes/a3", headers=V2).status_code == 201
    told = served.ask(
        "ann", "POST", "/syncframe/push", **pushed("notes", op("update", "a1", served.version("a1"), n=5))
    ).json()
    assert (told[0]["status"], told[0]["row"]["n"]) == ("accepted", 5)
    assert served.ask("editor", "PUT", "/tables/board/b1", json={"text": "new"}).status_code == 200


def test_who_may_only_insert_is_shown_what_they_wrote_and_no_more(served: Served) -> None:
    made = served.ask("ann", "POST", "/tables/inbox", json={"id": "m1", "sender": "ann", "body": "hello"})
    again = served.ask("ann", "POST", "/tables/inbox", json={"id": "m1", "sender": "ann", "body": "other"})

    assert (made.status_code, made.json()["body"]) == (201, "hello")
    assert again.status_code == 403
    assert served.rows("inbox")["m1"]["body"] == "hello"


def test_read_only_is_said_before_rights(tmp_path: Path, authority: Authority) -> None:
    backend = with_tombstones("sqlite", tmp_path / "data.db")
    with serve(backend, tokens=[f"robot {KEY}"], jwt=of(authority), rights=RIGHTS, read_only=True) as server:
        asked = Served(server.url, backend, authority)
        assert asked.ask("ann", "DELETE", "/tables/notes/a1").status_code == 405
        assert asked.ask("ann", "DELETE", "/tables/board/b1").status_code == 405
        assert asked.ask("ann", "DELETE", "/tables/vault/x").status_code == 404
        assert asked.ask("ann", "POST", "/syncframe/push", **pushed("notes", op("delete", "a1"))).status_code == 405
        assert asked.ask("ann", "GET", "/tables/notes/a1").status_code == 200


def test_without_rights_a_good_token_may_do_all(tmp_path: Path, authority: Authority) -> None:
    backend = with_tombstones("sqlite", tmp_path / "data.db")
    with serve(backend, jwt=of(authority)) as server:
        asked = Served(server.url, backend, authority)
        assert asked.ask("ann", "GET", "/tables/vault/hid6").status_code == 200
        assert asked.ask("key", "GET", "/tables/vault/hid6").status_code == 401


def test_rights_may_be_a_callable(tmp_path: Path, authority: Authority) -> None:
    def ask(identity: Identity, table: str) -> Any:
        if table == "notes":
            return [Right(read=True, where="n < 2"), Right(read=True, update=True, where="owner = :sub")]
        if table == "board":
            return Right(read=True, where="nothing = 1")
        return None if identity.subject != "boss" else Right(read=True)

    backend = with_tombstones("sqlite", tmp_path / "data.db")
    with serve(backend, jwt=of(authority), rights=ask) as server:
        asked = Served(server.url, backend, authority)
        assert [row["id"] for row in asked.ask("bob", "GET", "/tables/notes").json()["items"]] == ["a1", "hid1", "hid2"]
        assert asked.ask("bob", "GET", "/tables/board").status_code == 403  # its filter has no meaning
        assert asked.ask("bob", "GET", "/tables/vault").status_code == 404
        assert asked.ask("boss", "GET", "/tables/vault").status_code == 200
        assert asked.ask("bob", "PATCH", "/tables/notes/a1", json={"n": 1}, headers=V2).status_code == 403


# Row filters: reading


def listed(answer: Any) -> list[str]:
    told = answer.json()
    rows = told if isinstance(told, list) else told.get("items", told.get("results"))
    return [row["id"] for row in rows]


@pytest.mark.parametrize("dialect", [{}, V2], ids=["v3", "v2"])
def test_lists_leave_out_what_may_not_be_read(served: Served, dialect: dict[str, str]) -> None:
    def ask(query: str) -> Any:
        return served.ask("ann", "GET", f"/tables/notes?{query}", headers=dialect)

    assert listed(ask("")) == ["a1", "a2"]
    assert listed(ask("__includedeleted=true")) == ["a1", "a2", "a3"]
    assert listed(ask("$orderby=updatedAt desc&__includedeleted=true"))[0] == "a3"
    assert listed(ask("$filter=owner eq 'bob' or n gt 0")) == ["a1", "a2"]
    assert listed(ask("$filter=id eq 'hid1'")) == []
    assert listed(ask("$filter=1 eq 1")) == ["a1", "a2"]
    rows = ask("$select=id,title").json()
    rows = rows if isinstance(rows, list) else rows["items"]
    assert rows == [{"id": "a1", "title": "mine"}, {"id": "a2", "title": "mine too"}]
    counted = ask("$count=true&$top=1" if not dialect else "$inlinecount=allpages&$top=1").json()
    assert counted["count"] == 2
    assert listed(ask("$top=1&$skip=1")) == ["a2"]
    assert listed(ask("$skip=2")) == []


def test_the_pages_of_a_list_do_not_tell_of_what_is_between(served: Served) -> None:
    first = served.ask("ann", "GET", "/tables/notes?$orderby=updatedAt", headers={"prefer": "maxpagesize=1"}).json()
    second = served.ask("ann", "GET", f"/tables/notes?{first['nextLink']}", headers={"prefer": "maxpagesize=1"}).json()

    assert [row["id"] for row in first["items"] + second["items"]] == ["a1", "a2"]
    assert second["nextLink"] is None


def test_remote_tables_leave_it_out_too(served: Served) -> None:
    ctx = sf.connect(served.url, store=":memory:", token=served.authority.token("ann"))
    notes = ctx.remote("notes")

    assert list(notes.read().index) == ["a1", "a2"]
    assert list(notes.read("owner = 'bob'").index) == []
    assert list(notes.read(include_deleted=True).index) == ["a1", "a2", "a3"]
    assert (notes.count(), notes.count("n > 1")) == (2, 1)
    assert (notes.get("hid1"), notes.get("a1")["title"]) == (None, "mine")
    for call in (lambda: notes.delete("hid1"), lambda: notes.update("hid1", n=1), lambda: notes.undelete("hid4")):
        with pytest.raises(BackendError) as caught:
            call()
        assert caught.value.status == 404


@pytest.mark.parametrize(
    "where",
    [
        "1 % (n - 5000000000000) = 1",
        "1 // (n - 7) >= 0 or 1 % (n - 7) = 0",
        "n * 1000000000000 * 1000000000000 * 1000000000000 > 0",
    ],
)
def test_a_condition_that_fails_on_a_hidden_row_does_not_tell_of_it(served: Served, where: str) -> None:
    """DuckDB fails where it divides by zero: whether it does would say what stands in a row that nobody may read."""
    answer = served.ask("ann", "POST", "/syncframe/count?table=notes", json={"where": where})

    assert answer.status_code == 200


def test_tombstones_and_rows_are_looked_up_by_key_only_if_they_may_be_read(served: Served) -> None:
    found = served.guard("ann").rows("notes", pa.table({"id": ["a1", "a3", "hid1", "hid4", "nothing"]}))

    assert sorted(found["id"].to_pylist()) == ["a1", "a3"]


# Row filters: pulls


def pulled(served: Served, who: str, since: str | None = None, **fields: Any) -> tuple[pa.Table, str]:
    """A pull by hand: the whole of the stream, and the last checkpoint."""
    answer = served.ask(who, "POST", "/syncframe/pull?table=notes", json={"since": since, **fields})
    if answer.status_code != 200:
        raise CheckpointLost(answer.text)
    assert b"HIDDEN" not in answer.content or who != "ann"
    batches, checkpoint = [], ""
    with pa.ipc.open_stream(io.BytesIO(answer.content)) as reader:
        while True:
            try:
                part, told = reader.read_next_batch_with_custom_metadata()
            except StopIteration:
                break
            told = dict(told or {})
            assert b"error" not in told, told
            checkpoint = told.get(b"checkpoint", checkpoint.encode()).decode()
            batches.append(part)
    return pa.Table.from_batches(batches), checkpoint


def test_a_pull_brings_what_may_be_read_and_no_other_key(served: Served) -> None:
    rows, checkpoint = pulled(served, "ann")
    nothing, _ = pulled(served, "ann", checkpoint)

    assert rows["id"].to_pylist() == ["a1", "a2"]
    assert len(nothing) == 0
    assert "ann" not in checkpoint


def test_a_change_of_what_may_be_read_comes_alone(served: Served) -> None:
    _, checkpoint = pulled(served, "ann")
    Rows(served.backend, "notes").update("a1", {"n": 10})
    Rows(served.backend, "notes").delete("a2")

    rows, _ = pulled(served, "ann", checkpoint)

    assert rows.select(["id", "_syncframe_deleted"]).to_pylist() == [
        {"id": "a1", "_syncframe_deleted": False},
        {"id": "a2", "_syncframe_deleted": True},
    ]


def test_a_row_that_leaves_a_query_and_may_be_read_is_a_leaver(served: Served) -> None:
    _, checkpoint = pulled(served, "ann", where="n < 10")
    Rows(served.backend, "notes").update("a1", {"n": 10})

    rows, _ = pulled(served, "ann", checkpoint, where="n < 10", others=[None])

    assert rows["id"].to_pylist() == ["a1"]
    assert (rows["_syncframe_left"].to_pylist(), rows["_syncframe_held"].to_pylist()) == ([True], [True])


@pytest.mark.parametrize("change", ["update", "delete", "insert"])
def test_what_changes_outside_is_told_by_no_key_and_the_pull_starts_anew(served: Served, change: str) -> None:
    _, checkpoint = pulled(served, "ann")
    rows = Rows(served.backend, "notes")
    if change == "insert":
        rows.insert({"id": "hid9", "owner": "bob"})
    else:
        rows.update("hid1", {"n": 1}) if change == "update" else rows.delete("hid1")

    with pytest.raises(CheckpointLost) as caught:
        pulled(served, "ann", checkpoint)

    assert "hid" not in str(caught.value)
    assert pulled(served, "ann")[0]["id"].to_pylist() == ["a1", "a2"]


@pytest.mark.parametrize("change", ["reassigned", "reassigned and deleted"])
def test_a_row_that_was_taken_away_goes_from_a_store(served: Served, change: str) -> None:
    ctx = sf.connect(served.url, store=":memory:", token=served.authority.token("ann"))
    notes = ctx["notes"]
    notes.pull(query_id="all")
    assert sorted(notes.frame().index) == ["a1", "a2"]

    rows = Rows(served.backend, "notes")
    rows.update("a1", {"owner": "bob"})
    if change == "reassigned and deleted":
        rows.delete("a1")
    result = notes.pull(query_id="all")

    assert list(notes.frame().index) == ["a2"]
    assert "may not be read" in " ".join(result.notes)
    assert "hid" not in " ".join(result.notes)
    rows.update("hid2", {"owner": "ann"})
    notes.pull(query_id="all")
    assert sorted(notes.frame().index) == ["a2", "hid2"]


def test_where_it_is_granted_leavers_are_named_and_a_pull_goes_on(tmp_path: Path, authority: Authority) -> None:
    backend = with_tombstones("sqlite", tmp_path / "data.db")
    rights = {"notes": [{"who": "*", "may": ["read"], "where": "owner = :sub", "name_leavers": True}]}
    with serve(backend, jwt=of(authority), rights=rights) as server:
        asked = Served(server.url, backend, authority)
        _, checkpoint = pulled(asked, "ann")
        Rows(backend, "notes").update("a1", {"owner": "bob", "title": "HIDDEN"})
        Rows(backend, "notes").delete("hid1")
        rows, _ = pulled(asked, "ann", checkpoint)

    told = rows.select(["id", "owner", "_syncframe_left", "_syncframe_deleted", "_syncframe_version"]).to_pylist()
    assert sorted(told, key=lambda row: row["id"]) == [
        {"id": key, "owner": None, "_syncframe_left": True, "_syncframe_deleted": False, "_syncframe_version": None}
        for key in ("a1", "hid1")
    ]


def test_what_leaves_while_a_pull_goes_on_is_named_if_it_was_sent(served: Served) -> None:
    guard = served.guard("ann")
    pages = guard.pull("notes", Query(page_rows=1), None)
    first = next(pages)
    for key in ("a1", "a2", "hid1"):
        Rows(served.backend, "notes").update(key, {"owner": "carl"})

    others = list(pages)

    assert first.rows["id"].to_pylist() == ["a1"]
    assert [row["id"] for page in others for row in page.rows.to_pylist()] == []
    left = [row["id"] for page in others if page.leavers is not None for row in page.leavers.to_pylist()]
    assert left == ["a1"]


def test_a_checkpoint_is_of_what_could_be_read_then(served: Served) -> None:
    """Else rows that may be read since, and have not changed, would never come."""
    checkpoints = {who: pulled(served, who)[1] for who in ("ann", "bob", "auditor")}

    for who, of_whom in [("ann", "bob"), ("ann", "auditor"), ("auditor", "ann")]:
        with pytest.raises(CheckpointLost):
            pulled(served, who, checkpoints[of_whom])


# Row filters: writing


def outcomes(
    served: Served, who: str, *operations: dict[str, Any], atomic: int = 0, table: str = "notes"
) -> list[dict[str, Any]]:
    answer = served.ask(who, "POST", f"/syncframe/push?atomic={atomic}", **pushed(table, *operations))
    assert answer.status_code == 200, answer.text
    assert "HIDDEN" not in answer.text
    told: list[dict[str, Any]] = answer.json()
    return told


def test_one_row_outside_is_rejected_and_the_others_are_written(served: Served) -> None:
    told = outcomes(
        served, "ann",
        op("insert", "n1", owner="ann"), op("insert", "n2", owner="bob"), op("update", "a1", served.version("a1"), n=5),
        op("update", "a2", served.version("a2"), owner="bob"),
    )  # fmt: skip

    assert [one["status"] for one in told] == ["accepted", "rejected", "accepted", "rejected"]
    assert [one["code"] for one in told] == [None, "access", None, "access"]
    rows = served.rows()
    assert ("n2" in rows, rows["n1"]["owner"], rows["a1"]["n"], rows["a2"]["owner"]) == (False, "ann", 5, "ann")


def test_one_row_outside_and_an_atomic_push_writes_nothing(served: Served) -> None:
    before = served.dump()

    told = outcomes(served, "ann", op("insert", "n1", owner="ann"), op("insert", "n2", owner="bob"), atomic=1)

    assert [(one["operation_id"], one["status"], one["code"]) for one in told] == [
        ("op-insert-n2", "rejected", "access")
    ]
    assert served.dump() == before
    told = outcomes(served, "ann", op("insert", "n1", owner="ann"), op("insert", "n3", owner="ann"), atomic=1)
    assert [one["status"] for one in told] == ["accepted", "accepted"]
    told = outcomes(served, "ann", op("insert", "n4", owner="ann"), op("update", "a1", "stale", n=1), atomic=1)
    assert [(one["status"], one["row"]["title"]) for one in told] == [("conflicted", "mine")]
    assert "n4" not in served.rows()


@pytest.mark.parametrize("atomic", [0, 1])
def test_operations_on_hidden_rows_are_as_on_rows_that_are_not_there(served: Served, atomic: int) -> None:
    before, version = served.dump(), served.version("hid1")
    wanted = {"update": "conflicted", "delete": "accepted", "insert": "rejected"}
    for kind, values in [("update", {"n": 1}), ("delete", {}), ("insert", {"owner": "ann"})]:
        for key in ("hid1", "hid4"):
            (told,) = outcomes(served, "ann", op(kind, key, version, **values), atomic=atomic) or [
                {"status": "accepted"}
            ]
            assert told["status"] == wanted[kind]
            assert (told.get("version"), told.get("operation"), told.get("updatedAt")) == (None, None, None)
            assert told.get("row") in (None, {"owner": None, "title": None, "n": None})

    assert served.dump() == before


def test_an_arrow_push_is_held_to_the_same(served: Served) -> None:
    guard = served.guard("ann")
    operations = batch(
        guard, "notes", [
            insert(("n1",), owner="ann", title="t"), insert(("n2",), owner="bob"), delete(("hid1",), served.version("hid1")),
            update(("a1",), served.version("a1"), n=6), update(("hid2",), served.version("hid2"), owner="ann"),
        ],
    )  # fmt: skip
    ctx = sf.connect(served.url, store=":memory:", token=served.authority.token("ann"))

    parts = list(ctx._session.asked().push(operations))

    told = [row for part in parts for row in part]
    assert [row["status"] for row in told] == ["accepted", "rejected", "accepted", "accepted", "conflicted"]
    assert [row["r_title"] for row in told] == ["t", None, None, "mine", None]
    assert (served.rows()["hid1"]["title"], served.rows()["hid2"]["owner"]) == ("HIDDEN", "bob")


def test_a_conflict_does_not_show_a_row_that_was_taken_away(served: Served) -> None:
    ctx = sf.connect(served.url, store=":memory:", token=served.authority.token("ann"))
    notes = ctx["notes"]
    notes.pull(query_id="all")
    notes.update("a1", n=77)
    Rows(served.backend, "notes").update("a1", {"owner": "bob", "title": "HIDDEN"})

    result = ctx.push()

    assert result.counts == {"accepted": 0, "conflicts": 1, "rejected": 0}
    (conflict,) = ctx.conflicts
    assert conflict.theirs is None
    assert served.rows()["a1"] == {"id": "a1", "owner": "bob", "title": "HIDDEN", "n": 1}
    conflict.keep_mine()
    assert ctx.push().counts["rejected"] == 1
    assert served.rows()["a1"]["n"] == 1


def test_a_push_whose_answer_was_lost_is_accepted_though_the_row_was_taken_away_since(served: Served) -> None:
    sent = op("insert", "n1", owner="ann", title="t")
    outcomes(served, "ann", sent)
    Rows(served.backend, "notes").update("n1", {"owner": "bob", "title": "HIDDEN"})

    (told,) = outcomes(served, "ann", sent)

    assert (told["status"], told["deleted"], told["version"]) == ("accepted", True, None)
    assert served.rows()["n1"]["owner"] == "bob"


class Racing:
    """A back end in which somebody else writes between the look at rows and the write."""

    def __init__(self, backend: Any, meanwhile: Callable[[], object]) -> None:
        self.backend, self.meanwhile = backend, meanwhile

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def push(self, operations: Operations) -> Iterator[Outcomes]:
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        return iter(list(self.backend.push(operations)))


@pytest.mark.parametrize("kind", ["update", "delete", "insert"])
def test_nothing_comes_between_the_look_and_the_write(served: Served, kind: str) -> None:
    rows = Rows(served.backend, "notes")
    meanwhile = {
        "insert": lambda: rows.insert({"id": "new", "owner": "bob", "title": "HIDDEN"}),
        "update": lambda: rows.update("a1", {"owner": "bob", "title": "HIDDEN"}),
        "delete": lambda: rows.update("a1", {"owner": "bob", "title": "HIDDEN"}),
    }[kind]
    guard = served.guard("ann")
    version = served.version("a1")
    sent = {
        "insert": insert(("new",), owner="ann"),
        "update": update(("a1",), version, n=3),
        "delete": delete(("a1",), version),
    }[kind]
    operations = batch(guard, "notes", [sent])
    guard._backend = Racing(served.backend, meanwhile)

    (told,) = [row for part in guard.push(operations) for row in part]

    assert told["status"] == ("rejected" if kind == "insert" else "conflicted")
    assert (told["version"], told["r_title"], told["r_owner"]) == (None, None, None)
    key = "new" if kind == "insert" else "a1"
    assert (served.rows()[key]["owner"], served.rows()[key]["title"]) == ("bob", "HIDDEN")


@pytest.mark.parametrize("atomic", [False, True])
def test_what_a_trigger_moves_outside_is_taken_back(tmp_path: Path, atomic: bool) -> None:
    path = tmp_path / "data.db"
    backend = with_tombstones("sqlite", path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "create trigger theirs after update of n on notes when new.n = 13 "
            "begin update notes set owner = 'bob' where id = new.id; end"
        )
        connection.execute(
            "create trigger also after insert on notes when new.n = 13 "
            "begin update notes set owner = 'bob' where id = new.id; end"
        )
        connection.commit()
    asked = Served("http://127.0.0.1:9", backend, Authority())
    guard = asked.guard("ann")
    operations = batch(
        guard, "notes",
        [insert(("n1",), owner="ann", n=13), insert(("n2",), owner="ann", n=1), update(("a1",), asked.version("a1"), n=13)],
    )  # fmt: skip
    before = asked.rows()

    parts = guard.push_atomic([operations]) if atomic else list(guard.push(operations))

    told = [(row["status"], row["code"]) for part in parts for row in part]
    refused = ("rejected", "access")
    assert told == ([refused, refused] if atomic else [refused, ("accepted", None), refused])
    after = asked.rows()
    assert after.pop("n2", None) == (None if atomic else {"id": "n2", "owner": "ann", "title": None, "n": 1})
    assert after == before


def test_a_filter_means_the_same_here_and_in_the_back_end(served: Served) -> None:
    """Rows in hand are judged by DuckDB, those that are read by their own database."""
    schema = served.backend.schema("notes")
    for where in [
        "owner = 'ann'",
        "owner <> 'ann'",
        "n > 5 or owner is null",
        "not (owner = 'bob')",
        "title like 'mi%'",
        "1 = 1 or owner = 'x'",
    ]:
        rights = Rights.of(lambda identity, table, where=where: Right(read=True, where=where))
        tables = chosen(served.backend, ["notes"], track=False)
        object.__setattr__(tables, "rights", rights)
        guard: Any = tables.seen_by(Identity("ann")).backend
        keys = pa.table({"id": ["a1", "a2", "a3", "hid1", "hid2", "hid3", "hid4"]})
        read = served.backend.read("notes", Read(where=parse(where, schema), include_deleted=True))
        assert sorted(guard.rows("notes", keys)["id"].to_pylist()) == sorted(read["id"].to_pylist())


# Claims in filters


def bound(where: str, schema: Schema | None = None, **claims: Any) -> str:
    rights = Rights.of({"t": [{"who": "*", "may": ["read"], "where": where}]})
    assert rights is not None
    schema = schema or Schema.of(
        {"id": "VARCHAR", "n": "BIGINT", "flag": "BOOLEAN", "x": "DOUBLE", "day": "DATE"}, "id"
    )
    condition = rights.granted(Identity(claims.get("sub"), claims), "t", schema).filters["read"]
    assert condition is not None
    return condition.text


@pytest.mark.parametrize(
    "text",
    [
        "x' or 'a' = 'a",
        "'; drop table t; --",
        "x\\' or 1=1",
        ":sub",
        "''",
        "",
        "a\nb",
        "/*",
        "--",
        "$$",
        "E'x'",
        "\x00",
        "ä€😀",
        "' || '",
    ],
)
def test_a_claim_is_one_literal_whatever_is_in_it(text: str) -> None:
    condition = parse(bound("id = :sub", sub=text), Schema.of({"id": "VARCHAR"}, "id"))

    assert condition.tree.args[1].value == text  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("where", "claims", "text"),
    [
        ("id = :sub", {"sub": "a"}, "\"id\" = 'a'"),
        ("n <= :level", {"level": 3}, '"n" <= 3'),
        ("n = 1 -:level", {"level": -3}, '"n" = 1 - -3'),
        ("flag = :ok", {"ok": True}, '"flag" = true'),
        ("x < :most", {"most": 1.5}, '"x" < 1.5e0'),
        ("day >= :since", {"since": "2024-01-01"}, "\"day\" >= date '2024-01-01'"),
        ("id in (:groups)", {"groups": ["a", "b'c"]}, "\"id\" in ('a', 'b''c')"),
        ("id in (:groups)", {"groups": "a"}, "\"id\" in ('a')"),
        ('id = :"https://example.net/unit"', {"https://example.net/unit": "u"}, "\"id\" = 'u'"),
        ("id = ':sub'", {"sub": "a"}, "\"id\" = ':sub'"),
        ("id = :sub or id = :sub", {"sub": "a"}, "\"id\" = 'a' or \"id\" = 'a'"),
    ],
)  # fmt: skip
def test_claims_are_bound_in_their_own_type(where: str, claims: dict[str, Any], text: str) -> None:
    assert bound(where, **claims) == text


def test_a_list_that_is_empty_matches_nothing() -> None:
    assert bound("id in (:groups)", groups=[]) == '"id" in (null)'


@pytest.mark.parametrize(
    ("where", "claims"),
    [
        ("id = :sub", {}),
        ("id = :unit", {"sub": "a"}),
        ("id = :unit", {"unit": None}),
        ("id = :unit", {"unit": 7}),
        ("id = :unit", {"unit": True}),
        ("id = :unit", {"unit": ["a"]}),
        ("id = :unit", {"unit": {"a": 1}}),
        ("id = :unit", {"unit": "\ud800"}),
        ("n = :unit", {"unit": "1"}),
        ("n = :unit", {"unit": 2**70}),
        ("n = :unit", {"unit": float("inf")}),
        ("n = :unit", {"unit": True}),
        ("id in (:unit)", {"unit": ["a", 1]}),
        ("id in (:unit)", {"unit": [["a"]]}),
        ("day = :unit", {"unit": "soon"}),
    ],
)  # fmt: skip
def test_a_claim_of_a_wrong_type_is_403_and_not_shown(where: str, claims: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as caught:
        bound(where, **claims)

    assert caught.value.status == 403
    assert "soon" not in str(caught.value)


def test_a_wrong_claim_is_403_over_http_for_each_verb(tmp_path: Path, authority: Authority) -> None:
    backend = with_tombstones("sqlite", tmp_path / "data.db")
    rights = {"notes": [{"who": "*", "may": ["read", "insert", "update", "delete"], "where": "n < :level"}]}
    with serve(backend, jwt=of(authority), rights=rights) as server:
        asked = Served(server.url, backend, authority)
        before = asked.dump()
        for claims in ({"level": "9"}, {}, {"level": [9]}):
            headers = {"authorization": f"Bearer {authority.token('ann', **claims)}"}
            for method, path, request_ in [
                ("GET", "/tables/notes", {}), ("GET", "/tables/notes/a1", {}), ("DELETE", "/tables/notes/a1", {}),
                ("POST", "/tables/notes", {"json": NOTE}), ("PUT", "/tables/notes/a1", {"json": {"n": 1}}),
                ("POST", "/syncframe/pull?table=notes", {"json": {}}), ("POST", "/syncframe/count?table=notes", {"json": {}}),
                ("POST", "/syncframe/push", pushed("notes", op("delete", "a1", "v"))),
            ]:  # fmt: skip
                assert asked.client.request(method, path, headers=headers, **request_).status_code == 403
        assert asked.dump() == before
        good = {"authorization": f"Bearer {authority.token('ann', level=2)}"}
        assert listed(asked.client.get("/tables/notes", headers=good)) == ["a1"]


WRONG_RIGHTS: dict[str, tuple[Any, str]] = {
    "a table that is not there": ({"nots": []}, "'nots'"),
    "a column that is not there": ({"notes": [{"who": "*", "may": ["read"], "where": "ownr = :sub"}]}, "'ownr'"),
    "no condition": ({"notes": [{"who": "*", "may": ["read"], "where": "owner"}]}, "no meaning"),
    "a type that never fits": ({"notes": [{"who": "*", "may": ["read"], "where": "n = :sub"}]}, "no meaning"),
    "a second statement": ({"notes": [{"who": "*", "may": ["read"], "where": "owner = :sub; select 1"}]}, "no meaning"),
    "a system column": ({"notes": [{"who": "*", "may": ["read"], "where": "updatedAt > '2024-01-01'"}]}, "'updatedAt'"),
    "an open quote": ({"notes": [{"who": "*", "may": ["read"], "where": "owner = 'x"}]}, "no meaning"),
    "an unknown verb": ({"notes": [{"who": "*", "may": ["write"]}]}, "write"),
    "nobody": ({"notes": [{"may": ["read"]}]}, "who"),
    "an empty who": ({"notes": [{"who": {}, "may": ["read"]}]}, "who"),
    "an unknown member": ({"notes": [{"who": "*", "may": ["read"], "were": "1 = 1"}]}, "'were'"),
    "a where that is no text": ({"notes": [{"who": "*", "may": ["read"], "where": 1}]}, "no text"),
    "a key that is not there": ({"notes": [{"who": "key:robt", "may": ["read"]}]}, "'key:robt'"),
    "no rules": ({"notes": "read"}, "str"),
    "no mapping": ([1], "list"),
    "for all tables": ({"*": [{"who": "*", "may": ["read"], "where": "owner = :sub"}]}, "'owner'"),
}


@pytest.mark.parametrize(("rights", "words"), WRONG_RIGHTS.values(), ids=WRONG_RIGHTS)
def test_rights_that_make_no_sense_are_refused_at_the_start(tmp_path: Path, rights: Any, words: str) -> None:
    url = built("sqlite", tmp_path / "data.db")

    with pytest.raises(SyncError, match=words):
        serve(url, track=True, tokens=[f"robot {KEY}"], rights=rights)


def test_rights_without_identities_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SyncError, match="nobody says who they are"):
        serve(built("sqlite", tmp_path / "data.db"), track=True, rights=RIGHTS)


def test_rights_may_stand_in_a_file_and_for_all_tables(tmp_path: Path, authority: Authority) -> None:
    file = tmp_path / "rights.toml"
    file.write_text('[["*"]]\nwho = {role = "reader"}\nmay = "read"\n\n[[notes]]\nwho = "ann"\nmay = ["read"]\n')
    backend = with_tombstones("sqlite", tmp_path / "data.db")
    with serve(backend, jwt=of(authority), rights=file) as server:
        asked = Served(server.url, backend, authority)

        def told(who: str, **claims: Any) -> Any:
            headers = {"authorization": f"Bearer {authority.token(who, **claims)}"}
            return asked.client.get("/syncframe", headers=headers).json()["tables"]

        assert told("ann") == ["notes"]
        assert told("bob") == []
        assert len(told("bob", role="reader")) == 5
        assert len(told("bob", roles=["x", "reader"])) == 5
        assert told("bob", role="readers") == told("bob", role=["other"]) == told("bob", role=True) == []


def test_a_back_end_without_rows_by_key_takes_no_filters(tmp_path: Path) -> None:
    inner: Any = open_backend(built("sqlite", tmp_path / "data.db"))
    inner.track(["board", "hours", "inbox", "notes", "vault"])
    backend = types.SimpleNamespace(
        **{name: getattr(inner, name) for name in ("schema", "pull", "push", "promises", "tables")}
    )

    with pytest.raises(SyncError, match="no rows by key"):
        serve(backend, tokens=[f"robot {KEY}"], rights=RIGHTS)
    inner.close()


# Keys


def test_keys_may_have_names() -> None:
    keys = Keys.of([KEY, f"robot {KEY}2"])
    assert keys is not None

    assert keys.know(KEY.encode()) == Identity(None, is_key=True)
    assert keys.know(f"{KEY}2".encode()) == Identity("key:robot", is_key=True)
    assert keys.know(f"robot {KEY}2".encode()) is None
    assert Keys.of({"robot": KEY}).names == {"robot"}  # type: ignore[union-attr]
    assert KEY not in repr(keys)
    with pytest.raises(SyncError, match="two names"):
        Keys.of([f"a {KEY}", f"b {KEY}"])


def test_other_machines_are_let_in_with_tokens_too(authority: Authority) -> None:
    access = Access.of(jwt=of(authority))
    access.check_host("0.0.0.0")

    assert access.identify(Headers({"X-ZUMO-AUTH": authority.token()})).subject == "ann"  # type: ignore[union-attr]
    assert access.identify(Headers({"Authorization": f"bearer {authority.token('bob')}"})).subject == "bob"  # type: ignore[union-attr]


def test_keys_are_fetched_while_other_requests_are_answered(tmp_path: Path) -> None:
    authority = Authority()
    with published(authority) as url:
        backend = with_tombstones("sqlite", tmp_path / "data.db")
        with serve(backend, jwt=of(authority, keys=url)) as server:
            asked = Served(server.url, backend, authority)
            assert asked.ask("ann", "GET", "/tables/notes").status_code == 200
            assert asked.ask("unknown kid", "GET", "/tables/notes").status_code == 401
    backend.close()


# Where a client finds its token

TOKEN = "the-token-of-a-client-0123456789"


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[str]:
    with serve(built("sqlite", tmp_path / "data.db"), track=True, tokens=[TOKEN, f"{TOKEN}-two"]) as server:
        yield server.url


def test_a_token_comes_from_a_file(guarded: str, tmp_path: Path, caplog: Any) -> None:
    file, store = tmp_path / "token", tmp_path / "mine.duckdb"
    file.write_text(f"{TOKEN}\n")
    with caplog.at_level(logging.DEBUG), sf.connect(guarded, store=store, token_file=file) as ctx:
        ctx["notes"].pull(query_id="all")
        assert TOKEN not in repr(ctx) + repr(vars(ctx._session)) + repr(ctx._session.asked())
        # After a 401 the file is read again.
        file.write_text("x" * 30)
        ctx._session.asked()._transport._tokens._ask()  # type: ignore[attr-defined]
        file.write_text(f"{TOKEN}-two")
        ctx["notes"].pull(query_id="all")

    assert TOKEN not in caplog.text
    assert all(TOKEN.encode() not in path.read_bytes() for path in tmp_path.glob("mine.duckdb*"))


def test_the_environment_is_for_https_and_this_machine(guarded: str, tmp_path: Path, monkeypatch: Any) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    for name in ("SYNCFRAME_TOKEN", "SYNCFRAME_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    assert found_token(guarded) is None

    monkeypatch.setenv("SYNCFRAME_TOKEN_FILE", str(file))
    assert found_token(guarded)() == TOKEN  # type: ignore[operator, misc]
    monkeypatch.setenv("SYNCFRAME_TOKEN", f" {TOKEN}-two\n")
    assert found_token(guarded) == f"{TOKEN}-two"
    with sf.connect(guarded, store=":memory:") as ctx:
        assert ctx["notes"].pull().rows == 7

    assert found_token("https://example.net/app") == found_token("http://[::1]:8000") == f"{TOKEN}-two"
    for url in ("http://example.net", "http://127.0.0.1.example.net", "sqlite:///x.db", "http://[", None, object()):
        assert found_token(url) is None
    assert found_token("http://example.net", "given") == "given"
    assert found_token(guarded, "given") == "given"


def test_a_token_may_be_an_entry_of_the_keyring(guarded: str, monkeypatch: Any) -> None:
    kept = {("https://example.net/app", "ann"): TOKEN}
    ring = types.SimpleNamespace(get_password=lambda service, name: kept.get((service, name)))
    monkeypatch.setitem(sys.modules, "keyring", ring)

    with sf.connect(guarded, store=":memory:", token="keyring:https://example.net/app/ann") as ctx:
        assert ctx["notes"].pull().rows == 7
    token = found_token(guarded, "keyring:https://example.net/app/bob")
    with pytest.raises(AccessError, match="'bob'"):
        token()  # type: ignore[operator, misc]

    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(SyncError, match="not installed") as caught:
        sf.connect(guarded, store=":memory:", token="keyring:app/ann")
    assert "syncframe[keyring]" in str(caught.value.hint)
    with pytest.raises(SyncError, match="no entry"):
        found_token(guarded, "keyring:ann")


def test_a_token_file_that_cannot_be_read_is_told_at_once(tmp_path: Path) -> None:
    empty, odd = tmp_path / "empty", tmp_path / "odd"
    empty.write_text(" \n")
    odd.write_bytes(b"\xffSECRET")
    for path, words in [
        (tmp_path / "none", "cannot be read"),
        (empty, "empty"),
        (odd, "no UTF-8"),
        (tmp_path, "cannot be read"),
    ]:
        with pytest.raises(SyncError, match=words) as caught:
            sf.connect("http://127.0.0.1:9", store=":memory:", token_file=path)
        assert "SECRET" not in str(caught.value)
    with pytest.raises(SyncError, match="both given"):
        sf.connect("http://127.0.0.1:9", store=":memory:", token="x", token_file=empty)


def test_a_token_file_says_that_it_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    token = FileToken(file)
    assert not token.has_changed()

    file.write_text(f"{TOKEN}-two")
    assert token.has_changed()
    assert token() == f"{TOKEN}-two"
    assert TOKEN not in repr(token) + repr(vars(token).keys())


def test_a_key_without_a_name_may_do_what_everybody_may(tmp_path: Path) -> None:
    backend = built("sqlite", tmp_path / "data.db")
    rights = {"notes": [{"who": "*", "may": ["read"]}], "*": [{"who": "key:admin", "may": ["read", "delete"]}]}
    with serve(backend, track=True, tokens=[KEY, f"admin {KEY}-of-the-admin"], rights=rights) as server:
        url = f"{server.url}/tables/notes"
        key = httpx2.get(url, headers={"x-zumo-auth": KEY}).json()["items"][0]["id"]
        refused = httpx2.delete(f"{url}/{key}", headers={"x-zumo-auth": KEY})
        done = httpx2.delete(f"{url}/{key}", headers={"x-zumo-auth": f"{KEY}-of-the-admin"})

    assert (refused.status_code, done.status_code) == (403, 204)


@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("options", [{}, {"protocol": "v3"}], ids=["extended", "v3"])
def test_what_a_server_refused_whole_was_not_sent_and_can_be_given_up(
    tmp_path: Path, options: Any, atomic: bool
) -> None:
    if atomic and options:
        pytest.skip("the plain protocol has no push that is all or nothing")
    backend = built("sqlite", tmp_path / "data.db")
    rights = {"notes": [{"who": "key:ann", "may": ["read"]}]}
    with (
        serve(backend, track=True, tokens=[f"ann {KEY}"], rights=rights) as server,
        sf.connect(server.url, store=":memory:", token=KEY, **options) as ctx,
    ):
        notes = ctx["notes"]
        notes.pull(query_id="all", progress=False)
        before = notes.frame()
        notes.delete(before.index[0])
        with suppress(AccessError):
            assert not ctx.push(atomic=atomic, progress=False).ok
        ctx.discard()

        assert len(ctx.pending) == 0
        notes.pull(query_id="all", progress=False)
        pd.testing.assert_frame_equal(notes.frame(), before)
