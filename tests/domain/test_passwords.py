"""Long and unrelated is taken; common, patterned or personal is refused with the reason."""

from __future__ import annotations

import unicodedata
from threading import Thread

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keybearer.domain.passwords import check, normalise

CONTEXT = ["victoria.time@example-mail.com", "Victoria Time"]


def refusal(password: str, *, minimum: int = 15) -> str | None:
    return check(normalise(password), minimum=minimum, context=CONTEXT)


@pytest.mark.parametrize(
    "password",
    [
        "yzusuwaldwkrrspmpgzc",
        "tricky trout ladder mist",
        "correct horse green battery staple",
        "otter lamp otter maps otter rain",
        "  leading and trailing  ",
        "Jr7#kQ2!vXz9@pLm",
        "483691705326917450281",
        "\u0434\u043e\u0436\u0434\u044c \u043a\u043e\u043b\u0435\u0441\u043e \u0441\u043e\u0432",
        "".join(map(chr, range(0x1F388, 0x1F388 + 15 * 17, 17))),
        "victoria trout ladder mist",
        "4@8({[<6!1|$5+7%2q9Rt",
        "yzusuwaldwkrrspmpgzc" * 12,
        "x9qm4kd82jf7w1c",
        "the quick brown fox jumps over the lazy dog vexes marmalade ambassador",
        "._- -_.._-. -_.",
    ],
)
def test_what_is_long_and_unrelated_is_taken(password: str) -> None:
    assert refusal(password) is None


@pytest.mark.parametrize(
    "password",
    [
        "passwordpassword",
        "p@ssw0rdp@ssw0rd",
        "letmeinletmeinletmein",
        "123456789012345",
        "111111111111111",
        "aaaaaaaaaaaaaaaaaaaa",
        "abcdefghijklmnopqrstuvwxyz",
        "qwertyuiopasdfgh",
        "1qaz2wsx3edc4rfv",
        "q1w2e3r4t5y6u7i8",
        "iloveyou123456789",
        "unbelievable12345",
        "adminadminadminadmin",
        "\U0001f642" * 15,
        "a" * 256,
        "1212121212121212121212",
        "correct horse battery staple",
        "Correct-Horse_Battery.Staple99!",
        "To be, or not to be: that is the question",
        "otter otter otter otter",
        "otter-otter_otter.otter",
        " ".join(["\u043f\u0430\u0440\u043e\u043b\u044c"] * 3),
        "a b c d e f g h i j k",
        "pass word pass word",
    ],
)
def test_what_is_common_or_patterned_is_refused(password: str) -> None:
    assert "too easy to guess" in (refusal(password) or "")


@pytest.mark.parametrize(
    "password",
    [
        "victoria.time@example-mail.com",
        "VICTORIA.TIME@EXAMPLE-MAIL.COM",
        "keybearerkeybearer",
        "KeyBearer2026!!",
        "Victoria Time 1984",
        "timevictoriatime",
        "victoria-keybearer-99",
        "\uff36ictoria Time 1984",
    ],
)
def test_what_is_made_of_known_words_is_refused(password: str) -> None:
    assert "made of your name" in (refusal(password) or "")


@pytest.mark.parametrize(
    ("password", "context", "made_of_it"),
    [
        ("jo_li2024", ["jo_li@example.com"], True),
        ("ann12345678", ["Ann"], True),
        ("annabel19847", ["Ann", "Annabel"], True),
        ("al1984!?#%77", ["Al"], False),
    ],
)
def test_a_word_that_is_known_has_three_letters_or_more(
    password: str, context: list[str], made_of_it: bool
) -> None:
    told = check(password, minimum=8, context=context)
    assert ("made of your name" in (told or "")) == made_of_it


def test_known_words_make_a_password_weaker() -> None:
    assert check("zyrgbolqxpassword", minimum=15, context=["Zyrgbolqx"]) is not None
    assert check("zyrgbolqxpassword", minimum=15, context=["Vrtnmwkpf"]) is None


