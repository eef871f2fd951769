"""Stop strings in a text that grows: nothing of one is ever shown, and the text ends where one begins.

Owns what is held back. Knows neither tokens nor tensors.
"""

from collections.abc import Sequence


class StopStrings:
    """Text goes in as it comes, and comes out as soon as it cannot be the beginning of a stop string.

    A stop string may have begun in `before`, which has been shown already.
    """

    def __init__(self, stop: Sequence[str] = (), *, before: str = "") -> None:
        self._stop = tuple(text for text in stop if text)
        self._held = before
        self._held = before[len(before) - self._num_suspect() :]
        self._num_shown = len(self._held)
        self.is_stopped = False

    def add(self, text: str) -> str:
        """Take more text, and give what is safe to show now; sets `is_stopped` at a stop string."""
        if self.is_stopped:
            return ""
        self._held += text
        found = [index for stop in self._stop if (index := self._held.find(stop)) >= 0]
        if found:
            self.is_stopped = True
            return self._release(min(found), drop_rest=True)
        return self._release(len(self._held) - self._num_suspect())

    def finish(self) -> str:
        """What was held back for a stop string that did not come."""
        return self._release(len(self._held))

    def _num_suspect(self) -> int:
        """Length of the longest end of the held text that could become a stop string."""
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        for size in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-size:]) for stop in self._stop):
                return size
        return 0

    def _release(self, size: int, *, drop_rest: bool = False) -> str:
        text, rest = self._held[self._num_shown : size], self._held[size:]
        self._num_shown = max(self._num_shown - size, 0)
        self._held = "" if drop_rest else rest
        return text
