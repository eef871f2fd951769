"""Where a reply goes on that has begun: what stands there already is not said again.

Owns the seam between the two texts. Knows neither tokens nor where text comes from.
"""


class Joining:
    """Text that follows `start` goes in as it comes, and comes out so that both can be joined.

    Models read `start` without the white space at its end, and say that once more. One that `may_repeat` may also begin
    with the whole of `start` again.
    """

    def __init__(self, start: str, *, may_repeat: bool = False) -> None:
        self._repeated = start.strip() if may_repeat else ""
        self._held = ""
        self._space = start[len(start.rstrip()) :]

    def add(self, text: str) -> str:
        """Take more text, and give what is new of it. What is held back at the end is nothing new."""
        if self._repeated:
            text = self._without_repeated(text)
        while self._space and text:
            self._space, text = (self._space[1:], text[1:]) if text[0] == self._space[0] else ("", text)
        return text

    def _without_repeated(self, text: str) -> str:
        self._held += text
        said = self._held.lstrip()
        if len(said) < len(self._repeated) and self._repeated.startswith(said):
            return ""
        text = said.removeprefix(self._repeated) if said.startswith(self._repeated) else self._held
        self._repeated = self._held = ""
        return text
