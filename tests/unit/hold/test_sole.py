# SPDX-License-Identifier: Apache-2.0
"""What must have one owner is not copied."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest

from holdfast import Connection, Session, Stream
from holdfast.hold.drivers.blocking import BlockingSession
from holdfast.hold.sole import Sole


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
@pytest.mark.parametrize("kind", [Connection, Stream, Session, BlockingSession])
def test_a_copy_is_refused_in_a_sentence(kind: type[Sole], copied: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match=rf"^A {kind.__name__} cannot be copied or pickled: .* its own\.$"):
        copied(kind.__new__(kind))
