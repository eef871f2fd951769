"""Low-rank adapters for the language model: it learns to hold a role.

Owns the trainable layers, the conversations that they learn from, and the loss on every reply in them. Knows neither
pictures nor the fusion, and neither steps nor checkpoints: `engine.training.run` has those. What is learnt is written
by `engine.decoder.adapter`, in peft's format.

Five kinds of conversation are mixed. *Characters*: made up for this project, told as the bot tells a persona. *People*:
dialogues in which the speaker's sentences are told. *Styles*: one line answered in a style, told or not. *Roles*: an
instruction to play somebody, answered as long as was asked for. *Conversations*: any others, with what is told of the
speaker. Shapes: `b` conversations, `n` tokens, `r` rank, `d_in` and `d_out` a layer's widths.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from engine.decoder.adapter import save_adapter
from engine.decoder.checkpoint import Checkpoint
from engine.decoder.prompt import PromptWriter
from engine.errors import ConfigurationError
from engine.persona import Persona
from engine.training.characters import Character, characters, describe_person
from engine.training.datasets import Conversation, DataSets, PersonaDialogue, StyledAnswers, TrainingData
from engine.training.decoder import FrozenDecoder
from engine.training.options import TrainingOptions
from engine.training.run import TrainingSetup
from engine.training.tasks.base import TaskLoss
from engine.training.tasks.character_lines import LINES
from engine.types import Role, Turn

ALL_LINEAR = "all-linear"
# One character in eight is kept back, to see whether the way of talking carries to somebody never met.
HELD_OUT_STEP, HELD_OUT_FIRST = 8, 4
# Conversations are read so many at a time, those of like length together: less is padded.
MAX_TOGETHER = 8
NAMES = (
    "Alex", "Sam", "Robin", "Nia", "Marco", "Ines", "Theo", "Lena", "Omar", "Ruth", "Kai", "Hana", "Felix", "Dora",
    "Luis", "Vera", "Noor", "Emil", "Tess", "Ravi",
)  # fmt: skip
LENGTHS = {
    "short": "in one or two short sentences",
    "medium": "in two to four sentences",
    "long": "in detail",
}
MAX_SENTENCES = {"short": 2, "medium": 4, "long": 6}
MAX_EXAMPLE_CHARACTERS = 250
UNTOLD = "You are talking with a friend. Answer in one short sentence."
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"”']?\s+")
_ROLE = re.compile(
    r"^(?:Imagine |Pretend |Suppose )?(?:that )?you(?: are|'re) ([^.?!]{3,120}[.!])\s+(.{8,})$", re.I | re.S
)


@dataclass(frozen=True, slots=True)
class RoleTalk:
    """A system prompt, and turns of which each of the assistant's is to be learnt."""

    kind: str
    system_prompt: str
    turns: tuple[Turn, ...]


class LowRankLinear(nn.Module):
    """A frozen linear layer and a trained product of low rank beside it: `(…, d_in)` to `(…, d_out)`.

    `down: (rank, d_in)` and `up: (d_out, rank)` are kept in float32, and multiplied in the layer's own format.
    """

    def __init__(self, linear: nn.Linear, *, rank: int, alpha: float) -> None:
        super().__init__()
        self.linear, self.scale = linear, alpha / rank
        device = linear.weight.device
        self.down = nn.Parameter(torch.empty(rank, linear.in_features, device=device))
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank, device=device))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, inputs: Tensor) -> Tensor:
        """`inputs: (…, d_in)`."""
        rows = inputs.reshape(-1, inputs.shape[-1])
        weight = self.linear.weight
        output: Tensor = _LowRankProduct.apply(  # type: ignore[no-untyped-call]
            rows, weight, self.linear.bias, self.down.to(weight.dtype), (self.up * self.scale).to(weight.dtype)
        )
        return output.view(*inputs.shape[:-1], -1)


