"""What a promotion makes of an environment's slots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from governance.artifacts import NEEDED_STAGES, find_for_stage, kind_of_stage, split_stage
from governance.database import Connection
from governance.errors import PromotionRefusedError, UnknownArtifactError
from governance.releases import current_release

#: Stage to digest; to None where it is dropped.
Stages = Mapping[str, str | None]


@dataclass(frozen=True)
class Change:
    """What a promotion makes of one slot of an environment.

    Attributes:
        environment: where.
        slot: which slot.
        held: stage to digest, as the slot is now; empty where it holds nothing yet.
        pipeline: stage to digest, as it would be.
    """

    environment: str
    slot: str
    held: Mapping[str, str]
    pipeline: Mapping[str, str]

    @property
    def changed(self) -> dict[str, str | None]:
        """Stage to digest, of what becomes different; to None for what is dropped."""
        both = {**dict.fromkeys(self.held), **self.pipeline}
        return {stage: digest for stage, digest in both.items() if self.held.get(stage) != digest}


def resolve(connection: Connection, stages: Stages) -> dict[str, str | None]:
    """Find the artifacts that were named for stages.

    Raises:
        PromotionRefusedError: an unknown stage, or nothing of its kind that fits.
    """
    found: dict[str, str | None] = {}
    for stage, wanted in stages.items():
        kind_of_stage(stage)  # a stage that there is not is refused even where nothing is to stand for it
        try:
            found[stage] = find_for_stage(connection, wanted, stage).digest if wanted is not None else None
        except UnknownArtifactError as error:
            raise PromotionRefusedError(f"stage {stage}: {error}") from error
    return found


def refuse_retired(connection: Connection, stages: Stages) -> None:
    """Refuse artifacts that are retired.

    Raises:
        PromotionRefusedError: names one, with who retired it and why.
    """
    row = connection.execute(
        "SELECT r.*, a.name FROM retirement r JOIN artifact a USING (digest) WHERE digest = ANY (%s) LIMIT 1",
        ([digest for digest in stages.values() if digest],),
    ).fetchone()
    if row:
        raise PromotionRefusedError(
            f"{row['name']} {row['digest'][:12]} was retired by {row['retired_by']}: {row['reason']}"
        )


def change_of(connection: Connection, environment: str, slot: str, stages: Stages) -> Change:
    """Return what a slot is and would be.

    Raises:
        PromotionRefusedError: it would be no pipeline.
    """
    held = _held(connection, environment).get(slot, {})
    where = f"slot {slot} of {environment}"
    return Change(environment, slot, held, _pipeline(held, stages, where))


def slots_of(connection: Connection, change: Change) -> dict[str, dict[str, str]]:
    """Return what all slots would hold: the other ones stay as they are."""
    return {**_held(connection, change.environment), change.slot: dict(change.pipeline)}


def _held(connection: Connection, environment: str) -> dict[str, dict[str, str]]:
    base = current_release(connection, environment)
    return {name: dict(pipeline.stages) for name, pipeline in base.slots.items()} if base else {}


def _pipeline(held: Mapping[str, str], stages: Stages, where: str) -> dict[str, str]:
    """Return what a slot would hold. Features of a score go with the model that takes them."""
    for stage, digest in stages.items():
        if digest is None and stage not in held:
            raise PromotionRefusedError(f"{where} has no stage {stage} to drop: see `run.py releases`")
    found = {stage: digest for stage, digest in {**held, **stages}.items() if digest is not None}
    for stage in list(found):
        base, name = split_stage(stage)
        if base == "features" and name and f"model:{name}" not in found:
            if stages.get(stage):
                raise PromotionRefusedError(
                    f"{where} would have {stage}, and no model:{name} that takes them"
                )
            del found[stage]
    missing = [stage for stage in NEEDED_STAGES if stage not in found]
    if missing:
        raise PromotionRefusedError(f"{where} would have nothing for {', '.join(missing)}: name it as well")
    return found
