"""Requests over a wire that fails: what is tried again, what is said, and where the token goes."""

from __future__ import annotations

import gzip
import io
import json
import logging
import threading
import zlib

import pytest
from faulty import GONE, HTML, Reply, as_json, service, zipped

from syncframe.backends.datasync import DatasyncBackend
from syncframe.backends.datasync.answers import CHUNK_BYTES, Answer
from syncframe.backends.datasync.transport import Ask, Transport
from syncframe.errors import AccessError, BackendError, SyncError, TransientError

OK = as_json({"fine": True})
GET = Ask("GET", "/tables/todo", "$top=1")
WRITE = Ask("POST", "/tables/todo", content=b"{}", may_repeat=False)
NOW = "Tue, 24 Nov 2026 10:00:00 GMT"


class Waits(list):
    """How long was slept; nobody sleeps."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


@pytest.fixture
def waits():
    return Waits()


def transport(url, waits, **options):
    return Transport(url, sleep=waits, random=lambda: 1.0, **{"timeout_s": 30.0, **options})


def asked(url, waits, ask=GET, **options):
    made = transport(url, waits, **options)
    try:
        return made.request(ask)
    finally:
        made.close()


# What is tried again


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_get_is_tried_again_when_the_service_may_do_better_later(waits, status):
    with service(Reply(status, b"busy"), OK) as there:
        answer = asked(there.url, waits)

    assert (answer.json(), answer.requests, waits) == ({"fine": True}, 2, [0.1])


def test_waits_double_up_to_a_bound_and_so_do_not_the_tries(waits):
    with service(Reply(503, b"busy")) as there, pytest.raises(TransientError, match="busy") as caught:
        asked(there.url, waits)

    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6]
    assert (caught.value.status, caught.value.was_sent) == (503, True)


def test_a_500_is_tried_three_times_for_it_is_most_often_the_service_s_only_answer(waits):
    with service(as_json({"error": "no such column: x"}, 500)) as there, pytest.raises(TransientError, match="no such"):
        asked(there.url, waits)

    assert len(there.asked) == 3


@pytest.mark.parametrize("status", [400, 404, 405, 409, 410, 412, 413, 422, 501])
def test_what_will_not_change_is_not_tried_again(waits, status):
    with service(as_json({"error": "no"}, status)) as there:
        if status == 501:
            with pytest.raises(BackendError):
                asked(there.url, waits)
        else:
            assert asked(there.url, waits).status == status

    assert (len(there.asked), waits) == (1, [])


def test_retry_after_in_seconds_is_obeyed(waits):
    with service(Reply(429, b"", {"Retry-After": "7"}), OK) as there:
        asked(there.url, waits)

    assert waits == [7.0]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "Tue, 24 Nov 2026 10:00:05 GMT", "date": NOW}, 5.0),
        ({"retry-after": "Tue, 24 Nov 2026 09:00:00 GMT", "date": NOW}, 0.0),
        ({"retry-after": "Tue, 24 Nov 1998 10:00:05 GMT"}, 0.0),
        ({"retry-after": "12", "date": NOW}, 12.0),
        ({"retry-after": "soon", "date": NOW}, None),
        ({"retry-after": "-1"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_by_the_service_s_clock(headers, seconds):
    assert Answer(503, headers, b"", "GET http://there", str).retry_after_s() == seconds


def test_retry_after_beyond_the_deadline_ends_at_once_and_says_when(waits):
    with (
        service(Reply(429, b"slow down", {"Retry-After": "3600"})) as there,
        pytest.raises(TransientError, match="slow down") as caught,
    ):
        asked(there.url, waits)

    assert (caught.value.retry_after_s, waits, len(there.asked)) == (3600.0, [], 1)


def test_a_deadline_bounds_what_is_waited_in_all(waits):
    with service(Reply(503, b"", {"Retry-After": "4"})) as there, pytest.raises(TransientError):
        asked(there.url, waits, timeout_s=10.0)

    assert waits == [4.0, 4.0]


def test_nothing_listens_there(waits):
    with service(OK) as there:
        url = there.url

    with pytest.raises(TransientError, match=r"no connection.*refused") as caught:
        asked(url, waits, WRITE)

    assert caught.value.was_sent is False
    assert len(waits) == 5  # a write too may be repeated that certainly was not sent


def test_a_name_that_nobody_knows(waits):
    with pytest.raises(TransientError, match="no connection") as caught:
        asked("http://nowhere.invalid", waits)

    assert caught.value.was_sent is False


def test_a_connection_that_is_cut_is_made_anew_for_a_get(waits):
    with service(GONE, OK) as there:
        answer = asked(there.url, waits)

    assert answer.json() == {"fine": True}


def test_an_answer_that_is_cut_in_its_body_is_asked_for_again(waits):
    long = as_json(["x" * 1000])

    with service(Reply(200, long.body, long.headers, cut_after=100), long) as there:
        answer = asked(there.url, waits)

    assert (answer.json(), answer.requests) == (["x" * 1000], 2)


def test_a_zipped_answer_that_is_cut_is_asked_for_again(waits):
    long = zipped(as_json(["x" * 1000]))

    with service(Reply(200, long.body, long.headers, cut_after=20), long) as there:
        answer = asked(there.url, waits)

    assert (answer.json(), answer.received > len(long.body)) == (["x" * 1000], False)


def test_a_write_whose_answer_was_lost_is_not_sent_again(waits):
    with service(GONE, OK) as there, pytest.raises(TransientError, match="cut") as caught:
        asked(there.url, waits, WRITE)

    assert (len(there.asked), waits, caught.value.was_sent) == (1, [], True)


@pytest.mark.parametrize(("status", "times"), [(429, 2), (503, 2), (408, 1), (500, 1), (502, 1), (504, 1)])
def test_a_write_is_repeated_only_if_the_service_did_not_take_it_up(waits, status, times):
    with service(Reply(status, b""), OK) as there:
        if times == 2:
            assert asked(there.url, waits, WRITE).ok
        else:
            with pytest.raises(TransientError):
                asked(there.url, waits, WRITE)

    assert len(there.asked) == times


def test_that_the_last_try_did_not_get_through_says_nothing_of_those_before(waits):
    with service(Reply(503, b"")) as there:
        made = transport(there.url, waits)
        patience = made.patience()
        patience.wait(TransientError("lost", was_sent=True))
        for _ in range(4):
            patience.wait(TransientError("refused", was_sent=False))
        with pytest.raises(TransientError) as caught:
            patience.wait(TransientError("refused", was_sent=False))

    assert caught.value.was_sent is True


def test_a_service_that_does_not_answer_is_a_timeout(waits):
    held = threading.Event()

    def slow(_):
        held.wait(5)
        return OK

    try:
        with service(slow) as there:
            with pytest.raises(TransientError, match="too long") as caught:
                asked(there.url, waits, WRITE, timeout_s=0.2)
            held.set()
    finally:
        held.set()

    assert caught.value.was_sent is True


def test_a_body_that_trickles_ends_although_something_always_comes(waits):
    clock = iter(range(0, 10**9, 100))

    with (
        service(lambda _: Reply(200, iter([b"[1"] + [b" "] * 50), OK.headers)) as there,
        pytest.raises(TransientError, match="did not end"),
    ):
        asked(there.url, waits, clock=lambda: next(clock))


# What is said


def test_html_instead_of_json_is_said_with_what_was_found(waits):
    with service(HTML) as there:
        answer = asked(there.url, waits)

    with pytest.raises(BackendError, match=r"text/html instead of JSON.*Sign in") as caught:
        answer.json()
    assert "login" in caught.value.hint


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(200, b'{"a": ', {"Content-Type": "application/json"}), "JSON that cannot be read"),
        (Reply(200, b'{"a": NaN}', {"Content-Type": "application/json"}), "JSON that cannot be read"),
        (Reply(200, b"[" * 100_000, {"Content-Type": "application/json"}), "JSON that cannot be read"),
        (Reply(200, b"", {"Content-Type": "application/json"}), "an empty body"),
        (Reply(200, b"\xff\xfe", {"Content-Type": "application/json"}), "JSON that cannot be read"),
        (Reply(200, b"[]", {"Content-Type": "text/plain"}), "text/plain instead of JSON"),
    ],
    ids=["cut", "NaN", "deep", "empty", "no UTF-8", "no JSON"],
)
def test_what_is_no_json_is_named(waits, reply, words):
    with service(reply) as there, pytest.raises(BackendError, match=words):
        asked(there.url, waits).json()


def test_words_are_the_first_of_a_long_text_in_one_line(waits):
    with (
        service(Reply(200, b"<p>\n\n" + b"x" * 5000, {"Content-Type": "text/html"})) as there,
        pytest.raises(BackendError) as caught,
    ):
        asked(there.url, waits).json()

    assert "<p> xxx" in caught.value.message
    assert len(caught.value.message) < 400


def errors():
    ours = {"kind": "QueryError", "error": "no such column", "hint": "look"}
    yield "ours", 400, ours, "QueryError", "no such column"
    yield "ours, lost", 410, {"kind": "CheckpointLost", "error": "gone"}, "CheckpointLost", "gone"
    yield "ours, a code", 400, {"kind": "BackendError", "error": "taken", "code": "unique"}, "BackendError", "taken"
    yield "a kind that is none", 400, {"kind": "KeyboardInterrupt", "error": "x"}, "BackendError", "x"
    yield "v2", 400, {"error": "The item does not exist"}, "BackendError", "does not exist"
    yield "v3", 400, {"title": "One or more errors", "errors": {"Title": ["too long"]}}, "BackendError", "too long"
    yield "v3, a list", 400, [{"memberNames": ["Title"], "errorMessage": "is short"}], "BackendError", "is short"
    yield "a text", 400, "nope", "BackendError", "nope"


@pytest.mark.parametrize(("status", "body", "kind", "words"), [e[1:] for e in errors()], ids=[e[0] for e in errors()])
def test_what_a_service_says_of_an_error_becomes_one_of_the_family(waits, status, body, kind, words):
    with service(as_json(body, status)) as there:
        error = asked(there.url, waits).error()

    assert type(error).__name__ == kind
    assert words in error.message
    assert getattr(error, "status", status) == status


def test_a_gzip_bomb_is_not_unpacked(waits):
    packer = zlib.compressobj(9, wbits=31)
    zeros = packer.compress(bytes(50 << 20)) + packer.flush()
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}

    with service(Reply(200, zeros, headers)) as there, pytest.raises(BackendError, match="more than 1,000,000 bytes"):
        asked(there.url, waits, body_bytes_max=1_000_000)

    assert len(zeros) < 1_000_000
    assert len(there.asked) == 1


@pytest.mark.parametrize("coding", ["gzip, gzip", "br", "deflate"])
def test_a_coding_that_was_not_asked_for_is_refused(waits, coding):
    body = gzip.compress(gzip.compress(b"{}"))

    with (
        service(Reply(200, body, {"Content-Encoding": coding})) as there,
        pytest.raises(BackendError, match="not asked for"),
    ):
        asked(there.url, waits)

    assert there.asked[0].headers["Accept-Encoding"] == "gzip"


def test_a_zipped_answer_of_several_members_is_read_to_its_end(waits):
    body = gzip.compress(b"[" + b"1," * CHUNK_BYTES) + gzip.compress(b"2]")

    with service(Reply(200, body, {"Content-Type": "application/json", "Content-Encoding": "gzip"})) as there:
        answer = asked(there.url, waits)

    assert (len(answer.json()), answer.received) == (CHUNK_BYTES + 1, len(body))


def test_an_endless_body_ends(waits):
    def endless():
        while True:
            yield b" " * 65536

    with (
        service(lambda _: Reply(200, endless(), OK.headers)) as there,
        pytest.raises(BackendError, match="more than 1,000,000 bytes"),
    ):
        asked(there.url, waits, body_bytes_max=1_000_000)


# Redirects


def test_a_redirect_within_the_same_origin_is_followed_with_the_token(waits):
    with service(Reply(302, b"", {"Location": "/elsewhere?a=1"}), OK) as there:
        answer = asked(f"{there.url}/base", waits, token="secret-token")

    assert (answer.json(), answer.requests) == ({"fine": True}, 2)
    assert [request.target for request in there.asked] == ["/base/tables/todo?$top=1", "/elsewhere?a=1"]
    assert there.asked[1].headers["Authorization"] == "Bearer secret-token"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_host_is_not_followed_and_the_token_stays(waits, status):
    with (
        service(OK) as other,
        service(Reply(status, b"", {"Location": f"{other.url}/login?secret=1"})) as there,
        pytest.raises(BackendError, match="redirected to another place") as caught,
    ):
        asked(there.url, waits, token="secret-token", headers={"X-Key": "secret-key"})

    assert other.asked == []
    assert other.url in caught.value.message
    assert "secret" not in str(caught.value)


def test_a_redirect_to_another_scheme_is_not_followed(waits):
    with (
        service(lambda request: Reply(308, b"", {"Location": "https://127.0.0.1/"})) as there,
        pytest.raises(BackendError, match=r"another place, https://127\.0\.0\.1;"),
    ):
        asked(there.url, waits)


def test_a_write_follows_only_the_redirects_that_keep_it_a_write(waits):
    with service(Reply(308, b"", {"Location": "/there"}), OK) as there:
        assert asked(there.url, waits, WRITE).ok
    assert [(request.method, request.body) for request in there.asked] == [("POST", b"{}")] * 2

    with service(Reply(302, b"", {"Location": "/there"}), OK) as there, pytest.raises(BackendError, match="only a GET"):
        asked(there.url, waits, WRITE)
    assert len(there.asked) == 1


def test_redirects_in_a_circle_end(waits):
    with (
        service(Reply(307, b"", {"Location": "/tables/todo"})) as there,
        pytest.raises(BackendError, match="more than 5 times"),
    ):
        asked(there.url, waits)

    assert len(there.asked) == 6


# Tokens


def needs(token):
    def answer(request):
        return OK if request.headers.get("X-ZUMO-AUTH") == token else as_json({"error": "who?"}, 401)

    return answer


def test_a_token_goes_in_both_headers(waits):
    with service(OK) as there:
        asked(there.url, waits, token="t1")

    sent = there.asked[0].headers
    assert (sent["X-ZUMO-AUTH"], sent["Authorization"]) == ("t1", "Bearer t1")


def test_a_token_that_is_a_text_is_not_asked_for_again(waits):
    with service(needs("right")) as there, pytest.raises(AccessError, match="who") as caught:
        asked(there.url, waits, token="wrong")

    assert (caught.value.status, len(there.asked), waits) == (401, 1, [])


def test_a_callable_is_asked_once_and_again_once_after_a_401(waits):
    tokens = iter(["old", "new", "never"])

    with service(needs("new")) as there:
        made = transport(there.url, waits, token=lambda: next(tokens))
        first, second = made.request(WRITE), made.request(WRITE)
        made.close()

    assert first.ok and second.ok
    assert [request.headers["X-ZUMO-AUTH"] for request in there.asked] == ["old", "new", "new"]


def test_a_callable_whose_second_token_is_refused_too_is_not_asked_a_third_time(waits):
    given = []

    def token():
        given.append(f"token {len(given)}")
        return given[-1]

    with service(needs("right")) as there, pytest.raises(AccessError):
        asked(there.url, waits, token=token)

    assert len(given) == len(there.asked) == 2


def test_many_threads_that_meet_a_401_ask_for_one_token(waits):
    given, together = [], threading.Barrier(8)

    def token():
        given.append(len(given))
        return ["old", "new"][len(given) - 1]

    def answer(request):
        if request.headers["X-ZUMO-AUTH"] == "old":
            together.wait(10)
            return as_json({}, 401)
        return OK

    with service(answer) as there:
        made = transport(there.url, waits, token=token)
        threads = [threading.Thread(target=made.request, args=(GET,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        made.close()

    assert len(given) == 2
    assert len(there.asked) == 16


def test_403_is_final_even_for_a_callable(waits):
    with service(as_json({"error": "not yours"}, 403)) as there, pytest.raises(AccessError, match="not yours"):
        asked(there.url, waits, token=lambda: "t")

    assert len(there.asked) == 1


def test_a_callable_that_fails_is_an_access_error_without_its_words(waits):
    def token():
        raise OSError("the password is hunter2")

    with service(OK) as there, pytest.raises(AccessError, match="OSError") as caught:
        asked(there.url, waits, token=token)

    assert "hunter2" not in str(caught.value)
    assert there.asked == []


@pytest.mark.parametrize("token", ["two\nlines", "snow\u2603", 7, lambda: 7], ids=["line", "letter", "number", "call"])
def test_a_token_that_is_none_is_refused_without_being_shown(waits, token):
    with pytest.raises(SyncError) as caught, service(OK) as there:
        asked(there.url, waits, token=token)

    assert "two" not in str(caught.value) and "\u2603" not in str(caught.value)


def test_a_token_as_a_file_has_it_is_taken_without_its_line_end(waits):
    with service(needs("right")) as there:
        assert asked(there.url, waits, token="right\n").ok


# Secrets and addresses


def test_secrets_are_in_no_error_no_log_and_no_repr(waits, caplog):
    secrets = ["token-5e1f", "header-77aa", "user-c0de:pass-9b9b", "pass-9b9b", "dXNlci1jMGRlOnBhc3MtOWI5Yg=="]
    caplog.set_level(logging.DEBUG)
    shown = io.StringIO()

    def echo(request):
        return Reply(400, json.dumps({"error": f"you sent {request.headers}"}).encode(), OK.headers)

    answers = [echo, HTML, Reply(302, b"", {"Location": "https://x/"}), as_json({"error": "no"}, 401), GONE, echo]
    for options in ({"token": "token-5e1f"}, {"token": lambda: "token-5e1f"}, {}):
        with service(*answers) as there:
            url = there.url.replace("http://", "http://user-c0de:pass-9b9b@")
            made = DatasyncBackend(url, headers={"X-Key": "header-77aa"}, protocol="v2", sleep=waits, **options)
            for _ in range(6):
                try:
                    made.schema("t")
                except SyncError as error:
                    print(error, repr(error), error.__dict__, file=shown)
            print(made, repr(made._transport), made.identity(), file=shown)
            made.close()

    for words in ("you sent", "Sign in", "redirected", ": no\nhint: connect", "***"):
        assert words in shown.getvalue()
    for secret in secrets:
        assert secret not in shown.getvalue()
        assert secret not in caplog.text
    assert "/tables/t" in caplog.text
    assert "HTTP Request" not in caplog.text  # the client's own line, which has the whole address
    assert any("dXNlci1jMGRlOnBhc3MtOWI5Yg==" in str(request.headers) for request in there.asked)


@pytest.mark.parametrize(
    "url",
    ["ftp://host", "https://", "http://host:port", "http://host/?code=secret", "http://host/#x", "http://[::1"],
)
def test_a_url_that_is_none_is_refused_at_once(url):
    with pytest.raises(SyncError) as caught:
        DatasyncBackend(url)

    assert "secret" not in str(caught.value)


def test_a_base_keeps_its_path(waits):
    with service(OK) as there:
        asked(f"{there.url}/some/path/", waits)

    assert there.asked[0].path == "/some/path/tables/todo"


@pytest.mark.parametrize("name", ["X Key", "X-Key:", ""])
def test_a_header_s_name_is_checked(name):
    with pytest.raises(SyncError, match="no header's name"):
        DatasyncBackend("http://host", headers={name: "x"})


def test_a_closed_transport_opens_again(waits):
    with service(OK) as there:
        made = transport(there.url, waits)
        made.request(GET)
        made.close()
        assert made.request(GET).ok
        made.close()
