"""The bounds of the server: on what a request may hold, how long it may take and how many run at once."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Limits:
    """What one server takes.

    Parameters
    ----------
    body_bytes_max
        A body of the extension (a batch to push, keys to look up).
    row_bytes_max
        A body of the plain protocol: one row.
    bodies_bytes_max
        All bodies that are held at one time.
    page_rows
        Rows of a list whose request does not say; None: 50 in v2, 100 in v3.
    v2_top_max, v3_top_max
        The largest `$top`.  In v3 a page has no more than `page_rows` all the same, and the rest is behind its link.
    v3_page_max
        The longest page of v3 to a client that asks for long ones: `Prefer: maxpagesize=n`.
    pull_rows_max
        Rows of a page of the extension; a larger wish gets pages of so many.
    push_rows_max
        Operations of one request.
    query_bytes_max, parameters_max
        The query string, and how many parameters it may have.
    timeout_s
        For a plain request to be answered, and for a body to go on coming.
    stream_s
        For the next piece of a stream to be made.
    beat_s
        After so long without one, a stream gets an empty piece, so that no one takes it for dead.
    stall_s
        For the client to take what it is sent.
    workers, waiting_max
        Requests that are worked on at one time, and with those that wait for it.
    """

    body_bytes_max: int = 64 * MIB
    row_bytes_max: int = 1 * MIB
    bodies_bytes_max: int = 512 * MIB
    page_rows: int | None = None
    v2_top_max: int = 1_000
    v3_top_max: int = 128_000
    v3_page_max: int = 10_000
    pull_rows_max: int = 50_000
    push_rows_max: int = 100_000
    query_bytes_max: int = 48 * 1024
    parameters_max: int = 100
    timeout_s: float = 30.0
    stream_s: float = 600.0
    beat_s: float = 5.0
    stall_s: float = 60.0
    workers: int = 16
    waiting_max: int = 64

    def rows_of_page(self, default: int) -> int:
        return self.page_rows or default


HEAD_BYTES_MAX = 64 * 1024  # a request's first line and its headers
BODY_RATE_MIN = 16 * 1024  # bytes a second, over the whole of a body
RETRY_AFTER_S = 1
