"""Who asks, by a JSON Web Token (RFC 7519): what is signed with a key that is known, for us, and for now.

A key says itself which algorithms it is for: an RSA key is never the secret of an HMAC, whatever a token's header
says, and `none` is nobody's.  Headers that bring a key along (`jwk`, `jku`, `x5c`) are not looked at.  The keys are
read again when their file changes, and fetched again, once a minute at most, when a token names one that is not
among them.
"""

from __future__ import annotations

import base64
import json
import logging
import math
import threading
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from ..errors import SyncError
from ..secrets import is_loopback, state_of, why_unread

log = logging.getLogger("syncframe.server")

TOKEN_BYTES_MAX = 8 * 1024
SECRET_BYTES_MIN = 32
RSA_BITS_MIN = 2_048
JWKS_BYTES_MAX = 1024 * 1024
KEYS_TRIED_MAX = 8
FETCH_S = 5.0
RENEW_S = 60.0  # between two fetches of one URL
FRESH_S = 3_600.0  # after so long the keys of a URL are fetched again

_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_SECRETS = {"HS256": 32, "HS384": 48, "HS512": 64}  # bytes, RFC 7518, 3.2
ALGORITHMS = (*_SECRETS, *_RSA, *_CURVES.values(), "EdDSA")
_PUBLIC = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_FILE_ENDS = (".json", ".jwks", ".pem", ".pub", ".crt", ".cer", ".key", ".txt")
_MAKE_ONE = "openssl rand -out secret.key 32 makes one"


@dataclass(frozen=True, slots=True)
class Jwt:
    """Which tokens a server takes.

    Parameters
    ----------
    keys
        By what their signatures are checked, one or a list: the path of a file with a JWKS, with public keys or
        certificates in PEM, or with a secret; an https URL of a JWKS; PEM as text; a secret of at least 32 bytes.
    issuer, audience
        What `iss` is, and what `aud` names; of several, any.  A token that names an audience is refused where
        none is given here.
    algorithms
        Only these; None: all that fit the keys.
    leeway_s
        How far the clocks may be apart.
    """

    keys: Any = field(repr=False)
    issuer: str | Sequence[str] | None = None
    audience: str | Sequence[str] | None = None
    algorithms: Sequence[str] | None = None
    leeway_s: float = 60.0
    folder: Path = Path()  # where relative paths among `keys` begin

    @classmethod
    def of(cls, given: Jwt | Mapping[str, Any] | str | Path) -> Jwt:
        """Take settings as they are, from a mapping, or from a TOML or JSON file.

        Raises
        ------
        SyncError
            If they cannot be read, or have what is no setting.
        """
        if isinstance(given, Jwt):
            return given
        folder = Path()
        if isinstance(given, str | Path):
            path = Path(given).expanduser()
            given, folder = settings_in(path, "jwt"), path.absolute().parent
        known = [f.name for f in fields(cls) if f.name != "folder"]
        unknown = [name for name in given if name not in known]
        if unknown or "keys" not in given:
            raise SyncError(
                f"jwt= has {unknown[0]!r}" if unknown else "jwt= has no keys",
                hint=f"it has keys, and may have {', '.join(known[1:])}",
            )
        return cls(**given, folder=folder)


def settings_in(path: Path, what: str) -> dict[str, Any]:
    """What a TOML or JSON file holds, as a mapping; SyncError if it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
        held = json.loads(text) if text.lstrip()[:1] in ("{", "[") and path.suffix != ".toml" else tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        words = f"the file {path} of {what}= cannot be read: {why_unread(error)}"
        raise SyncError(words, hint="TOML or JSON") from error
    if not isinstance(held, dict):
        raise SyncError(f"the file {path} of {what}= holds no mapping", hint="TOML or JSON")
    return held


class BadToken(Exception):
    """A token that is not taken; the words are for the log, and do not show it."""

    def __init__(self, words: str, *, told: str = "the token that was sent is not accepted") -> None:
        super().__init__(words)
        self.told = told


class KeysWanted(Exception):
    """Whether a token is good depends on keys that have to be fetched first, which takes a while."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key, and the algorithms that it is for."""

    id: str | None
    algorithms: frozenset[str]
    key: Any = field(repr=False)


class Source(Protocol):
    """Where keys come from."""

    def known(self) -> Sequence[Key]:
        """Those that are known; a file is read again if it is another."""

    def is_due(self, *, is_wanted: bool) -> bool:
        """Whether they should be fetched again, and may be; `is_wanted`: one is named that is not there."""

    def renew(self) -> None:
        """Fetch them again."""


