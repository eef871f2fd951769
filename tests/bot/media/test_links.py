"""Pictures behind links: what is looked at, where it may lead, and what people are told."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from bot.errors import MediaError
from bot.media.links import LinkedPictures, is_public_address

PICTURE = b"\x89PNG picture"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "2a00:1450:4001:80b::200e"],
)
def test_public_addresses(address: str) -> None:
    assert is_public_address(address)


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "192.168.1.1", "127.0.0.1", "127.9.9.9"),
        *("100.64.0.1", "100.100.100.200", "169.254.169.254", "168.63.129.16", "192.0.0.192", "192.0.2.1"),
        *("198.18.0.1", "203.0.113.5", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "::ffff:1.1.1.1", "::ffff:127.0.0.1", "::1.1.1.1", "64:ff9b::1.1.1.1", "64:ff9b:1::1"),
        *("fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "ff0e::1"),
        *("2001::1", "2001:db8::1", "2002:101:101::1", "3fff::1", "100::1", "5f00::1"),
        *("localhost", "", "1.1.1", "0x1.1.1.1"),
    ],
)
def test_addresses_that_are_not(address: str) -> None:
    assert not is_public_address(address)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("look: https://a.example/x.png.", ["https://a.example/x.png"]),
        ("(http://a.example/x_(1).JPG)", ["http://a.example/x_(1).JPG"]),
        (
            "[it](https://a.example/x.webp) <https://b.example/y.gif>",
            ["https://a.example/x.webp", "https://b.example/y.gif"],
        ),
        ("https://a.example/x.png?ex=1&is=2#f", ["https://a.example/x.png?ex=1&is=2#f"]),
        ("https://a.example/media/x?format=jpg&name=large", ["https://a.example/media/x?format=jpg&name=large"]),
        ("看https://a.example/x.png，好", ["https://a.example/x.png"]),
        ("https://a.example/x.png https://a.example/x.png", ["https://a.example/x.png"]),
        ("https://a.example:443/x.png", ["https://a.example:443/x.png"]),
        ("https://a.example/page.html https://a.example/", []),
        ("ftp://a.example/x.png file:///etc/x.png //a.example/x.png a.example/x.png", []),
        (f"https://a.example/{'x' * 2000}.png", []),
        ("", []),
    ],
)
def test_which_links_are_looked_at(text: str, expected: list[str]) -> None:
    assert list(LinkedPictures().find(text)) == expected


@pytest.mark.parametrize(
    "host",
    [
        *(
            "127.0.0.1",
            "1.1.1.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "017700000001",
            "0177.0.0.1",
            "1.1.1.1.",
        ),
        *("[::1]", "[::ffff:127.0.0.1]", "127。0。0。1", "１２７.0.0.1", "①②⑦.0.0.1", "0x", "a.0x7f"),
        *("localhost", "localhost.", "router", "a..example", ".example", "", "a.example:22", "a.example:8080"),
        *("user@a.example", "user:pw@a.example", ":pw@a.example", "a.example:99999", "a.example:x", "%31%32%37.0.0.1"),
    ],
)
def test_hosts_that_are_never_asked(host: str) -> None:
    assert LinkedPictures().find(f"http://{host}/x.png") == ()


def test_only_so_many() -> None:
    text = " ".join(f"https://a.example/{number}.png" for number in range(5))
    assert LinkedPictures(max_links=2).find(text) == ("https://a.example/0.png", "https://a.example/1.png")
    assert LinkedPictures(max_links=0).find(text) == ()


def test_only_the_hosts_that_are_allowed() -> None:
    pictures = LinkedPictures(hosts=("Pics.example", ".other.example."), max_links=9)
    allowed = ["https://pics.example/x.png", "https://i.pics.example/x.png", "https://other.example/x.png"]
    refused = ["https://notpics.example/x.png", "https://pics.example.evil.example/x.png", "https://example/x.png"]
    assert list(pictures.find(" ".join([*refused, *allowed]))) == allowed


def test_files_have_names_for_people() -> None:
    files = LinkedPictures().files("https://a.example/my%20cat.png https://b.example/?format=png")
    assert [file.name for file in files] == ["my cat.png", "b.example"]


# --- fetching, from a server on this machine


class Names(AbstractResolver):
    """A name server: everything is here, but for what `elsewhere` says."""

    def __init__(self, elsewhere: dict[str, list[str]]) -> None:
        self.elsewhere = elsewhere
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        addresses = self.elsewhere.get(host, ["127.0.0.1"])
        return [
            ResolveResult(hostname=host, host=found, port=port, family=socket.AF_INET, proto=0, flags=0)
            for found in addresses
        ]

    async def close(self) -> None:
        pass


class Site:
    """A web server, and `LinkedPictures` that take this machine's address for a public one."""

    def __init__(self) -> None:
        self.requests: list[web.BaseRequest] = []
        self.names = Names({})
        self.port = 0
        self.answer: Handler = picture

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request)
        return await self.answer(request)  # type: ignore[arg-type]

    def link(self, path: str = "/x.png", host: str = "pics.example") -> str:
        return f"http://{host}:{self.port}{path}"

    async def fetch(self, link: str | None = None, *, max_bytes: int = 1000, **options) -> bytes:
        options = {"is_public": lambda address: address == "127.0.0.1", "timeout_s": 5.0} | options
        pictures = LinkedPictures(resolver=lambda: self.names, ports=frozenset({self.port}), **options)
        (file,) = pictures.files(link or self.link())
        return await file.read(max_bytes)

    async def refusal(self, link: str | None = None, **options) -> str:
        with pytest.raises(MediaError) as caught:
            await self.fetch(link, **options)
        return str(caught.value)


