"""What is missing or wrong, and how to mend it: the checks behind `commedia doctor`.

Every check looks at one thing and gives findings; nothing is changed, but that the home folder is made. Those that ask
platforms are in `bot.platform_checks`. Secrets never show up in findings.
"""

import asyncio
import importlib.util
import shutil
import tempfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx

from bot.app import engine_config, required_models
from bot.errors import StoreError
from bot.findings import Finding as Finding
from bot.findings import Level as Level
from bot.personas.library import PersonaLibrary
from bot.platform_checks import TIMEOUT_S, check_discord, check_telegram
from bot.settings import Settings
from bot.store.database import Database, head_revision
from bot.store.incidents import IncidentRecords

_FREE_BYTES_WANTED = 2_000_000_000
_INCIDENT_AGE = timedelta(days=1)
_MAX_INCIDENTS = 20


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Run every check and give the findings as they come."""
    yield check_home(settings)
    yield await check_database(settings)
    for finding in check_personas(settings):
        yield finding
    if settings.engine.backend in ("openai", "vllm"):
        yield await check_server(settings)
    else:
        for finding in await asyncio.to_thread(check_engine, settings):
            yield finding
    async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
        for finding in [*await check_discord(settings, client), *await check_telegram(settings, client)]:
            yield finding
    for finding in await check_incidents(settings):
        yield finding


def check_home(settings: Settings) -> Finding:
    """Whether the home folder can be written and has room."""
    folder = settings.home.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        remedy = "Make the folder writable, or name another one in COMMEDIA_HOME."
        return Finding(Level.PROBLEM, "home folder", f"{folder} cannot be written: {error.strerror}.", remedy)
    free = shutil.disk_usage(folder).free
    text = f"{folder}, {free / 1e9:.1f} GB free."
    if free < _FREE_BYTES_WANTED:
        return Finding(Level.HINT, "home folder", text, "Free some space: weights and pictures are kept there.")
    return Finding(Level.OK, "home folder", text)


async def check_database(settings: Settings) -> Finding:
    """Whether the database can be opened, and is of this version."""
    database = Database(settings.database_path)
    try:
        revision = await database.revision()
    except StoreError as error:
        return Finding(Level.PROBLEM, "database", str(error), "See above; a copy of the file is worth keeping.")
    finally:
        await database.aclose()
    if revision is None:
        return Finding(Level.OK, "database", "none yet; it is made at the first start.")
    if revision != head_revision():
        return Finding(Level.HINT, "database", f"is at revision {revision}.", "`commedia run` upgrades it.")
    return Finding(Level.OK, "database", f"{settings.database_path}, up to date.")


def check_personas(settings: Settings) -> list[Finding]:
    """Whether every persona file can be used."""
    library = PersonaLibrary(settings.persona_folders())
    library.load()
    findings = [Finding(Level.PROBLEM, "persona", str(problem), "Mend the file.") for problem in library.problems]
    personas = library.all()
    if not personas:
        remedy = "`commedia persona new NAME` writes one to start from."
        return [*findings, Finding(Level.PROBLEM, "personas", "there is none.", remedy)]
    wanted = settings.chat.default_persona
    if wanted is not None and wanted not in {persona.id for persona in personas}:
        remedy = f"Set chat.default_persona to one of: {', '.join(persona.id for persona in personas)}."
        findings.append(Finding(Level.PROBLEM, "personas", f"the default persona {wanted} is not there.", remedy))
    return [*findings, Finding(Level.OK, "personas", ", ".join(persona.name for persona in personas) + ".")]


async def check_server(settings: Settings) -> Finding:
    """Whether an engine elsewhere answers, and with which model."""
    from engine.backends import openai, vllm
    from engine.errors import EngineError

    backend = settings.engine.backend
    check = vllm.check if backend == "vllm" else openai.check
    try:
        found = await check(engine_config(settings))
    except EngineError as error:
        remedy = "Check engine.url, engine.api_key and engine.model, and whether the server runs; docs/remote.md."
        return Finding(Level.PROBLEM, "engine", f"{backend}: {error}.", remedy)
    return Finding(Level.OK, "engine", f"{backend}: {found}.")


def check_engine(settings: Settings) -> list[Finding]:
    """Whether weights are in the cache, and which device would be used."""
    if settings.engine.backend == "echo":
        return [Finding(Level.HINT, "engine", "echo: it only repeats what is said.", 'Set engine.backend = "local".')]
    if settings.engine.backend == "ray" and importlib.util.find_spec("ray") is None:
        return [Finding(Level.PROBLEM, "engine", "ray: Ray is not installed.", 'Run pip install "commedia[ray]".')]
    from engine.device import describe_device
    from engine.errors import EngineError
    from engine.models.store import ModelStore

    wanted = required_models(settings)
    findings = [
        Finding(Level.OK, "weights", f"{status.model.name} is in the cache.")
        if status.is_ready
        else Finding(
            Level.HINT, "weights", f"{status.model.name} is not in the cache.", "`commedia models fetch` brings it."
        )
        for status in ModelStore(settings.cache_dir).list()
        if status.model.name in wanted
    ]
    if settings.engine.decoder not in wanted:
        findings.append(_check_decoder(settings))
    try:
        findings.append(Finding(Level.OK, "device", describe_device(settings.engine.device, settings.engine.dtype)))
    except EngineError as error:
        findings.append(Finding(Level.PROBLEM, "device", str(error), 'Set engine.device = "auto".'))
    return findings


def _check_decoder(settings: Settings) -> Finding:
    """Whether a decoder that Commedia does not bring by itself is there."""
    from engine.decoder.checkpoint import is_at_hand
    from engine.errors import EngineError

    name = settings.engine.decoder
    try:
        is_here = is_at_hand(name, settings.cache_dir)
    except EngineError as error:
        return Finding(Level.PROBLEM, "decoder", f"{error}.", "docs/models.md says what engine.decoder may name.")
    if is_here:
        return Finding(Level.OK, "decoder", f"{name} is on this machine.")
    return Finding(Level.HINT, "decoder", f"{name} is not here yet.", "The next start downloads it from Hugging Face.")


async def check_incidents(settings: Settings) -> list[Finding]:
    """What went wrong on the platforms in the last day, beside single replies."""
    database = Database(settings.database_path)
    try:
        if await database.revision() != head_revision():
            return []
        found = await IncidentRecords(database).since(datetime.now(UTC) - _INCIDENT_AGE)
    except StoreError:
        return []  # `check_database` says why
    finally:
        await database.aclose()
    if not found:
        return [Finding(Level.OK, "incidents", "none in the last 24 hours.")]
    findings = [
        Finding(
            Level.HINT,
            incident.platform,
            f"{incident.kind}: {incident.count} time{'s' if incident.count > 1 else ''}, the last at "
            f"{incident.last_at:%Y-%m-%d %H:%M} UTC.",
            incident.detail,
        )
        for incident in found[:_MAX_INCIDENTS]
    ]
    if len(found) > _MAX_INCIDENTS:
        text = f"{len(found) - _MAX_INCIDENTS} more kinds in the last 24 hours."
        findings.append(Finding(Level.HINT, "incidents", text, "Mend those above first; logs/commedia.log has all."))
    return findings
