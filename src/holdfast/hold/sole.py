"""What there is one of, whoever holds it."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import NoReturn, SupportsIndex


class Sole:
    """Cannot be copied or pickled: two owners would take each other's bytes."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:  # asked by copy and by pickle
        raise TypeError(
            f"A {type(self).__name__} cannot be copied or pickled: give the object itself to whoever is to "
            "use it; another process opens its own."
        )
