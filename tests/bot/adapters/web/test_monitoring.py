"""What a monitoring system may ask the page's server, and who else may not."""

from collections.abc import AsyncIterator

import httpx
import pytest

from bot.metrics import Metrics
from tests.bot.adapters.web.conftest import adapter_for, fresh_page_library
from tests.bot.adapters.web.rehearsal import RehearsalChat


@pytest.fixture
def monitor() -> Metrics:
    return Metrics()


@pytest.fixture
async def visitor(monitor: Metrics) -> AsyncIterator[httpx.AsyncClient]:
    with fresh_page_library():
        app = adapter_for(RehearsalChat(), monitor=monitor).app
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8765") as client:
            yield client


async def test_metrics_are_told_without_opening_the_page(visitor: httpx.AsyncClient, monitor: Metrics) -> None:
    monitor.accepted("web")
    answer = await visitor.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert 'commedia_messages_accepted_total{platform="web"} 1.0' in answer.text


async def test_health_is_told_as_json(visitor: httpx.AsyncClient) -> None:
    answer = await visitor.get("/health")
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")


@pytest.mark.parametrize("path", ["/metrics", "/health"])
async def test_strangers_are_kept_out(visitor: httpx.AsyncClient, path: str) -> None:
    for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        assert (await visitor.get(path, headers=headers)).status_code == 403


@pytest.mark.parametrize("path", ["/metrics", "/health"])
async def test_without_a_monitor_there_is_nothing(path: str) -> None:
    with fresh_page_library():
        transport = httpx.ASGITransport(adapter_for(RehearsalChat()).app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            assert (await client.get(path)).status_code == 404
