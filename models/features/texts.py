"""Kinds of texts: length, characters, parts, patterns, e-mail, likeness of two, whether one looks random."""

from __future__ import annotations

import fnmatch
import math
import re
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from models.features.kind import NAN, TEXTS, Elementwise, Type

_TEXT: tuple[frozenset[Type], ...] = (TEXTS,)


class Length(Elementwise):
    """How many characters (code points) a text has."""

    kind: Literal["length"]
    takes: ClassVar[tuple[frozenset[Type], ...]] = _TEXT

    def function(self) -> Callable[[str | None], float]:
        """Count."""
        return lambda text: NAN if text is None else float(len(text))


_CLASSES: dict[str, Callable[[str], bool]] = {
    "digits": str.isdigit,
    "letters": str.isalpha,
    "upper": str.isupper,
    "spaces": str.isspace,
    "other": lambda character: not (character.isalnum() or character.isspace()),
    "not_ascii": lambda character: not character.isascii(),
}


class Share(Elementwise):
    """The share of a text's characters that are of a class; 0 of an empty text."""

    kind: Literal["share"]
    takes: ClassVar[tuple[frozenset[Type], ...]] = _TEXT
    of: Literal["digits", "letters", "upper", "spaces", "other", "not_ascii"]

    def function(self) -> Callable[[str | None], float]:
        """Count the class."""
        belongs = _CLASSES[self.of]

        def share(text: str | None) -> float:
            if text is None:
                return NAN
            return sum(map(belongs, text)) / len(text) if text else 0.0

        return share


class Entropy(Elementwise):
    """Shannon's entropy of a text's characters, in bits a character; 0 of an empty text."""

    kind: Literal["entropy"]
    takes: ClassVar[tuple[frozenset[Type], ...]] = _TEXT

    def function(self) -> Callable[[str | None], float]:
        """Count the characters."""
        return _entropy


def _entropy(text: str | None) -> float:
    if text is None:
        return NAN
    size = len(text)
    return math.fsum(-count / size * math.log2(count / size) for count in Counter(text).values()) + 0.0


class Matches(Elementwise):
    """1 where a whole text fits one of some patterns: `*` is anything, `?` one character, `[ab]` a choice.

    No regular expression: one with nested repetitions takes minutes on a text that is made for it.
    """

    kind: Literal["matches"]
    takes: ClassVar[tuple[frozenset[Type], ...]] = _TEXT
    patterns: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(min_length=1, max_length=1000)
    ]

    def function(self) -> Callable[[str | None], float]:
        """Translate the patterns once; the translation never goes back behind a `*`."""
        fits = re.compile("|".join(f"(?:{fnmatch.translate(pattern)})" for pattern in self.patterns)).match

        def matches(text: str | None) -> float:
            if text is None:
                return NAN
            return 1.0 if fits(text) else 0.0

        return matches


class Part(Elementwise):
    """A text made of a text: lower case, without spaces around it, or some of its characters."""

    kind: Literal["lower", "strip", "slice", "email_domain", "email_name"]
    takes: ClassVar[tuple[frozenset[Type], ...]] = _TEXT
    makes: ClassVar[Type] = "text"
    start: int | None = None
    stop: int | None = None

    def function(self) -> Callable[[Any], str | None]:
        """Make it; missing where there is no such part."""
        if self.kind == "slice":
            start, stop = self.start, self.stop
            return lambda text: None if text is None else text[start:stop]
        return _PARTS[self.kind]


class Fill(Elementwise):
    """The text, or another where it is missing or one of some that stand for missing (`old`)."""

    kind: Literal["fill"]
    takes: ClassVar[tuple[frozenset[Type], ...]] = _TEXT
    makes: ClassVar[Type] = "text"
    value: str
    old: tuple[str, ...] = ()

    def function(self) -> Callable[[str | None], str]:
        """Replace it."""
        value, gone = self.value, frozenset((None, *self.old))
        return lambda text: value if text in gone else text  # type: ignore[return-value]  # None is gone


def _email_domain(text: str | None) -> str | None:
    return (text.rpartition("@")[2].strip().lower() or None) if text is not None and "@" in text else None


def _email_name(text: str | None) -> str | None:
    """Return what stands before the @, without a tag after +."""
    if text is None or "@" not in text:
        return None
    return text.rpartition("@")[0].partition("+")[0].strip().lower() or None


_PARTS: dict[str, Callable[[Any], str | None]] = {
    "lower": lambda text: None if text is None else text.lower(),
    "strip": lambda text: None if text is None else text.strip(),
    "email_domain": _email_domain,
    "email_name": _email_name,
}


class LooksRandom(Elementwise):
    """How much a name looks thrown together, from 0 to 1.

    The share of its characters that stand in a run of four or more consonants, in a run of four or more
    digits, or in digits between letters: `xkjq7r2f` is near 1, `mary.smith` is 0.
    """

    kind: Literal["looks_random"]
    takes: ClassVar[tuple[frozenset[Type], ...]] = _TEXT

    def function(self) -> Callable[[str | None], float]:
        """Find the runs."""
        return _looks_random


_RUNS = re.compile(r"[bcdfghjklmnpqrstvwxz]{4,}|[0-9]{4,}|(?<=[a-z])[0-9]{1,3}(?=[a-z])")


def _looks_random(text: str | None) -> float:
    if text is None:
        return NAN
    return sum(map(len, _RUNS.findall(text.lower()))) / len(text) if text else 0.0


class Similarity(Elementwise):
    """How alike two texts are, from 0 to 1.

    By `bigrams`: Dice's coefficient of the sets of neighbouring characters. By `edits`: 1 less Levenshtein's
    distance by the longer length, of the first 256 characters of each.
    """

    kind: Literal["similarity"]
    takes: ClassVar[tuple[frozenset[Type], ...]] = (TEXTS, TEXTS)
    measure: Literal["bigrams", "edits"] = "bigrams"

    def function(self) -> Callable[[str | None, str | None], float]:
        """Compare."""
        return _bigrams if self.measure == "bigrams" else _edits


def _bigrams(left: str | None, right: str | None) -> float:
    if left is None or right is None:
        return NAN
    if left == right:
        return 1.0
    ours = {left[i : i + 2] for i in range(len(left) - 1)}
    theirs = {right[i : i + 2] for i in range(len(right) - 1)}
    total = len(ours) + len(theirs)
    return 2.0 * len(ours & theirs) / total if total else 0.0


_COMPARED = 256


def _edits(left: str | None, right: str | None) -> float:
    if left is None or right is None:
        return NAN
    left, right = left[:_COMPARED], right[:_COMPARED]
    longer = max(len(left), len(right))
    return 1.0 - _distance(left, right) / longer if longer else 1.0


def _distance(left: str, right: str) -> int:
    """Return Levenshtein's distance by bits (Myers 1999, in the form of Hyyro 2003)."""
    if not left:
        return len(right)
    size = len(left)
    mask, last, distance = (1 << size) - 1, 1 << (size - 1), size
    places: dict[str, int] = {}
    for place, character in enumerate(left):
        places[character] = places.get(character, 0) | 1 << place
    plus, minus = mask, 0
    for character in right:
        equal = places.get(character, 0)
        diagonal = (((equal & plus) + plus) ^ plus) | equal | minus
        across_plus = minus | (~(diagonal | plus) & mask)
        across_minus = plus & diagonal
        if across_plus & last:
            distance += 1
        elif across_minus & last:
            distance -= 1
        across_plus = (across_plus << 1 | 1) & mask
        plus = (across_minus << 1 & mask) | (~(diagonal | across_plus) & mask)
        minus = across_plus & diagonal
    return distance