class _LowRankProduct(torch.autograd.Function):
    """`x Wᵀ + (x Dᵀ) Uᵀ` over rows, its sums made in place: left to autograd, half of a step on a CPU is adding.

    The backward pass of a three-dimensional product would also copy its weight for every sequence.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor) -> Tensor:  # noqa: ANN401
        low = rows @ down.T
        ctx.save_for_backward(rows, weight, down, up, low)
        return functional.linear(rows, weight, bias).addmm_(low, up.T)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        rows, weight, down, up, low = ctx.saved_tensors
        low_gradient = gradient @ up
        rows_gradient = (gradient @ weight).addmm_(low_gradient, down) if ctx.needs_input_grad[0] else None
        return rows_gradient, None, None, low_gradient.T @ rows, gradient.T @ low


def add_low_rank(
    model: Any,  # noqa: ANN401 - any causal model's class
    *,
    rank: int,
    alpha: float,
    targets: Sequence[str] = (ALL_LINEAR,),
) -> dict[str, LowRankLinear]:
    """Put an adapter beside the linear layers of `model` that are called one of `targets`, the head left out; the
    adapters by their layers' names. Raises `ConfigurationError` where there is no such layer."""
    head = model.get_output_embeddings()
    linear = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear) and layer is not head]
    chosen = [name for name in linear if ALL_LINEAR in targets or name.rpartition(".")[2] in targets]
    if not chosen:
        known = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
        raise ConfigurationError(f"lora.targets names no linear layer of this decoder; it has {known}, or {ALL_LINEAR}")
    return {name: _replace(model, name, rank=rank, alpha=alpha) for name in chosen}


def _replace(model: nn.Module, name: str, *, rank: int, alpha: float) -> LowRankLinear:
    parent, _, attribute = name.rpartition(".")
    owner = model.get_submodule(parent)
    layer = LowRankLinear(getattr(owner, attribute), rank=rank, alpha=alpha)
    setattr(owner, attribute, layer)
    return layer


class TalkSamples:
    """Draws conversations of all kinds that there is something of; number `index` depends on the seed and `index`
    alone."""

    def __init__(self, data: DataSets, cast: Sequence[Character], *, seed: int, shares: dict[str, float]) -> None:
        """`shares` says how often each kind is drawn: `characters`, `people`, `styles`, `roles`, `conversations`."""
        self._seed = seed
        self._cast, self._dialogues, self._answers = tuple(cast), data.dialogues, data.answers
        self._roles = tuple(one for one in data.conversations if is_instruction(one))
        self._others = tuple(one for one in data.conversations if not is_instruction(one))
        there = {
            "characters": self._cast, "people": self._dialogues, "styles": self._answers, "roles": self._roles,
            "conversations": self._others,
        }  # fmt: skip
        self._shares = {kind: share for kind, share in shares.items() if share > 0 and there[kind]}
        if not self._shares:
            raise ConfigurationError(
                "the data has nothing for lora: dialogues are needed, or a share for characters (docs/training.md)"
            )

    def draw(self, index: int) -> RoleTalk:
        """Conversation number `index` of this seed."""
        chance = Random(f"{self._seed}/{index}")  # noqa: S311 - chance, not secrecy
        (kind,) = chance.choices(list(self._shares), weights=list(self._shares.values()))
        if kind == "characters":
            return with_character(chance.choice(self._cast), chance)
        if kind == "people":
            return with_person(chance.choice(self._dialogues), chance)
        if kind == "styles":
            return with_style(chance.choice(self._answers), chance)
        if kind == "roles":
            return with_role(chance.choice(self._roles), chance)
        return with_anybody(chance.choice(self._others), chance)


def is_instruction(conversation: Conversation) -> bool:
    """One thing asked and answered, and nothing told of who answers."""
    return not conversation.persona and len(conversation.turns) == 2


