"""Loading: from the digests of a pipeline to what evaluates transactions, all of it verified and checked."""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from actors.checks import check_fit, check_latency, check_memory, check_outputs
from actors.code.prepare import open_stage, warm_up
from actors.code.stage import CodeStage
from actors.code.stages import CodeFeatures, CodeModel, CodePart, make_part
from actors.config import Settings
from actors.evaluation import FEATURES, Evaluator, Features, Model, NamedModel, Rules, outputs_of
from governance.artifacts import code_among, split_stage
from governance.cache import ArtifactCache
from governance.database import Connection
from governance.errors import SignatureError
from governance.signing import check_signed
from models.code.package import open_package
from models.decision import load_decision
from models.spec import load_spec

if TYPE_CHECKING:
    from models.forest import Forest

logger = logging.getLogger(__name__)


class PipelineLoader:
    """Makes pipelines ready for use. A model that several of them share is mapped, checked and warmed once.

    Args:
        cache: the directory of this host's artifacts.
        settings: how models are mapped, how much memory they may take, which keys are trusted.
        actors: how many actors of this process will call code, each with workers of its own.
    """

    def __init__(self, cache: Path, settings: Settings, actors: int = 1) -> None:
        self._actors = actors
        self._cache = ArtifactCache(cache)
        self._installed = cache / "code"
        self._settings = settings.scorer
        self._code_settings = settings.code
        self._trusted = settings.trusted
        self._unsigned_code = settings.allow_unsigned_code
        # Held by whoever evaluates with them: what nobody holds any more counts against no budget.
        self._forests: WeakValueDictionary[str, Forest] = WeakValueDictionary()
        self._code: WeakValueDictionary[str, CodeStage] = WeakValueDictionary()

    def load(
        self,
        connection: Connection,
        stages: Mapping[str, str],
        *,
        only: Container[str] | None = None,
        run: Container[str] | None = None,
        latency_us: float | None = None,
    ) -> Evaluator:
        """Fetch, verify, check and warm what a pipeline needs.

        Args:
            connection: to the database.
            stages: stage to digest, of the whole pipeline: all of it must be signed where keys are trusted.
            only: the stages to load; None for all. Of a model that is left out, its name is known alone.
            run: the stages whose code this process runs; None for all that are loaded.
            latency_us: what the median row of all models together may take; None for no limit.

        Raises:
            SignatureError, CacheError, UnknownArtifactError: an artifact cannot be had, or not be trusted.
            ModelError: an artifact is not what it says.
            PipelineMismatchError, MemoryBudgetError, LatencyError, CodeStartError: it cannot be used here.
            psycopg.OperationalError: the database is away.
        """
        code = code_among(connection, stages.values())
        self._check_trust(connection, stages, code)
        wanted = {stage: digest for stage, digest in stages.items() if only is None or stage in only}
        specs: dict[str, Features] = {}
        forests: dict[str, Model] = {}
        rules: Rules | None = None
        for stage, digest in wanted.items():
            base, name = split_stage(stage)
            if digest in code:
                part = self._code_part(connection, digest, runs=run is None or stage in run)
                if isinstance(part, CodeFeatures):
                    specs[stage] = part
                elif isinstance(part, CodeModel):
                    forests[name] = part
                else:
                    rules = part
            elif base == "features":
                specs[stage] = spec = load_spec(self._cache.fetch(connection, digest))
                spec.check_golden()
            elif base == "model":
                forests[name] = self._forest(connection, digest)
            else:
                rules = load_decision(self._cache.fetch(connection, digest))
        models = _models(stages, forests)
        _check(specs, models, latency_us)
        return Evaluator(specs, models, rules)

    def _check_trust(self, connection: Connection, stages: Mapping[str, str], code: Container[str]) -> None:
        if self._trusted:
            for digest in stages.values():
                check_signed(connection, digest, self._trusted)
            return
        for stage, digest in stages.items():
            if digest in code and not self._unsigned_code:
                raise SignatureError(
                    f"stage {stage} is code ({digest[:12]}), and this node trusts no keys that could have "
                    "signed it: name some under [trusted_keys], or set allow_unsigned_code = true"
                )

    def _code_part(self, connection: Connection, digest: str, *, runs: bool) -> CodePart:
        path = self._cache.fetch(connection, digest)
        if not runs:
            return make_part(open_package(path), None)
        settings = self._code_settings
        stage = self._code.get(digest)
        if stage is None:
            stage = open_stage(path, digest, self._installed, settings.limits)
            warm_up(stage, self._actors * (settings.workers + settings.spares))
            self._code[digest] = stage
        return make_part(stage.package, stage)

    def _forest(self, connection: Connection, digest: str) -> Forest:
        known = self._forests.get(digest)
        if known is not None:
            return known
        # The kernel takes half a second to load and 100 MB: only those who score have it.
        from models.bundle import open_bundle  # noqa: PLC0415
        from models.forest import Forest  # noqa: PLC0415

        # The cache has verified the digest in this very read; the structure is checked here.
        path = self._cache.fetch(connection, digest)
        held = (forest.bundle.size for forest in self._forests.values())
        check_memory(held, path.stat().st_size, self._settings.models_bytes)
        forest = Forest(open_bundle(path, pages=self._settings.pages))
        forest.check_golden()
        forest.warm()
        huge, size = forest.bundle.huge, forest.bundle.size
        logger.info(
            "model %s is mapped (%s): %d of %d bytes in huge pages", digest, self._settings.pages, huge, size
        )
        self._forests[digest] = forest
        return forest


def _models(stages: Iterable[str], forests: Mapping[str, Model]) -> tuple[NamedModel, ...]:
    """Return the models of a pipeline, in the order of their names and the one without a name last."""
    names = sorted(name for base, name in map(split_stage, stages) if base == "model" and name)
    found = []
    for name in (*names, ""):
        own, forest = f"{FEATURES}:{name}", forests.get(name)
        outputs = outputs_of(name, _outputs(forest)) if forest else ()
        found.append(NamedModel(name, own if own in stages else FEATURES, forest, outputs))
    return tuple(found)


def _outputs(model: Model) -> Iterable[str]:
    return model.outputs if isinstance(model, CodeModel) else model.bundle.meta.outputs


def _check(specs: Mapping[str, Features], models: tuple[NamedModel, ...], latency_us: float | None) -> None:
    forests = [model.forest for model in models if model.forest is not None]
    for model in models:
        if model.forest is not None and model.features in specs:
            check_fit(specs[model.features], model.forest)
    check_outputs(models)
    if forests:
        logger.info("a row takes %.1f us here", check_latency(forests, latency_us))
    for forest in forests:
        if isinstance(forest, CodeModel):
            forest.rest()
