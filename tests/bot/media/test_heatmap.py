"""The picture that says why, and its words."""

import io
from collections.abc import Sequence
from dataclasses import replace

import PIL.Image
import pytest

from bot.errors import MediaError
from bot.media import heatmap
from bot.media.heatmap import describe, draw, explained_pictures
from engine.persona import Persona
from engine.types import (
    Explanation,
    FacetShare,
    GenerationRequest,
    Image,
    RegionShares,
    Role,
    StreamShares,
    TokenShare,
    Turn,
)

METHOD = "Shares say what mattered."
EVEN = StreamShares(0.5, 0.25, 0.25)
NOTHING = Explanation((), (), (), (), StreamShares(0, 0, 0), "There is no picture.", has_prefix=False)


def photo(size: tuple[int, int] = (300, 200), colour: str = "grey") -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def regions(hottest: int, *, image: int = 0, share: float = 1.0) -> RegionShares:
    return RegionShares(image, 5, 5, tuple(share if place == hottest else 0.0 for place in range(25)))


def an_explanation(
    *places: RegionShares, words: Sequence[TokenShare] = (), facets: Sequence[FacetShare] = ()
) -> Explanation:
    concepts = (TokenShare("tabby cat", 0.7), TokenShare("sofa", 0.3)) if places else ()
    return Explanation(tuple(places), concepts, tuple(words), tuple(facets), EVEN, METHOD, has_prefix=True)


def drawn(explanation: Explanation, pictures: Sequence[bytes] = (), title: str = "Why") -> PIL.Image.Image:
    with PIL.Image.open(io.BytesIO(draw(explanation, pictures, title=title))) as picture:
        assert picture.format == "PNG"
        return picture.convert("RGB")


def warmth(picture: PIL.Image.Image, box: tuple[int, int, int, int]) -> float:
    """How much redder than blue a part of the picture is."""
    red, _, blue = picture.crop(box).resize((1, 1), PIL.Image.Resampling.BOX).getpixel((0, 0))
    return red - blue


@pytest.mark.parametrize(("hottest", "is_upper", "is_left"), [(0, True, True), (4, True, False), (20, False, True)])
def test_the_heat_lies_where_the_share_is(hottest: int, is_upper: bool, is_left: bool) -> None:
    picture = drawn(an_explanation(regions(hottest)), [photo()])
    # The photo fills the width below the title and the streams.
    left, top, right = 48, next(y for y in range(200, 400) if picture.getpixel((540, y)) != heatmap._PAPER), 1032
    height = (right - left) * 2 // 3
    middle_x, middle_y = (left + right) // 2, top + height // 2
    quarters = {
        (upper, leftmost): warmth(
            picture,
            (
                left if leftmost else middle_x,
                top if upper else middle_y,
                middle_x if leftmost else right,
                middle_y if upper else top + height,
            ),
        )
        for upper in (True, False)
        for leftmost in (True, False)
    }
    assert max(quarters, key=quarters.__getitem__) == (is_upper, is_left)
    assert sorted(quarters.values())[-1] > sorted(quarters.values())[-2] + 2


def test_it_is_as_wide_as_a_phone_and_grows_with_what_it_tells() -> None:
    bare = drawn(an_explanation(words=[TokenShare("cat", 1.0)]))
    full = drawn(an_explanation(regions(3), words=[TokenShare("cat", 1.0)]), [photo()])
    assert bare.width == full.width == 1080
    assert full.height > bare.height + 500


def test_several_pictures_stand_side_by_side() -> None:
    alone = drawn(an_explanation(regions(3)), [photo()])
    pair = drawn(an_explanation(regions(3), regions(8, image=1)), [photo(), photo((100, 400))])
    assert pair.height < alone.height + 200


def test_pictures_that_are_not_at_hand_are_left_out() -> None:
    assert drawn(an_explanation(regions(3), regions(8, image=1)), [photo()]).height > 500