def with_character(character: Character, chance: Random, *, max_replies: int = 4) -> RoleTalk:
    """Some of a character's lines, others told as examples of how it talks."""
    lines = list(LINES[character.persona.name])
    chance.shuffle(lines)
    num_examples, num_replies = chance.choice((0, 1, 2, 3)), chance.randint(1, max_replies)
    examples, said = lines[:num_examples], lines[num_examples : num_examples + num_replies]
    user = chance.choice((None, None, *NAMES)) if chance.random() < 0.5 else None
    prompt = tell(character.persona, examples, user_name=user)
    return RoleTalk("characters", prompt, tuple(_alternate(said)))


def with_person(dialogue: PersonaDialogue, chance: Random, *, max_turns: int = 6) -> RoleTalk:
    """A stretch of a dialogue, told from one side, which is told its own sentences."""
    speaker = chance.randrange(2)
    facts = list(dialogue.personas[speaker])
    chance.shuffle(facts)
    if chance.random() < 0.25:
        facts = facts[: chance.randint(0, 2)]
    starts = [j for j, (who, _) in enumerate(dialogue.turns[:-1]) if who != speaker]
    start = chance.choice(starts) if starts else 0
    turns: list[Turn] = []
    for who, words in dialogue.turns[start : start + max_turns]:
        role = Role.ASSISTANT if who == speaker else Role.USER
        if turns and turns[-1].role is role:
            break
        turns.append(Turn(role, words))
    if len(turns) < 2:
        turns = [Turn(Role.USER, "Hello!"), Turn(Role.ASSISTANT, dialogue.turns[0][1])]
    if turns[-1].role is Role.USER:
        turns.pop()
    return RoleTalk("people", _tell_person(facts, chance), tuple(turns))


def _tell_person(facts: Sequence[str], chance: Random) -> str:
    if chance.random() < 0.4:
        return describe_person(tuple(facts))
    name = chance.choice(NAMES)
    told = " ".join(facts)
    return f"You are {name}. {told}\nStay in character as {name}. Answer in English, {LENGTHS['short']}."


def with_style(
    answers: StyledAnswers, chance: Random, *, style: str | None = None, is_told: bool | None = None
) -> RoleTalk:
    """A line and its answer in one style."""
    style = style or chance.choice(sorted(answers.answers))
    if is_told is None:
        is_told = chance.random() < 0.75
    if not is_told:
        turns = (Turn(Role.USER, answers.user), Turn(Role.ASSISTANT, answers.answers[style]))
        return RoleTalk("styles", UNTOLD, turns)
    name = chance.choice(NAMES)
    told = chance.choice((f"You are: {style}.", f"Your voice: {style}.", f"You are: {style}.\nYour voice: {style}."))
    prompt = (
        f"You are {name}. A {style} chat assistant.\n{told}\n"
        f"Stay in character as {name}. Answer in English, {LENGTHS['short']}."
    )
    turns = (Turn(Role.USER, answers.user), Turn(Role.ASSISTANT, answers.answers[style]))
    return RoleTalk("styles", prompt, turns)


def with_role(asked_and_answered: Conversation, chance: Random) -> RoleTalk:
    """An instruction to play somebody. Where it says who, that goes into the system prompt, half of the time."""
    length = chance.choices(("short", "medium", "long"), weights=(3, 4, 2))[0]
    instruction, response = (turn.text for turn in asked_and_answered.turns)
    reply = first_sentences(response, num_sentences=MAX_SENTENCES[length])
    found = _ROLE.match(instruction)
    if found and chance.random() < 0.6:
        asked = found[2].strip()
        prompt = f"You are {found[1].strip()}\nStay in character. Answer in English, {LENGTHS[length]}."
    else:
        asked = instruction
        prompt = f"Answer in English, {LENGTHS[length]}."
    return RoleTalk("roles", prompt, (Turn(Role.USER, asked[:1].upper() + asked[1:]), Turn(Role.ASSISTANT, reply)))


