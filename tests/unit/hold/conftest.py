"""What every test of hold needs."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from holdfast.hold import log


@pytest.fixture(autouse=True)
def a_fresh_limit_of_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program's own is shared: earlier tests may have used it up."""
    monkeypatch.setattr(log, "_LIMIT", log.RateLimit(log.BURST, log.PER_SECOND))