class Verifier:
    """What tells good tokens from bad ones."""

    def __init__(self, settings: Jwt, *, clock: Callable[[], float] = time.monotonic) -> None:
        try:
            import jwt
        except ModuleNotFoundError as error:
            raise SyncError("jwt= needs PyJWT", hint='pip install "syncframe[server]"') from error
        self._jwt = jwt
        self._settings = _checked(settings)
        self._algorithms = frozenset(settings.algorithms or ALGORITHMS)
        given = settings.keys if isinstance(settings.keys, list | tuple) else [settings.keys]
        self._sources = [_source(keys, settings.folder, clock) for keys in given]
        known = [key for source in self._sources for key in source.known()]
        if not any(key.algorithms & self._algorithms for key in known):
            raise SyncError("jwt= has no key that a token could be signed for", hint="keys=, or algorithms=, is wrong")

    def __repr__(self) -> str:
        return f"Verifier({len(self._sources)} of keys)"

    def claims(self, token: str, *, may_fetch: bool = False) -> dict[str, Any]:
        """Return what a token says, once all of it is checked.

        Raises
        ------
        BadToken
            If anything is wrong with it.
        KeysWanted
            If keys should be fetched first, and `may_fetch` is False.
        """
        if len(token) > TOKEN_BYTES_MAX:
            raise BadToken(f"it has {len(token)} bytes, and may have {TOKEN_BYTES_MAX}")
        algorithm, key_id = self._header(token)
        for key in self._candidates(algorithm, key_id, may_fetch=may_fetch):
            claims = self._decoded(token, key, algorithm)
            if claims is not None:
                _check_times(claims)
                return claims
        raise BadToken("no key that is known has signed it")

    def _header(self, token: str) -> tuple[str, str | None]:
        if token.count(".") != 2:
            raise BadToken("it has not three parts")
        try:
            header = self._jwt.get_unverified_header(token)
        except Exception as error:
            raise BadToken(f"its header cannot be read: {type(error).__name__}") from None
        algorithm, key_id = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise BadToken("its algorithm is not among those that are taken")
        if "crit" in header or "b64" in header:
            raise BadToken("its header has extensions that are not known here (RFC 7515, 4.1.11)")
        if key_id is not None and not isinstance(key_id, str):
            raise BadToken("its kid is no text")
        return algorithm, key_id

    def _candidates(self, algorithm: str, key_id: str | None, *, may_fetch: bool) -> list[Key]:
        """The keys that may have signed: that of the id, or those that have none."""
        known = self._known()
        is_wanted = key_id is not None and all(key.id != key_id for key in known)
        due = [source for source in self._sources if source.is_due(is_wanted=is_wanted)]
        if due:
            if not may_fetch:
                raise KeysWanted
            for source in due:
                source.renew()
            known = self._known()
        if key_id is not None:
            named = [key for key in known if key.id == key_id]
            known = named or [key for key in known if key.id is None]
        return [key for key in known if algorithm in key.algorithms][:KEYS_TRIED_MAX]

    def _known(self) -> list[Key]:
        return [key for source in self._sources for key in source.known()]

    def _decoded(self, token: str, key: Key, algorithm: str) -> dict[str, Any] | None:
        """The claims; None: another key has signed."""
        errors = self._jwt.exceptions
        try:
            claims: dict[str, Any] = self._jwt.decode(
                token,
                key.key,
                algorithms=[algorithm],
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                leeway=self._settings.leeway_s,
                options={"require": ["exp"]},
            )
        except errors.InvalidSignatureError:
            return None
        # The signature is checked before the claims, so that these words go to whom the token was given.
        except errors.ExpiredSignatureError:
            raise BadToken("it has expired", told="the token has expired") from None
        except errors.ImmatureSignatureError:
            raise BadToken("it is not valid yet", told="the token is not valid yet") from None
        except Exception as error:
            raise BadToken(f"{type(error).__name__}: {_short(error)}") from None
        return claims


def _short(error: Exception) -> str:
    """PyJWT's words; of other errors none, for they may show what was sent."""
    return str(error)[:100] if type(error).__module__.startswith("jwt") else "it cannot be read"


def _check_times(claims: Mapping[str, Any]) -> None:
    """A NumericDate is a JSON number (RFC 7519, 2); PyJWT takes texts and true for one."""
    for name in ("exp", "nbf", "iat"):
        value = claims.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise BadToken(f"its {name} is no number")


def _checked(settings: Jwt) -> Jwt:
    for name in settings.algorithms or ():
        if name not in ALGORITHMS:
            raise SyncError(f"jwt=: the algorithm {name!r} is not taken", hint=f"one of {', '.join(ALGORITHMS)}")
    if isinstance(settings.algorithms, str):
        raise SyncError("jwt=: algorithms is a text", hint='a list, as ["RS256"]')
    for what, value in (("issuer", settings.issuer), ("audience", settings.audience)):
        texts = [value] if isinstance(value, str) else list(value or ())
        if value is not None and (not texts or not all(isinstance(text, str) and text for text in texts)):
            raise SyncError(f"jwt=: {what} is no text", hint="a text, or a list of texts")
    leeway = settings.leeway_s
    if isinstance(leeway, bool) or not isinstance(leeway, int | float) or not 0 <= leeway <= 3_600:
        raise SyncError("jwt=: leeway_s is no number of seconds", hint="from 0 to 3600; 60 if it is left out")
    return settings


