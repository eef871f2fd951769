"""What of the data is learnt from: read, normalised, checked, without duplicates, split.

Pictures are compared by content: the same bytes by SHA-256, the same picture in another size or quality by perceptual
hash. Whatever is left out is listed with its reason. Nothing of a set that is to be measured with gets through, however
it is called. Knows no models.
"""

import hashlib
import io
import json
import os
import re
import unicodedata
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from engine.encoders.image import UNDECODABLE
from engine.errors import ConfigurationError
from engine.training.datasets import (
    UNREADABLE,
    CaptionedPicture,
    Conversation,
    DataSets,
    DialogueSet,
    Exchange,
    PersonaDialogue,
    PictureSet,
    StyledAnswers,
    TrainingData,
    read_folder,
    thin_out,
)
from engine.training.hub import is_hub_name, read_hub
from engine.training.options import DataOptions
from engine.types import Role, Turn

HASHES_FILE = "picture-hashes.json"
HASHES_FORMAT = 1
MISSING, BROKEN = "the file is missing or cannot be read", "cannot be decoded as a picture"
Advance = Callable[[str, int, int], None]
"""Told what is being checked, how many pictures are done, of how many."""
Item = TypeVar("Item")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff]")


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that is not learnt from. `item` is a picture's name, or the number of a row."""

    set: str
    item: str
    reason: str


@dataclass(slots=True)
class Report:
    """What was read, what was left out, and why."""

    sources: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    sets: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def as_json(self, *, digest: str) -> dict[str, Any]:
        """For `data.json`."""
        reasons: dict[str, Counter[str]] = defaultdict(Counter)
        for one in self.skipped:
            reasons[one.set][one.reason.partition(" (")[0]] += 1
        sets = [{**told, "skipped": dict(reasons[told["name"]])} for told in self.sets]
        return {"sources": list(self.sources), "exclude": list(self.excluded), "digest": digest, "sets": sets}


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """What a picture's bytes tell: their SHA-256, and a perceptual hash of 64 bits unless it is broken."""

    digest: str
    hash: int | None
    num_pixels: int = 0


def normalise(text: str) -> str:
    """One line in composed Unicode, without control characters."""
    return " ".join(_CONTROL.sub("", unicodedata.normalize("NFC", text)).split())


def key_of(text: str) -> str:
    """The same for texts that differ only in case, punctuation or spaces."""
    words = re.sub(r"[\W_]+", " ", unicodedata.normalize("NFKC", text).casefold()).strip()
    return words or text


def prepare_data(
    sources: Sequence[str],
    options: DataOptions,
    *,
    cache: Path,
    advance: Advance,
    seed: int = 0,
    exclude: Sequence[Path] = (),
) -> tuple[TrainingData, Report]:
    """Everything that `sources` (folders, or `hf:` names) hold, cleaned and split into what is learnt from and what
    is kept back. Raises `ConfigurationError` where a set is empty, broken, or mostly missing."""
    report = Report(tuple(sources), tuple(str(folder) for folder in exclude))
    hashes = PictureHashes(cache / HASHES_FILE)
    picture_sets, dialogue_sets = _read(sources, options, cache=cache)
    refused = _measured_with(exclude, hashes, advance=advance)
    cleaner = _PictureCleaner(options, hashes, refused, report, advance=advance)
    pictures = [cleaner.clean(one) for one in picture_sets]
    shown = [cleaner.clean(found) for found in map(_shown_in, dialogue_sets) if found is not None]
    by_image = {(one.name, picture.image): picture.digest for one in shown for picture in one.pictures}
    exchanges = [_clean_dialogues(one, options, refused, by_image, report) for one in dialogue_sets]
    hashes.save()
    everything = DataSets(
        tuple(one for one in (*pictures, *shown) if one.pictures),
        tuple(one for found in exchanges for one in found if isinstance(one, StyledAnswers)),
        tuple(one for found in exchanges for one in found if isinstance(one, PersonaDialogue)),
        tuple(one for found in exchanges for one in found if isinstance(one, Conversation)),
    )
    learn, held_out = split(everything, share=options.held_out, seed=seed)
    _count(report, learn, held_out)
    return TrainingData(learn, held_out, _digest_of(everything, options, seed)), report


