"""How busy all replicas are together."""

from engine.backends.ray_serve.loads import LoadBook
from engine.types import EngineLoad


def load(**figures: object) -> EngineLoad:
    return EngineLoad(**{"device": "cpu", **figures})  # type: ignore[arg-type]


def test_loads_add_up() -> None:
    book = LoadBook()
    book.note(
        {
            "a": load(num_running=2, num_prompt_tokens=10, num_cached_tokens=4, kv_used=0.5),
            "b": load(num_running=1, num_waiting=3, num_prompt_tokens=20, num_new_tokens=7, device="cuda"),
            "c": load(num_steps=9, num_failures=1),
        }
    )
    assert book.total() == EngineLoad(
        num_running=3,
        num_waiting=3,
        num_failures=1,
        num_prompt_tokens=30,
        num_cached_tokens=4,
        num_new_tokens=7,
        num_steps=9,
        kv_used=0.5 / 3,
        device="2 x cpu, cuda",
    )


def test_what_was_done_stays_done_when_a_replica_goes() -> None:
    book = LoadBook()
    book.note({"a": load(num_running=2, num_replies=5, kv_used=0.4), "b": load(num_replies=1)})
    book.note({"b": load(num_replies=2)})
    assert book.total() == load(num_replies=7)
    book.note({"c": load(num_replies=1)})
    assert book.total() == load(num_replies=8)


def test_nothing_is_known_before_the_first_note() -> None:
    assert LoadBook().total() == EngineLoad()