# Where keys come from


def _source(given: Any, folder: Path, clock: Callable[[], float]) -> Source:
    if isinstance(given, Mapping):
        return Fixed(_of_jwks(given, "jwt="))
    if isinstance(given, bytes):
        return Fixed(_of_pem(given, "jwt=") if b"-----BEGIN" in given else [_of_secret(given, "jwt=")])
    if isinstance(given, Path):
        return File(folder / given.expanduser())
    if not isinstance(given, str) or not given:
        raise SyncError(f"jwt=: keys has a {type(given).__name__}", hint="a path, a URL, PEM or a secret")
    if given.lower().startswith(("https://", "http://")):
        return Url(given, clock)
    if "-----BEGIN" in given:
        return Fixed(_of_pem(given.encode(), "jwt="))
    path = folder / Path(given).expanduser()
    if len(given) < 4_096 and "\x00" not in given and path.is_file():
        return File(path)
    # A path that was mistyped must not become a secret that anybody could guess.
    if any(mark in given for mark in "/\\") or given.lower().endswith(_FILE_ENDS):
        raise SyncError(
            "jwt=: keys names a file that is not there",
            hint="if it is a secret, give it as bytes, or the path of a file that has it",
        )
    return Fixed([_of_secret(given.encode(), "jwt=")])


class Fixed:
    """Keys that were given."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self._keys = keys

    def known(self) -> Sequence[Key]:
        return self._keys

    def is_due(self, *, is_wanted: bool) -> bool:
        return False

    def renew(self) -> None:
        return


class File(Fixed):
    """The keys in a file, read again when it is another."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._state = self._looked()
        super().__init__(self._read())

    def known(self) -> Sequence[Key]:
        with self._lock:
            try:
                state = self._looked()
                if state != self._state:
                    self._keys, self._state = self._read(), state
            except SyncError as error:
                log.warning("the keys of tokens stay as they were: %s", error.message)
        return self._keys

    def _looked(self) -> tuple[int, int, int]:
        try:
            return state_of(self._path)
        except OSError as error:
            raise SyncError(f"jwt=: the file of keys {self._path} cannot be read: {error}") from error

    def _read(self) -> list[Key]:
        where = f"the file {self._path}"
        try:
            held = self._path.read_bytes()
        except OSError as error:
            raise SyncError(f"jwt=: the file of keys {self._path} cannot be read: {error}") from error
        if b"-----BEGIN" in held:
            return _of_pem(held, where)
        if held.lstrip()[:1] == b"{":
            return _of_jwks(_json(held, where), where)
        # An editor ends a line; random bytes may end with anything.
        text = held.strip()
        is_text = text.isascii() and text.decode().isprintable()
        return [_of_secret(text if is_text else held, where)]


class Url(Fixed):
    """The keys behind a URL."""

    def __init__(self, url: str, clock: Callable[[], float]) -> None:
        parts = urlsplit(url)
        if not parts.hostname or (parts.scheme != "https" and not is_loopback(parts.hostname)):
            raise SyncError(
                f"jwt=: the URL of keys is {parts.scheme}://{parts.hostname or ''}", hint="https, but on this machine"
            )
        if parts.username is not None or parts.password is not None:
            raise SyncError("jwt=: the URL of keys has a password in it", hint="a JWKS is public")
        self._url, self._clock = url, clock
        self._lock = threading.Lock()
        self._asked = self._fetched = clock()
        super().__init__(self._fetch())

    def is_due(self, *, is_wanted: bool) -> bool:
        now = self._clock()
        return (is_wanted or now - self._fetched > FRESH_S) and now - self._asked > RENEW_S

    def renew(self) -> None:
        with self._lock:
            # Whoever came while they were fetched has waited for them.
            if self._clock() - self._asked <= RENEW_S:
                return
            try:
                self._keys = self._fetch()
                self._fetched = self._clock()
            except SyncError as error:
                log.warning("the keys of tokens stay as they were: %s", error.message)
            finally:
                self._asked = self._clock()

    def _fetch(self) -> list[Key]:
        import httpx2

        held = b""
        until = time.monotonic() + FETCH_S
        try:
            with httpx2.stream("GET", self._url, timeout=FETCH_S, follow_redirects=False) as response:
                if response.status_code != 200:
                    raise SyncError(f"jwt=: {self._url} answered {response.status_code}", hint="the URL of a JWKS")
                for part in response.iter_bytes():
                    held += part
                    if len(held) > JWKS_BYTES_MAX or time.monotonic() > until:
                        raise SyncError(f"jwt=: {self._url} sent too much, or too slowly", hint="the URL of a JWKS")
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise SyncError(
                f"jwt=: the keys at {self._url} cannot be fetched: {type(error).__name__}", hint="the URL of a JWKS"
            ) from error
        return _of_jwks(_json(held, self._url), self._url, is_public=True)


