from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.field_policy import FieldPolicy, hash_key, hashed, policy_of, unpack_policy
from models.spec import load_spec
from models.spec_errors import SpecError

NAMES = st.frozensets(st.text(max_size=5), max_size=4)
SPEC = """
name = "s"
version = 1
{undeclared}
[fields.a]
type = "number"
store = "{store}"
[fields.{other}]
type = "number"
[[features]]
name = "a"
kind = "numeric"
field = "a"
"""


def policy(*recipes: tuple[str, str, str]) -> FieldPolicy:
    texts = [SPEC.format(undeclared=u, store=s, other=o) for u, s, o in recipes]
    return policy_of([load_spec(text.encode()) for text in texts])


@given(NAMES, NAMES, st.none() | NAMES)
def test_a_policy_comes_back_as_it_was(
    hashes: frozenset[str], dropped: frozenset[str], only: frozenset[str] | None
) -> None:
    one = FieldPolicy(hashes, dropped, only)
    assert unpack_policy(one.pack()) == one


@given(st.binary(max_size=30))
def test_whatever_the_bytes_there_is_a_policy_or_an_error(data: bytes) -> None:
    try:
        unpack_policy(data)
    except SpecError:
        return


def test_fields_are_kept_hashed_and_dropped() -> None:
    key = hash_key("secret")
    tx = {"a": 1, "b": 2, "other": [1], 7: "no name"}
    kept = policy(("", "keep", "b"))
    assert kept.apply(tx, b"") == {"a": 1, "b": 2, "other": [1]}  # type: ignore[arg-type]  # a hostile map
    hashes = policy(("", "hash", "b"))
    assert hashes.apply({"a": 1, "b": 2}, key) == {"a": hashed(1, key), "b": 2}
    assert hashes.apply({"a": None}, key) == {"a": None}
    assert hashes.apply({"a": 1, "b": 2}, b"") == {"b": 2}
    closed = policy(('undeclared = "drop"', "drop", "b"))
    assert closed.apply({"a": 1, "b": 2, "other": 3}, key) == {"b": 2}


def test_of_several_specs_the_strictest_word_counts() -> None:
    both = policy(("", "hash", "b"), ('undeclared = "drop"', "drop", "c"))
    assert both == FieldPolicy(frozenset(), frozenset({"a"}), frozenset({"a", "b", "c"}))


def test_equal_values_have_equal_hashes_under_one_key_alone() -> None:
    one, other = hash_key("x"), hash_key("y" * 100)
    assert hashed("4929", one) == hashed("4929", one)
    assert len({hashed("4929", one), hashed("4929", other), hashed(4929, one), hashed(4929.0, one)}) == 4
    assert len(hashed("4929", one)) == 32


def test_a_policy_of_no_names_is_none() -> None:
    import msgpack

    with pytest.raises(SpecError):
        unpack_policy(msgpack.packb([[1], [], None]))