async def picture(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(body=PICTURE, content_type="image/png")


def redirect(*targets: str) -> Handler:
    left = list(targets)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": left.pop(0)}) if left else await picture(request)

    return answer


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    served = Site()
    runner = web.ServerRunner(web.Server(served.handle), shutdown_timeout=0.1)
    await runner.setup()
    listening = web.TCPSite(runner, "127.0.0.1", 0)
    await listening.start()
    served.port = runner.addresses[0][1]
    yield served
    await runner.cleanup()


async def test_a_picture_comes_back_and_nothing_is_given_away(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    assert await site.fetch() == PICTURE
    (request,) = site.requests
    assert request.headers["Host"] == f"pics.example:{site.port}"
    assert request.headers["User-Agent"].startswith("Commedia")
    assert request.headers["Accept-Encoding"] == "identity"
    assert not {"Cookie", "Authorization", "Referer"} & set(request.headers)


async def test_the_connection_goes_to_the_address_that_was_checked(site: Site) -> None:
    await site.fetch()
    assert site.names.asked == ["pics.example"]


@pytest.mark.parametrize("addresses", [["10.0.0.1"], ["127.0.0.1", "10.0.0.1"], []])
async def test_a_name_of_a_private_address_leads_nowhere(site: Site, addresses: list[str]) -> None:
    site.names.elsewhere = {"pics.example": addresses}
    assert await site.refusal() == "I could not reach the picture behind the link to pics.example. " + (
        "Please send the picture itself."
    )
    assert not site.requests


async def test_this_machine_is_refused_by_the_real_check(site: Site) -> None:
    refusal = await site.refusal(is_public=is_public_address)
    assert "127.0.0.1" not in refusal
    assert not site.requests


async def test_private_and_missing_names_sound_the_same(site: Site) -> None:
    class Nowhere(Names):
        async def resolve(self, host, port=0, family=socket.AF_INET):
            raise socket.gaierror("no such name: 10.1.2.3")

    refusal = await site.refusal(is_public=is_public_address)
    site.names = Nowhere({})
    assert await site.refusal() == refusal


async def test_redirects_are_followed_and_each_is_checked(site: Site) -> None:
    site.answer = redirect("/y.png", site.link("/z", "cdn.example"))
    assert await site.fetch() == PICTURE
    assert [request.path for request in site.requests] == ["/x.png", "/y.png", "/z"]
    site.names.elsewhere = {"inside.example": ["10.0.0.1"]}
    for target in (
        site.link("/secret", "inside.example"),
        f"http://127.0.0.1:{site.port}/secret",
        f"http://[::1]:{site.port}/secret",
        f"http://2130706433:{site.port}/secret",
        f"http://u:p@pics.example:{site.port}/secret",
        "http://pics.example:22/secret",
        "file:///etc/passwd",
        "gopher://pics.example/",
        "http://[broken",
        "",
    ):
        site.answer = redirect(target)
        assert "could not reach" in await site.refusal()
    assert not [request for request in site.requests if request.path == "/secret"]


async def test_redirects_stay_on_the_hosts_that_are_allowed(site: Site) -> None:
    site.answer = redirect(site.link("/secret", "cdn.example"))
    assert "could not reach" in await site.refusal(hosts=("pics.example",))
    assert len(site.requests) == 1


async def test_redirects_end(site: Site) -> None:
    site.answer = redirect(*["/again.png"] * 9)
    assert "round in circles" in await site.refusal()
    assert len(site.requests) == 4


async def test_cookies_are_not_kept(site: Site) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/x.png":
            return web.Response(status=302, headers={"Location": "/y.png", "Set-Cookie": "who=you; Path=/"})
        return await picture(request)

    site.answer = answer
    await site.fetch()
    assert "Cookie" not in site.requests[1].headers


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (web.Response(status=404), "nothing to see"),
        (web.Response(status=206, body=PICTURE, content_type="image/png"), "nothing to see"),
        (web.Response(text="<html>", content_type="text/html"), "leads to no picture"),
        (web.Response(body=PICTURE), "leads to no picture"),
        (
            web.Response(body=b"z", content_type="image/png", headers={"Content-Encoding": "gzip"}),
            "leads to no picture",
        ),
        (web.Response(body=bytes(1001), content_type="image/png"), "larger than"),
    ],
)
async def test_what_is_no_picture_is_refused(site: Site, answer: web.Response, expected: str) -> None:
    async def always(request: web.BaseRequest) -> web.StreamResponse:
        return answer

    site.answer = always
    assert expected in await site.refusal()


