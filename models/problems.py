"""Tells what pydantic found wrong with something from outside: every key at fault, in one line."""

from __future__ import annotations

from pydantic import ValidationError


def problems(error: ValidationError, whole: str = "") -> str:
    """Return each key at fault with its rule, separated by semicolons.

    Args:
        error: what was found.
        whole: what to call the thing itself, where no single key is at fault.
    """
    return "; ".join(f"{'.'.join(map(str, one['loc'])) or whole}: {one['msg']}" for one in error.errors())