@pytest.mark.parametrize(
    "before",
    ["-" * 64, "".join("a" + "-_. "[int(digit) % 4] for digit in str(3**134))],
    ids=["as it is", "without what joins"],
)
def test_64_characters_that_are_soon_guessed_are_not_mended_by_those_behind(before: str) -> None:
    assert refusal("yzusuwaldwkrrspmpgzc") is None
    assert "too easy to guess" in (refusal(before + "yzusuwaldwkrrspmpgzc") or "")


def test_of_what_is_known_16_words_of_16_things_in_256_characters_count() -> None:
    def counts(context: list[str]) -> bool:
        return "made of your name" in (check("zyrgbolqx1984", minimum=8, context=context) or "")

    assert counts(["x"] * 15 + ["Zyrgbolqx"])
    assert not counts(["x"] * 16 + ["Zyrgbolqx"])
    assert counts(["x " * 15 + "Zyrgbolqx"])
    assert not counts(["x " * 16 + "Zyrgbolqx"])
    assert counts(["-" * 247 + "Zyrgbolqx"])
    assert not counts(["-" * 248 + "Zyrgbolqx"])


def test_short_and_many_known_words_do_not_matter() -> None:
    assert check("yzusuwaldwkrrspmpgzc", minimum=15, context=["", "y", "a b", "@"]) is None
    assert check("yzusuwaldwkrrspmpgzc", minimum=15, context=["w" * 10**6] * 1000) is None


@pytest.mark.parametrize("minimum", [8, 15])
def test_code_points_are_counted(minimum: int) -> None:
    letters = "\U0001f388\u00e9\u6c34\u0436x9\u05d0\u0e01\U0001f418\U0001f6b2\u03c9k7\U0001f34bz"
    assert len(letters) == 15
    assert refusal(letters[:minimum], minimum=minimum) is None
    assert refusal(letters[: minimum - 1], minimum=minimum) == (
        f"A password has at least {minimum} characters; yours has {minimum - 1}."
    )


def test_256_code_points_are_the_most() -> None:
    longest = "yzusuwaldwkrrspm" * 16
    assert refusal(longest) is None
    assert "at most 256" in (check(longest + "x", minimum=15, context=[]) or "")
    for too_long in (longest + "x", "x" * 10**6, "\ufdfa" * 100):
        with pytest.raises(ValueError, match="at most 256 characters"):
            normalise(too_long)


def test_what_is_composed_is_counted_as_composed() -> None:
    letter = "\u1f82"
    apart = unicodedata.normalize("NFD", letter)
    assert len(apart) == 4
    assert normalise(apart * 256) == letter * 256
    with pytest.raises(ValueError, match="at most 256 characters"):
        normalise(apart * 257)


@pytest.mark.parametrize("password", ["a\0b", "\ud800", "abc\udfff"])
def test_what_is_no_character_is_refused(password: str) -> None:
    with pytest.raises(ValueError, match="made of characters"):
        normalise(password)


def test_one_password_typed_in_two_ways_is_one() -> None:
    assert normalise("Zo\u00eb \uff21\ufb01") == normalise("Zoe\u0308 Afi")


def test_nothing_is_cut_off() -> None:
    one, other = "x" * 128 + "a", "x" * 128 + "b"
    assert normalise(one) != normalise(other)
    assert normalise(" a ") == " a "


@given(st.text(max_size=300))
def test_any_text_is_normalised_once_or_a_value_error(text: str) -> None:
    try:
        normal = normalise(text)
    except ValueError:
        return
    assert normalise(normal) == normal == unicodedata.normalize("NFKC", text)


@settings(deadline=None, max_examples=50)
@given(st.text(alphabet="4@8({[<369!1|705$+%2aeiost", max_size=256))
def test_any_password_gets_an_answer(text: str) -> None:
    answer = check(text, minimum=8, context=CONTEXT)
    assert answer is None or answer.endswith(".")


def test_no_word_of_one_person_is_seen_by_another() -> None:
    password = "zyrgbolqxpassword"
    wrong: list[str] = []

    def ask(known: str, taken: bool) -> None:
        answers = [check(password, minimum=15, context=[known]) for _ in range(10)]
        wrong.extend(known for answer in answers if (answer is None) is not taken)

    threads = [
        Thread(target=ask, args=("Zyrgbolqx", False)),
        Thread(target=ask, args=("Vrtnmwkpf", True)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