# What keys are


def _json(held: bytes, where: str) -> Mapping[str, Any]:
    try:
        told = json.loads(held)
    except (ValueError, RecursionError) as error:
        raise SyncError(f"jwt=: {where} is no JSON", hint="a JWKS: RFC 7517") from error
    if not isinstance(told, dict):
        raise SyncError(f"jwt=: {where} is no JSON object", hint="a JWKS: RFC 7517")
    return told


def _of_jwks(told: Mapping[str, Any], where: str, *, is_public: bool = False) -> list[Key]:
    """The keys of a set, or the one key that it is; those that cannot be used are left out with a warning."""
    listed = told.get("keys", [told] if "kty" in told else None)
    if not isinstance(listed, list):
        raise SyncError(f"jwt=: {where} has no `keys`", hint="a JWKS: RFC 7517")
    keys = []
    for number, jwk in enumerate(listed, 1):
        try:
            keys.append(_of_jwk(jwk, is_public=is_public))
        except Exception as error:
            # Words of others may show the key.
            words = error.message if isinstance(error, SyncError) else type(error).__name__
            log.warning("key %d of %s is left out: %s", number, where, words)
    return keys


def _of_jwk(jwk: Any, *, is_public: bool) -> Key:
    from jwt import PyJWK

    if not isinstance(jwk, dict):
        raise SyncError("it is no object")
    kind, key_id, use, operations = jwk.get("kty"), jwk.get("kid"), jwk.get("use"), jwk.get("key_ops")
    if use not in (None, "sig") or (isinstance(operations, list) and "verify" not in operations):
        raise SyncError("it is not for signatures")
    if kind == "oct":
        if is_public:
            raise SyncError("a secret that can be fetched is none")
        secret = jwk["k"]
        made = _of_secret(base64.urlsafe_b64decode(secret + "=" * (-len(secret) % 4)), "it")
    elif kind in _PUBLIC:
        # Of a private key, its public half.
        public = {"kty": kind, **{name: jwk[name] for name in _PUBLIC[kind]}}
        made = _of_key(PyJWK(public).key)
    else:
        raise SyncError("it is of a kind that is not known")
    algorithms = made.algorithms & {jwk["alg"]} if jwk.get("alg") is not None else made.algorithms
    if not algorithms:
        raise SyncError("its algorithm does not fit its kind, or the length of its secret")
    return Key(key_id if isinstance(key_id, str) else None, algorithms, made.key)


def _of_key(key: Any) -> Key:
    """A public key of `cryptography`, with what it is for."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < RSA_BITS_MIN:
            raise SyncError(f"an RSA key of {key.key_size} bits is too short", hint=f"{RSA_BITS_MIN} bits or more")
        return Key(None, frozenset(_RSA), key)
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return Key(None, frozenset({_CURVES[key.curve.name]}), key)
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return Key(None, frozenset({"EdDSA"}), key)
    raise SyncError("a key is of a kind that signs no tokens", hint="RSA, P-256, P-384, P-521, Ed25519 or Ed448")


def _of_pem(held: bytes, where: str) -> list[Key]:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if b"PRIVATE KEY-----" in held:
        raise SyncError(
            f"jwt=: {where} has a private key, with which tokens are made",
            hint="give the public one: openssl pkey -in private.pem -pubout",
        )
    keys = []
    for block in held.split(b"-----BEGIN ")[1:]:
        pem = b"-----BEGIN " + block
        try:
            is_certificate = block.startswith(b"CERTIFICATE-----")
            key = x509.load_pem_x509_certificate(pem).public_key() if is_certificate else load_pem_public_key(pem)
        except (ValueError, TypeError) as error:
            raise SyncError(f"jwt=: {where} has PEM that cannot be read", hint="public keys or certificates") from error
        keys.append(_of_key(key))
    return keys


def _of_secret(secret: bytes, where: str) -> Key:
    if len(secret) < SECRET_BYTES_MIN:
        raise SyncError(
            f"jwt=: the secret of {where} has {len(secret)} bytes, and should have {SECRET_BYTES_MIN} or more",
            hint=_MAKE_ONE,
        )
    fit: Iterable[str] = (name for name, least in _SECRETS.items() if len(secret) >= least)
    return Key(None, frozenset(fit), secret)