def _read(sources: Sequence[str], options: DataOptions, *, cache: Path) -> tuple[list[PictureSet], list[DialogueSet]]:
    pictures: list[PictureSet] = []
    dialogues: list[DialogueSet] = []
    for source in sources:
        if is_hub_name(source):
            found = read_hub(source, options, cache=cache / "datasets")
            pictures += [found] if isinstance(found, PictureSet) else []
            dialogues += [found] if isinstance(found, DialogueSet) else []
        else:
            more_pictures, more_dialogues = read_folder(Path(source), roles=options.roles)
            pictures += more_pictures
            dialogues += more_dialogues
    names = Counter([one.name for one in pictures] + [one.name for one in dialogues])
    if twice := [name for name, number in names.items() if number > 1]:
        raise ConfigurationError(f"two data sets are called {twice[0]}; rename one of them")
    if unknown := sorted((options.roles.keys() | options.shares.keys()) - {one.name for one in pictures}):
        raise ConfigurationError(f"data.roles and data.shares name sets that are not there: {', '.join(unknown)}")
    return [replace(one, share=options.shares.get(one.name, one.share)) for one in pictures], dialogues


# --- pictures


class PictureHashes:
    """Perceptual hashes by the digest of a picture's bytes, kept between runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, tuple[int | None, int]] = {}
        self._is_changed = False
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["format"] == HASHES_FORMAT:
                self._known = {
                    digest: (None if code is None else int(code, 16), num_pixels)
                    for digest, (code, num_pixels) in kept["pictures"].items()
                }
        except (OSError, ValueError, LookupError, TypeError):
            self._known = {}  # missing or damaged: hashes are computed anew

    def facts(self, data: bytes, *, max_pixels: int) -> PictureFacts:
        """Of one picture. It is decoded only where it was never seen."""
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self._known:
            num_pixels = _num_pixels(data)
            if num_pixels > max_pixels:
                return PictureFacts(digest, None, num_pixels)
            self._known[digest] = (perceptual_hash(data), num_pixels)
            self._is_changed = True
        code, num_pixels = self._known[digest]
        return PictureFacts(digest, code, num_pixels)

    def save(self) -> None:
        """Keep what was learnt."""
        if not self._is_changed:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        pictures = {
            digest: (None if code is None else f"{code:016x}", num_pixels)
            for digest, (code, num_pixels) in self._known.items()
        }
        new = self._path.with_name(f"{self._path.name}.{os.getpid()}.new")  # other runs may use this cache
        new.write_text(json.dumps({"format": HASHES_FORMAT, "pictures": pictures}), encoding="utf-8")
        new.replace(self._path)
        self._is_changed = False


def perceptual_hash(data: bytes) -> int | None:
    """64 bits that stay nearly the same when a picture is resized or compressed again, or `None` where it cannot be
    decoded."""
    try:
        import imagehash
    except ImportError as error:
        raise ConfigurationError("training needs more libraries: pip install 'commedia[train]'") from error
    try:
        with _quietly(), Image.open(io.BytesIO(data)) as picture:
            return int(str(imagehash.phash(picture.convert("RGB"))), 16)
    except UNDECODABLE:
        return None


def _num_pixels(data: bytes) -> int:
    """By what its header says; 0 where it is no picture."""
    try:
        with _quietly(), Image.open(io.BytesIO(data)) as picture:
            return picture.width * picture.height
    except UNDECODABLE:
        return 0


def _quietly() -> warnings.catch_warnings:
    """Pillow warns of odd metadata and of size, which is checked here."""
    return warnings.catch_warnings(action="ignore")


@dataclass(slots=True)
class _Refused:
    """What must not be learnt from: the content of sets that are measured with."""

    digests: set[str] = field(default_factory=set)
    hashes: list[int] = field(default_factory=list)
    texts: set[str] = field(default_factory=set)


def _measured_with(folders: Sequence[Path], hashes: PictureHashes, *, advance: Advance) -> _Refused:
    refused = _Refused()
    for folder in folders:
        pictures, dialogues = read_folder(folder)
        for one in pictures:
            for _, facts in _facts_of(one, hashes, max_pixels=10**9, advance=advance):
                if facts is not None:
                    refused.digests.add(facts.digest)
                    refused.hashes += [facts.hash] if facts.hash is not None else []
        refused.texts |= {_exchange_key(one) for found in dialogues for one in found.exchanges}
    return refused


def _facts_of(
    pictures: PictureSet, hashes: PictureHashes, *, max_pixels: int, advance: Advance
) -> Iterator[tuple[CaptionedPicture, PictureFacts | None]]:
    """Each picture with its facts, or `None` where its file cannot be read."""
    total = len(pictures.pictures)
    with pictures.files.open() as read:
        for number, picture in enumerate(pictures.pictures, start=1):
            try:
                data = read(picture.image)
            except UNREADABLE:
                yield picture, None
            else:
                yield picture, hashes.facts(data, max_pixels=max_pixels)
            if number % 50 == 0 or number == total:
                advance(pictures.name, number, total)


class _PictureCleaner:
    """Judges pictures set by set; what a set before had is a duplicate."""

    def __init__(
        self, options: DataOptions, hashes: PictureHashes, refused: _Refused, report: Report, *, advance: Advance
    ) -> None:
        self._options = options
        self._hashes = hashes
        self._refused = refused
        self._refused_hashes = np.array(refused.hashes, dtype=np.uint64)
        self._report = report
        self._advance = advance
        self._seen: dict[str, str] = {}
        self._alike: dict[tuple[str, int, int], list[tuple[int, str]]] = defaultdict(list)

    def clean(self, pictures: PictureSet) -> PictureSet:
        """The set without what must not be learnt from."""
        options, report = self._options, self._report
        num_before = len(report.skipped)
        kept, num_missing = [], 0
        max_pixels = options.max_image_pixels
        for picture, facts in _facts_of(pictures, self._hashes, max_pixels=max_pixels, advance=self._advance):
            num_missing += facts is None
            captions = self._captions(picture)
            reason = self._fault(pictures, picture, captions, facts)
            if reason or facts is None:
                report.skipped.append(Skipped(pictures.name, picture.image, reason or MISSING))
            else:
                self._seen.setdefault(facts.digest, f"{pictures.name}/{picture.image}")
                kept.append(CaptionedPicture(picture.image, captions, facts.digest))
        if num_missing * 2 > len(pictures.pictures):
            missing = [one.item for one in report.skipped[num_before:] if one.reason == MISSING]
            raise ConfigurationError(
                f"{num_missing} of the {len(pictures.pictures)} pictures of {pictures.name} are missing, like "
                f"{missing[0]}; check that its rows name the files as they are called"
            )
        if not kept and not self._refused.digests:
            reason, number = Counter(one.reason for one in report.skipped[num_before:]).most_common(1)[0]
            raise ConfigurationError(f"no picture of {pictures.name} can be learnt from: {number} times, {reason}")
        if pictures.role == "things":
            kept = self._thin_out(pictures.name, kept)
        report.sets.append(
            {"name": pictures.name, "kind": "pictures", "role": pictures.role, "rows": len(pictures.pictures)}
        )
        return replace(pictures, pictures=tuple(kept))

    def _captions(self, picture: CaptionedPicture) -> tuple[str, ...]:
        """Normalised, each once, none too long."""
        texts = (normalise(caption) for caption in picture.captions)
        short = [text for text in texts if text and len(text.split()) <= self._options.max_caption_words]
        return tuple({key_of(text): text for text in reversed(short)}.values())[::-1]

    def _fault(
        self, pictures: PictureSet, picture: CaptionedPicture, captions: tuple[str, ...], facts: PictureFacts | None
    ) -> str:
        """Why this picture must not be learnt from, or nothing."""
        if facts is None:
            return MISSING
        if facts.num_pixels > self._options.max_image_pixels:
            return f"larger than {self._options.max_image_pixels} pixels ({facts.num_pixels})"
        if facts.hash is None:
            return BROKEN
        if facts.digest in self._refused.digests or self._is_refused(facts.hash):
            return "in a set that is measured with"
        if pictures.role == "shown":
            return ""
        if not captions:
            return "no caption" if not any(map(str.strip, picture.captions)) else "no caption is short enough"
        if facts.digest in self._seen:
            return f"the same file as another ({self._seen[facts.digest]})"
        # Things of different names may look alike (the hands of two clocks); a scene has many captions.
        group = key_of(captions[0]) if pictures.role == "things" else ""
        if twin := self._twin(facts.hash, group):
            return f"the same picture as another ({twin})"
        for place in self._places(facts.hash, group):
            self._alike[place].append((facts.hash, f"{pictures.name}/{picture.image}"))
        return ""

    def _is_refused(self, code: int) -> bool:
        if not len(self._refused_hashes):
            return False
        distances = np.bitwise_count(self._refused_hashes ^ np.uint64(code))
        return bool(distances.min() <= self._options.max_excluded_distance)

    def _twin(self, code: int, group: str) -> str:
        limit = self._options.max_hash_distance
        near = (found for place in self._places(code, group) for found in self._alike.get(place, ()))
        return next((name for other, name in near if (other ^ code).bit_count() <= limit), "")

    def _places(self, code: int, group: str) -> list[tuple[str, int, int]]:
        """Where alike hashes are looked for: of two that differ in `n` bits, one of `n + 1` pieces is the same."""
        num_pieces = self._options.max_hash_distance + 1
        size = -(-64 // num_pieces)
        return [(group, piece, code >> (piece * size) & ((1 << size) - 1)) for piece in range(num_pieces)]

    def _thin_out(self, name: str, kept: list[CaptionedPicture]) -> list[CaptionedPicture]:
        thinned = thin_out(kept, max_per_caption=self._options.max_per_caption)
        taken = {picture.image for picture in thinned}
        reason = f"there are {self._options.max_per_caption} others with this caption"
        self._report.skipped += [Skipped(name, one.image, reason) for one in kept if one.image not in taken]
        return thinned


def _shown_in(dialogues: DialogueSet) -> PictureSet | None:
    """The pictures that conversations of a set name."""
    if dialogues.files is None:
        return None
    images = dict.fromkeys(
        one.picture for one in dialogues.exchanges if isinstance(one, Conversation) and one.picture is not None
    )
    pictures = tuple(CaptionedPicture(image, ()) for image in images)
    return PictureSet(dialogues.name, "shown", pictures, dialogues.files)


# --- dialogues


def _clean_dialogues(
    dialogues: DialogueSet,
    options: DataOptions,
    refused: _Refused,
    digests: Mapping[tuple[str, str], str],
    report: Report,
) -> list[Exchange]:
    kept: dict[str, Exchange] = {}
    for number, raw in enumerate(dialogues.exchanges, start=1):
        exchange = _clean_exchange(raw, max_words=options.max_turn_words)
        if isinstance(exchange, Conversation) and exchange.picture is not None:
            digest = digests.get((dialogues.name, exchange.picture))
            exchange = replace(exchange, picture=digest) if digest else None
            reason = "its picture is left out"
        else:
            reason = f"empty, or longer than {options.max_turn_words} words"
        if exchange is not None:
            key = _exchange_key(exchange)
            reason = "the same as another row" if key in kept else ""
            reason = "in a set that is measured with" if key in refused.texts else reason
        if exchange is None or reason:
            report.skipped.append(Skipped(dialogues.name, f"row {number}", reason))
        else:
            kept[key] = exchange
    if not kept and not refused.texts:
        raise ConfigurationError(f"no row of {dialogues.name} can be learnt from: they are empty or too long")
    report.sets.append({"name": dialogues.name, "kind": "dialogues", "rows": len(dialogues.exchanges)})
    return list(kept.values())


def _clean_exchange(exchange: Exchange, *, max_words: int) -> Exchange | None:
    """In composed Unicode and of bounded length, or `None` where nothing is left."""
    if isinstance(exchange, StyledAnswers):
        answers = {style: normalise(text) for style, text in exchange.answers.items()}
        answers = {style: text for style, text in answers.items() if text and len(text.split()) <= max_words}
        user = normalise(exchange.user)
        return StyledAnswers(user, answers) if user and answers and len(user.split()) <= max_words else None
    if isinstance(exchange, PersonaDialogue):
        first, second = (_sentences(persona) for persona in exchange.personas)
        said = tuple(_until_too_long(((s, normalise(text)) for s, text in exchange.turns), max_words=max_words))
        return PersonaDialogue((first, second), said) if len(said) > 1 else None
    turns = [Turn(turn.role, _normalise_lines(turn.text)) for turn in exchange.turns]
    kept = [turn for turn, _ in _until_too_long(((turn, turn.text) for turn in turns), max_words=max_words)]
    while kept and kept[-1].role is not Role.ASSISTANT:
        kept.pop()
    has_question = any(turn.role is Role.USER for turn in kept)
    return replace(exchange, persona=_sentences(exchange.persona), turns=tuple(kept)) if has_question else None


def _sentences(persona: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for text in map(normalise, persona) if text))


def _normalise_lines(text: str) -> str:
    """Like `normalise`, but paragraphs of a long answer stay apart."""
    lines = [normalise(line) for line in text.splitlines()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _until_too_long(turns: Iterable[tuple[Item, str]], *, max_words: int) -> Iterator[tuple[Item, str]]:
    """Turns before the first that is empty or too long: what comes after would answer to nothing."""
    for speaker, text in turns:
        if not text or len(text.split()) > max_words:
            return
        yield speaker, text


def _exchange_key(exchange: Exchange) -> str:
    """The same for rows that differ only in case, punctuation or spaces."""
    if isinstance(exchange, StyledAnswers):
        return key_of(exchange.user)
    if isinstance(exchange, PersonaDialogue):
        return " / ".join(f"{speaker} {key_of(text)}" for speaker, text in exchange.turns)
    said = " / ".join(f"{turn.role} {key_of(turn.text)}" for turn in exchange.turns)
    return f"{exchange.picture or ''} {said}"


# --- splitting


def split(data: DataSets, *, share: float, seed: int) -> tuple[DataSets, DataSets]:
    """What is learnt from, and what is kept back: at least one row of every set that has two. Lines with the same
    answers, and all talks of the same two people, stay on one side."""
    pictures = [(one, _held_out([picture.digest for picture in one.pictures], share, seed)) for one in data.pictures]
    answers = _held_out([sorted(one.answers.items()) for one in data.answers], share, seed)
    dialogues = _held_out([sorted(map(sorted, one.personas)) for one in data.dialogues], share, seed)
    conversations = _held_out([one.turns[0].text for one in data.conversations], share, seed)

    def part(side: bool) -> DataSets:
        return DataSets(
            tuple(
                # A conversation of either side may show any of the pictures.
                one if one.role == "shown" else replace(one, pictures=_chosen(one.pictures, marks, side))
                for one, marks in pictures
            ),
            _chosen(data.answers, answers, side),
            _chosen(data.dialogues, dialogues, side),
            _chosen(data.conversations, conversations, side),
        )

    return part(False), part(True)


def _held_out(contents: Sequence[object], share: float, seed: int) -> list[bool]:
    """Which rows are kept back: by their content alone, so that an order or a name changes nothing."""
    keys = [hashlib.sha256(json.dumps([seed, content]).encode()).digest() for content in contents]
    groups = sorted(set(keys))
    num_held_out = max(1, round(share * len(groups))) if len(groups) > 1 else 0
    chosen = set(groups[:num_held_out])
    return [key in chosen for key in keys]


def _chosen(items: Sequence[Item], marks: Sequence[bool], side: bool) -> tuple[Item, ...]:
    return tuple(item for item, mark in zip(items, marks, strict=True) if mark is side)


def _count(report: Report, learn: DataSets, held_out: DataSets) -> None:
    num_learnt = {one.name: len(one.pictures) for one in learn.pictures}
    num_held_out = {one.name: len(one.pictures) for one in held_out.pictures}
    num_skipped = Counter(one.set for one in report.skipped)
    for told in report.sets:
        if told["kind"] == "pictures":
            told |= {"learnt": num_learnt.get(told["name"], 0), "held_out": num_held_out.get(told["name"], 0)}
        else:
            told["kept"] = told["rows"] - num_skipped[told["name"]]


def _digest_of(data: DataSets, options: DataOptions, seed: int) -> str:
    """Changes with anything that changes what is drawn."""
    digest = hashlib.sha256(repr((seed, options.held_out)).encode())
    for one in data.pictures:
        digest.update(repr((one.name, one.role, one.share)).encode())
        for picture in one.pictures:
            digest.update(repr((picture.digest, picture.captions)).encode())
    for exchange in (*data.answers, *data.dialogues, *data.conversations):
        digest.update(repr(exchange).encode())
    return digest.hexdigest()