def test_without_a_prefix_it_says_why() -> None:
    assert drawn(NOTHING).height < 400
    assert describe(NOTHING) == "There is no picture."


def test_a_broken_picture_is_refused() -> None:
    with pytest.raises(MediaError, match="no longer a readable"):
        draw(an_explanation(regions(3)), [b"no picture"], title="Why")


def test_a_long_facet_is_wrapped_and_cut() -> None:
    short = drawn(an_explanation(facets=[FacetShare("lore", "Short.", 1.0)]))
    long = drawn(an_explanation(facets=[FacetShare("lore", "A long story of the sea. " * 300, 1.0)]))
    assert 0 < long.height - short.height < 150


WORDS_OF_THE_WORLD = ("собака", "猫", "كلب", "🐕", "ελληνικά", "Füße", "naïve café", "łódź")


@pytest.mark.parametrize("word", WORDS_OF_THE_WORLD)
@pytest.mark.parametrize("has_system_fonts", [True, False])
def test_no_script_becomes_boxes(word: str, has_system_fonts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_system_fonts:
        monkeypatch.setattr(heatmap, "_system_fonts", lambda size: ())
    if heatmap._is_drawable(word, 32):
        font = heatmap._font_for(word, 32)
        covers = heatmap._covers(font)
        assert heatmap._drawable(word, 32)
        assert all(map(covers, heatmap._drawable(word, 32)))
    else:
        # It gets a number in the picture, and the same number in the words.
        explained = an_explanation(words=[TokenShare(word, 0.6), TokenShare("cat", 0.4)])
        assert describe(explained) == f"Words: 1. {word}, 2. cat"
        assert drawn(explained, title=word).height > 200


def test_letters_with_accents_keep_their_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heatmap, "_system_fonts", lambda size: ())
    assert heatmap._drawable("Füße, “naïve” café…", 32) == 'Fusse, "naive" cafe...'


@pytest.mark.parametrize(
    ("hottest", "place"),
    [(0, "upper left"), (2, "the top"), (12, "the middle"), (14, "right"), (24, "lower right"), (22, "the bottom")],
)
def test_the_place_is_told_in_words(hottest: int, place: str) -> None:
    assert describe(an_explanation(regions(hottest))).startswith(f"Looked most at: {place} of the picture; ")


def test_the_words_name_the_strongest_of_each_kind() -> None:
    explanation = an_explanation(
        regions(0, image=0, share=0.2),
        regions(24, image=1, share=0.8),
        words=[TokenShare("what", 0.1), TokenShare("dog", 0.9), TokenShare("is", 0.0)],
        facets=[FacetShare("name", "My name is Grub.", 0.2), FacetShare("traits", "I am bold.", 0.8)],
    )
    assert describe(explanation) == (
        "Looked most at: lower right of picture 2; took the picture for: tabby cat, sofa; words: dog, what; "
        "persona: traits: I am bold, name: My name is Grub"
    )


def test_a_long_facet_is_cut_in_words_too() -> None:
    explanation = an_explanation(facets=[FacetShare("lore", "A long story of the sea. " * 300, 1.0)])
    assert len(describe(explanation)) < 200


def test_where_nothing_mattered_it_says_so() -> None:
    assert "Nothing stood out" in describe(replace(an_explanation(), stream_shares=StreamShares(0, 0, 0)))


def test_the_pictures_are_those_that_were_shown_last() -> None:
    first, second = Image("1", b"one"), Image("2", b"two")
    turns = (
        Turn(Role.USER, "a", (first,)),
        Turn(Role.USER, "b", (second,)),
        Turn(Role.ASSISTANT, "c"),
        Turn(Role.USER, "d"),
    )
    persona = Persona(id="ada", name="Ada", summary="kind", greetings=("hi",))
    assert explained_pictures(GenerationRequest(persona, "", turns)) == [b"two"]
    assert explained_pictures(GenerationRequest(persona, "", turns[3:])) == []
