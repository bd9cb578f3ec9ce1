"""Back ends: where rows are pulled from and operations pushed to.

`open(url)` gives the back end that a URL names; `base` says what a back end is made of.
"""

from __future__ import annotations

from .base import (
    Backend,
    Checkpoint,
    Operations,
    Outcomes,
    Page,
    Promises,
)
from .urls import open

__all__ = ["Backend", "Checkpoint", "Operations", "Outcomes", "Page", "Promises", "open"]
