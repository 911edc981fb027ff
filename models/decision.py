"""Decision rules: from scores and fields to approve, review or decline, with reason codes.

Rules are expressions of the Common Expression Language (CEL), which has no loops here, no side effects and
no access to anything but what it is given: `tx`, the transaction's fields; `scores`, the models' outputs by
name; and `score`, the last of them. https://github.com/google/cel-spec
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.errors import DecisionError
from models.problems import problems

Outcome = Literal["approve", "review", "decline"]
_STRICT = ConfigDict(frozen=True, extra="forbid")

#: What a rule may name. A macro that loops brings a variable of its own, and so is refused.
_VARIABLES: Final = frozenset({"tx", "scores", "score"})
_FUNCTIONS: Final = frozenset(
    [
        "_+_",
        "_-_",
        "_*_",
        "_/_",
        "_%_",
        "-_",
        "!_",
        "_&&_",
        "_||_",
        "_?_:_",
        "_==_",
        "_!=_",
        "_<_",
        "_<=_",
        "_>_",
        "_>=_",
        "@in",
        "_[_]",
        "size",
        "contains",
        "startsWith",
        "endsWith",
        "matches",
        "int",
        "double",
        "string",
        "has",
        "timestamp",
        "duration",
        "getHours",
        "getDayOfWeek",
    ]
)
_MAX_LENGTH: Final = 1000
_MAX_NESTING: Final = 50
#: What of a transaction the rules see; anything deeper is not there for them.
_SCALARS: Final = (str, float, bool, type(None))
_INT64: Final = 1 << 63


class Rule(BaseModel):
    """A rule.

    Attributes:
        when: a CEL expression that gives true or false.
        decide: the outcome where it is true.
        reason: the code that is told then.
    """

    model_config = _STRICT
    when: Annotated[str, Field(min_length=1, max_length=_MAX_LENGTH)]
    decide: Outcome
    reason: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class Fallback(BaseModel):
    """What is answered where no score came before the caller's deadline.

    Attributes:
        decide: the outcome.
        reason: the code that is told.
    """

    model_config = _STRICT
    decide: Outcome
    reason: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")] = "fallback"


class DecisionFile(BaseModel):
    """Decision rules as a file has them.

    Attributes:
        name: what people call them.
        version: counts up.
        rules: asked in this order; the first that applies decides.
        default: the outcome where none applies.
        on_error: the outcome of a rule that cannot be evaluated for a transaction; its reason is the rule's,
            with `.error` behind it.
        fallback: answered, and marked as such, where no score came in time; without it that is an error.
    """

    model_config = _STRICT
    name: Annotated[str, Field(min_length=1, max_length=200)]
    version: Annotated[int, Field(ge=1)]
    rules: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=1000)]
    default: Outcome = "approve"
    on_error: Outcome = "review"
    fallback: Fallback | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided.

    Attributes:
        outcome: approve, review or decline.
        reasons: the codes of all rules that apply and give this outcome, in their order; empty by default.
        errors: how many rules could not be evaluated.
    """

    outcome: Outcome
    reasons: tuple[str, ...]
    errors: int


class DecisionRules:
    """Rules, compiled once. Threads may share them.

    Args:
        file: the rules.

    Raises:
        DecisionError: a rule is no expression, loops, or names what is not there.
    """

    def __init__(self, file: DecisionFile) -> None:
        # It loads a terminal's worth of modules, which only those need who decide.
        import cel  # noqa: PLC0415

        self.file = file
        self._context = cel.Context
        self._programs = [(_compile(rule), rule.decide, rule.reason) for rule in file.rules]
        named = [_fields_of(rule.when) for rule in file.rules]
        self._fields = (
            None if None in named else frozenset().union(*(one for one in named if one is not None))
        )

    @property
    def fields(self) -> frozenset[str] | None:
        """The fields of a transaction that the rules name; None where they may look at any."""
        return self._fields

    @property
    def fallback(self) -> Decision | None:
        """The decision where no score came in time; None where that is an error."""
        found = self.file.fallback
        return None if found is None else Decision(found.decide, (found.reason,), 0)

    def decide(self, scores: Mapping[str, float], transaction: Mapping[str, Any]) -> Decision:
        """Decide on one transaction; never raises, whatever the transaction holds.

        Args:
            scores: name of each output to its value.
            transaction: its fields; text, numbers, booleans and null are seen by the rules.
        """
        # Only what the rules name: to hand over a field costs more than to evaluate a rule.
        fields = transaction if self._fields is None else self._fields & transaction.keys()
        seen = {name: value for name in fields if (value := _seen(transaction[name])) is not _UNSEEN}
        context = self._context({"tx": seen, "scores": dict(scores), "score": list(scores.values())[-1]})
        outcome: Outcome | None = None
        reasons, errors = [], 0
        for program, decide, code in self._programs:
            gives, reason = decide, code
            try:
                applies = program.execute(context)
            except Exception:  # noqa: BLE001 - a missing field, another type: the library has many names
                applies = None
            if not isinstance(applies, bool):
                errors += 1
                applies, gives, reason = True, self.file.on_error, f"{code}.error"
            if applies:
                outcome = outcome or gives
                if gives == outcome:
                    reasons.append(reason)
        return Decision(outcome or self.file.default, tuple(reasons), errors)


def load_decision(path: Path | str) -> DecisionRules:
    """Read decision rules from a TOML file.

    Raises:
        DecisionError: names every key at fault, or the rule and what is wrong with it.
    """
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        file = DecisionFile.model_validate(document)
    except ValidationError as error:
        raise DecisionError(f"{path}: {problems(error)}") from error
    except (OSError, ValueError) as error:
        raise DecisionError(f"{path}: cannot be read: {error}") from error
    return DecisionRules(file)


def _compile(rule: Rule) -> Any:
    import cel  # noqa: PLC0415 - as above

    # The parser's own recursion is not bounded.
    if max(rule.when.count(opening) for opening in "([{!-") > _MAX_NESTING:
        raise DecisionError(f"rule {rule.reason}: it nests deeper than {_MAX_NESTING}")
    try:
        program = cel.compile(rule.when)
    except ValueError as error:
        why = " ".join(str(error).split())[:300]
        raise DecisionError(f"rule {rule.reason}: {why}") from error
    unknown = set(program.variables()) - _VARIABLES
    if unknown:
        raise DecisionError(
            f"rule {rule.reason}: {min(unknown)!r} is not there: {', '.join(sorted(_VARIABLES))} are, "
            "and a transaction's field is tx.NAME; loops are refused"
        )
    unknown = set(program.functions()) - _FUNCTIONS
    if unknown:
        raise DecisionError(f"rule {rule.reason}: the function {min(unknown)!r} is not allowed")
    return program


def _fields_of(when: str) -> frozenset[str] | None:
    """Return the fields that a rule names, as tx.NAME or tx['NAME']; None where it may look at any."""
    rest = _FIELD.sub("", when)
    if re.search(r"\btx\b", rest):
        return None
    return frozenset(plain or quoted for plain, quoted in _FIELD.findall(when))


#: A field that is named in a rule.
_FIELD: Final = re.compile(r"""\btx\s*(?:\.\s*([A-Za-z_]\w*)(?!\w*\s*\()|\[\s*['"]([^'"\\]*)['"]\s*\])""")
_UNSEEN: Final = object()


def _seen(value: Any) -> Any:
    """Return a field as the rules see it, or _UNSEEN."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if -_INT64 <= value < _INT64 else float(value)
    return value if isinstance(value, _SCALARS) else _UNSEEN