async def test_a_body_without_end_is_cut_off(site: Site) -> None:
    num_sent = 0

    async def flood(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal num_sent
        response = web.StreamResponse(headers={"Content-Type": "image/png"})
        await response.prepare(request)
        for _ in range(10_000):
            await response.write(bytes(64 * 1024))
            num_sent += 1
        return response

    site.answer = flood
    assert "larger than" in await site.refusal(max_bytes=100_000)
    assert num_sent < 1000


async def test_whoever_is_slow_is_not_waited_for(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    async def drip(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "image/png"})
        await response.prepare(request)
        await asyncio.sleep(5)
        return response

    site.answer = drip
    with caplog.at_level(logging.INFO):
        assert "could not reach" in await site.refusal(timeout_s=0.1)
    assert "pics.example" not in caplog.text
    assert "TimeoutError" in caplog.text


async def test_slow_servers_hold_up_nobody_else_for_long(site: Site) -> None:
    async def never(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(5)
        return web.Response()

    site.answer = never
    pictures = LinkedPictures(
        resolver=lambda: site.names, ports=frozenset({site.port}), is_public=lambda _: True, timeout_s=0.2, max_links=17
    )
    files = pictures.files(" ".join(site.link(f"/{number}.png") for number in range(17)))
    async with asyncio.timeout(2):
        found = await asyncio.gather(*(file.read(1000) for file in files), return_exceptions=True)
    assert [type(error) for error in found] == [MediaError] * 17
    # Whoever is fetched first may end a moment before the others' time is over, and let one more begin.
    assert 4 <= len(site.requests) <= 8


async def test_the_time_counts_for_all_redirects_together(site: Site) -> None:
    onward = redirect("/y.png", "/z.png")

    async def slowly(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(0.08)
        return await onward(request)  # type: ignore[arg-type]

    site.answer = slowly
    assert "could not reach" in await site.refusal(timeout_s=0.15)


async def test_a_server_that_breaks_off_is_no_accident(site: Site) -> None:
    async def hang_up(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    site.answer = hang_up
    assert "could not reach" in await site.refusal()


def test_the_real_resolver_is_the_systems() -> None:
    assert LinkedPictures()._resolver is aiohttp.ThreadedResolver
