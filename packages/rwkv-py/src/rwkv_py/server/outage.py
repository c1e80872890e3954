"""For how long something has failed."""

from __future__ import annotations

import time

__all__ = ["Outage"]


class Outage:
    """For how long something has failed, such as a disk: as long again is worth waiting."""

    def __init__(self) -> None:
        self._since: float | None = None

    def begins(self) -> bool:
        """Note a failure; tells whether it is the first since all was well."""
        if self._since is not None:
            return False
        self._since = time.monotonic()
        return True

    def ends(self) -> None:
        """Note that all is well."""
        self._since = None

    @property
    def retry_seconds(self) -> float:
        """How long to wait before another try: as long as it has lasted."""
        return 0.0 if self._since is None else time.monotonic() - self._since
