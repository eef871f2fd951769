"""What can be made to go wrong over HTTP: the next requests to a route get another answer, a late one, or none."""

import asyncio
import json
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from aiohttp import web


@dataclass(eq=False)
class Fault:
    """Answer `times` requests that match `method` and `path` (`*` stands for anything) differently.

    With `delay_s` alone they are served, only later. `is_abort` drops the TCP connection.
    """

    method: str
    path: str
    times: int = 1
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    content_type: str = "application/json"
    delay_s: float = 0.0
    is_abort: bool = False
    num_hits: int = 0

    def matches(self, method: str, path: str) -> bool:
        return self.num_hits < self.times and fnmatchcase(method, self.method) and fnmatchcase(path, self.path)

    async def apply(self, request: web.Request) -> web.Response | None:
        """The answer to give instead, or `None` where the request is to be served as usual."""
        self.num_hits += 1
        await asyncio.sleep(self.delay_s)
        if self.is_abort:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=499)
        if self.status is None:
            return None
        text = self.body if isinstance(self.body, str) else json.dumps(self.body or {})
        return web.Response(
            status=self.status, headers=self.headers, body=text.encode(), content_type=self.content_type
        )
