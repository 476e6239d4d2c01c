"""Which passwords are taken, by length and by how soon they are guessed.

The rules are those of NIST SP 800-63B-4 section 3.1.1.2: every code point counts as one, nothing is
cut off, nothing has to be mixed in, nothing expires; what is common, or made of what is known about
the person, is refused with the reason. The list is local (zxcvbn's), so no password leaves the
process. How a password is hashed is not this module's business.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence

MAX_CODE_POINTS = 256
MIN_GUESSES = 10**8

_PRODUCT = "keybearer"
_LONGEST_INPUT = 1024  # NFKC reorders long runs of marks in quadratic time
_ESTIMATED = 64  # a prefix is guessed no later than the whole; 64 keep the worst under 50 ms
_MAX_CONTEXT = 16
_SHORTEST_CONTEXT = 3
_MAX_SUBSTITUTIONS = 4

_TOO_LONG = f"A password has at most {MAX_CODE_POINTS} characters."
_WORDS = re.compile(r"[^\W_]+")
_FILLING = re.compile(r"[\W\d_]+")
_JOINTS = re.compile(r"[\s._-]+")  # what people put between words

# Long enough, of several words, and the first that anybody tries: zxcvbn knows words alone.
_FAMOUS = re.compile(
    "|".join(
        sentence.replace(" ", "")
        for sentence in (  # a longer one before its beginning
            "correct horse battery staple",
            "a long time ago in a galaxy far far away",
            "all your base are belong to us",
            "do or do not there is no try",
            "elementary my dear watson",
            "four score and seven years ago",
            "happy birthday to you",
            "houston we have a problem",
            "i think therefore i am",
            "in the beginning was the word",
            "it was the best of times it was the worst of times",
            "live long and prosper",
            "lorem ipsum dolor sit amet consectetur adipiscing elit",
            "lorem ipsum dolor sit amet",
            "may the force be with you",
            "mary had a little lamb",
            "my voice is my passport verify me",
            "never gonna give you up",
            "never gonna let you down",
            "once upon a time",
            "one ring to rule them all",
            "our father who art in heaven",
            "supercalifragilisticexpialidocious",
            "the lord is my shepherd",
            "the quick brown fox jumps over the lazy dog",
            "there is no place like home",
            "this is my password",
            "this is not my password",
            "to be or not to be that is the question",
            "to be or not to be",
            "twinkle twinkle little star",
            "we the people of the united states",
            "what is the password",
            "you shall not pass",
        )
    )
)

# The marks that zxcvbn reads as letters, other than digits.
_MARKS = str.maketrans("@({[<!|$+%", "accccilstx")


def normalise(password: str) -> str:
    """The NFKC form, which is what is checked and hashed, when it is set and when it is tried.

    So a password typed on another keyboard or system is the same one. Spaces stay. ValueError for
    more than 256 code points, for U+0000 and for lone surrogates, which are no characters.
    """
    if len(password) > _LONGEST_INPUT:
        raise ValueError(_TOO_LONG)
    if "\0" in password or any("\ud800" <= letter <= "\udfff" for letter in password):
        raise ValueError("A password is made of characters; U+0000 and half characters are none.")
    normal = unicodedata.normalize("NFKC", password)
    if len(normal) > MAX_CODE_POINTS:
        raise ValueError(_TOO_LONG)
    return normal


def check(password: str, *, minimum: int, context: Sequence[str]) -> str | None:
    """Why a normalised password is refused, as a sentence, or None if it is taken.

    `minimum` is in code points. `context` is what is known about the person: e-mail address, name.
    CPU: at most some tens of milliseconds, so call it in a thread.
    """
    if len(password) < minimum:
        return f"A password has at least {minimum} characters; yours has {len(password)}."
    if len(password) > MAX_CODE_POINTS:
        return _TOO_LONG
    words = _context_words(context)
    if _is_made_of(password, words):
        return "This password is made of your name, your e-mail address or the product's name."
    if _is_famous(password) or _is_soon_guessed(password, words):
        return (
            "This password is too easy to guess: it is common, or repeats itself, or follows a "
            "pattern. Take several words that have nothing to do with each other."
        )
    return None


def _context_words(context: Iterable[str]) -> list[str]:
    """The words that are known about a person, whole and in parts, longest first."""
    words = {_PRODUCT}
    for known in list(context)[:_MAX_CONTEXT]:
        folded = unicodedata.normalize("NFKC", known[:256]).lower()
        parts = [folded, folded.partition("@")[0], *_WORDS.findall(folded)[:_MAX_CONTEXT]]
        words.update(part for part in parts if len(part) >= _SHORTEST_CONTEXT)
    return sorted(words, key=lambda word: (-len(word), word))


def _is_made_of(password: str, words: list[str]) -> bool:
    """Whether nothing but digits and marks is left when the words are taken out."""
    known = re.compile("|".join(map(re.escape, words)))
    rest, found = known.subn("", password.lower())
    return found > 0 and not _FILLING.sub("", rest)


def _is_famous(password: str) -> bool:
    """Whether it is a sentence that everybody knows, with digits and marks at most beside it."""
    letters = "".join(_WORDS.findall(password.casefold()))
    rest, found = _FAMOUS.subn("", letters)
    return found > 0 and not _FILLING.sub("", rest)


def _is_soon_guessed(password: str, words: list[str]) -> bool:
    # Without what joins the words too: who guesses `otterotterotter` guesses `otter otter otter`.
    joined = _JOINTS.sub("", password)
    tried = {password[:_ESTIMATED], joined[:_ESTIMATED]} - {""}
    return any(_guesses(each, words) < MIN_GUESSES for each in tried)


def _guesses(password: str, words: list[str]) -> float:
    """zxcvbn's estimate of how many guesses find the password."""
    # 45 ms of dictionaries, and only where a password is set.
    from zxcvbn import matching, scoring  # noqa: PLC0415

    # It tries every reading of every mark: `4@8({[<6!1|$5+7%2` took it 2 s. Where there are many,
    # marks are read as one letter each, which leaves the digits' few.
    readings = matching.relevant_l33t_subtable(password, matching.L33T_TABLE)
    if math.prod(map(len, readings.values())) > _MAX_SUBSTITUTIONS:
        password = password.translate(_MARKS)
    # Not through zxcvbn.zxcvbn(): that keeps the words in a global, where threads mix them up and
    # the last person's name stays.
    ranks = dict(matching.RANKED_DICTIONARIES)
    ranks["user_inputs"] = matching.build_ranked_dict(words)
    matches = matching.omnimatch(password, ranks)
    return float(scoring.most_guessable_match_sequence(password, matches)["guesses"])