def first_sentences(text: str, *, num_sentences: int, max_words: int = 80) -> str:
    """The beginning of `text`, at least a sentence."""
    taken: list[str] = []
    for sentence in _SENTENCE_END.split(" ".join(text.split())):
        if taken and (len(taken) >= num_sentences or sum(len(one.split()) for one in (*taken, sentence)) > max_words):
            break
        taken.append(sentence)
    return " ".join(taken)


def with_anybody(conversation: Conversation, chance: Random, *, max_turns: int = 8) -> RoleTalk:
    """The end of a conversation, or an earlier stretch of it, with everything that is told of the speaker."""
    turns = conversation.turns
    replies = [j for j, turn in enumerate(turns) if turn.role is Role.ASSISTANT]
    stop = chance.choice(replies) + 1
    start = max(0, stop - max_turns)
    while start < stop - 1 and turns[start].role is not Role.USER:
        start += 1
    return RoleTalk("conversations", " ".join(conversation.persona), turns[start:stop])


def tell(persona: Persona, examples: Sequence[tuple[str, str]], *, user_name: str | None = None) -> str:
    """The system prompt that the bot writes for a persona with these examples."""
    return "\n".join(_told(persona, examples, user_name=user_name))


def _told(persona: Persona, examples: Sequence[tuple[str, str]], *, user_name: str | None) -> Iterator[str]:
    yield f"You are {persona.name}. {persona.summary}"
    if persona.traits:
        yield f"You are: {'; '.join(persona.traits)}."
    if persona.voice.style:
        yield f"Your voice: {'; '.join(persona.voice.style)}."
    num_characters = 0
    for number, (user, reply) in enumerate(examples):
        num_characters += len(user) + len(reply)
        if number and num_characters > MAX_EXAMPLE_CHARACTERS:
            break
        if not number:
            yield "How you talk:"
        yield f"> {user}\n{reply}"
    yield f"Stay in character as {persona.name}. Answer in English, {LENGTHS[persona.voice.length]}."
    if user_name:
        yield f"You are talking with {user_name}."


def _alternate(lines: Sequence[tuple[str, str]]) -> Iterator[Turn]:
    for user, reply in lines:
        yield Turn(Role.USER, user)
        yield Turn(Role.ASSISTANT, reply)


@dataclass(frozen=True, slots=True)
class TokenisedTalk:
    """`is_reply[j]`: whether token `j` belongs to a reply, the mark of its end included."""

    ids: tuple[int, ...]
    is_reply: tuple[bool, ...]


def tokenise(talk: RoleTalk, prompts: PromptWriter, *, end: str, max_tokens: int) -> TokenisedTalk:
    """A talk as the model meets it, cut behind the last reply that fits; at least one reply
    is kept, the prompt before it cut at the front."""
    ids: list[int] = []
    is_reply: list[bool] = []
    for number, turn in enumerate(talk.turns):
        if turn.role is not Role.ASSISTANT:
            continue
        asked = prompts.write(talk.system_prompt, talk.turns[:number]).pieces[0]
        reply = prompts.tokenise(turn.text + end)
        if ids and (len(asked) + len(reply) > max_tokens or asked[: len(ids)] != tuple(ids)):
            break
        is_reply += [False] * (len(asked) - len(ids)) + [True] * len(reply)
        ids = [*asked, *reply]
    # Nothing foretells the first token of all, which is a reply's only where the prompt was cut away.
    return TokenisedTalk(tuple(ids[-max_tokens:]), (False, *is_reply[-max_tokens:][1:]))


def reply_losses(model: Any, batch: Sequence[TokenisedTalk]) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """Negative log-likelihood of every reply token, `(tokens,)`, and which conversation it belongs to, `(tokens,)`."""
    device = model.device
    ids = pad_sequence([torch.tensor(one.ids, device=device) for one in batch], batch_first=True)
    is_reply = pad_sequence([torch.tensor(one.is_reply, device=device) for one in batch], batch_first=True)
    lengths = torch.tensor([len(one.ids) for one in batch], device=device)
    mask = torch.arange(ids.shape[1], device=device) < lengths[:, None]
    states = model.base_model(input_ids=ids, attention_mask=mask.long(), use_cache=False).last_hidden_state
    rows, places = is_reply.nonzero(as_tuple=True)
    logits = model.get_output_embeddings()(states[rows, places - 1]).float()
    return functional.cross_entropy(logits, ids[rows, places], reduction="none"), rows


