"""The roles of this room's nodes."""

from __future__ import annotations

from typing import Final

from actors.roles import Roles

#: Role to what runs it.
SHADOW_ROLES: Final[Roles] = {}