class LoraTask:
    """Answer as whoever the prompt says: the mean over the conversations of the mean over each one's reply tokens."""

    name = "lora"

    def __init__(
        self,
        decoder: FrozenDecoder,
        samples: TalkSamples,
        *,
        batch_size: int,
        max_tokens: int,
    ) -> None:
        self._decoder = decoder
        self._samples = samples
        self._batch_size = batch_size
        self._max_tokens = max_tokens

    def loss(self, step: int, *, part: int = 0, num_parts: int = 1) -> TaskLoss:
        """See `Task`. The parts are the losses of each kind of conversation."""
        first = step * self._batch_size
        talks = [self._samples.draw(first + j) for j in range(self._batch_size)[part::num_parts]]
        means = self._means([self._tokenise(talk) for talk in talks])
        kinds = sorted({talk.kind for talk in talks})
        parts = {
            kind: torch.stack([mean for talk, mean in zip(talks, means, strict=True) if talk.kind == kind])
            .mean()
            .item()
            for kind in kinds
        }
        return TaskLoss(torch.stack(means).mean(), parts)

    def _tokenise(self, talk: RoleTalk) -> TokenisedTalk:
        return tokenise(talk, self._decoder.prompts, end=self._decoder.end_of_reply, max_tokens=self._max_tokens)

    def _means(self, talks: Sequence[TokenisedTalk]) -> list[Tensor]:
        """Each conversation's mean loss, in their order."""
        order = sorted(range(len(talks)), key=lambda j: len(talks[j].ids))
        means: dict[int, Tensor] = {}
        for first in range(0, len(order), MAX_TOGETHER):
            chosen = order[first : first + MAX_TOGETHER]
            losses, rows = reply_losses(self._decoder.model, [talks[j] for j in chosen])
            means |= {j: losses[rows == row].mean() for row, j in enumerate(chosen)}
        return [means[j] for j in range(len(talks))]


def open_lora(
    checkpoint: Checkpoint, data: TrainingData, options: TrainingOptions, *, device: torch.device, dtype: torch.dtype
) -> TrainingSetup:
    """The language model with an adapter to be trained, its tasks, and how the adapter is written."""
    told = options.lora
    decoder = FrozenDecoder.load(checkpoint.folder, name=checkpoint.name, dtype=dtype, device=str(device))
    layers = add_low_rank(decoder.model, rank=told.rank, alpha=told.alpha, targets=told.targets)
    cast = characters()
    kept_back = cast[HELD_OUT_FIRST::HELD_OUT_STEP]

    def task(sets: DataSets, speakers: Sequence[Character]) -> LoraTask:
        samples = TalkSamples(sets, speakers, seed=options.seed, shares=told.shares.model_dump())
        return LoraTask(decoder, samples, batch_size=told.batch_size, max_tokens=told.max_tokens)

    def save(folder: Path) -> None:
        updates = {name: (layer.down, layer.up) for name, layer in layers.items()}
        save_adapter(updates, folder, base=checkpoint.name, rank=told.rank, alpha=told.alpha)

    return TrainingSetup(
        module=decoder.model,
        tasks=[task(data.learn, [one for one in cast if one not in kept_back])],
        held_out=_or_none(lambda: task(data.held_out, kept_back)),
        save=save,
    )


def _or_none(build: Callable[[], LoraTask]) -> list[LoraTask]:
    """Data of one row has none to keep back."""
    try:
        return [build()]
    except ConfigurationError:
        return []
