"""Loading: from the digests of a pipeline to what evaluates transactions, all of it verified and checked."""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from weakref import WeakValueDictionary

from actors.checks import check_fit, check_latency, check_memory, check_outputs
from actors.config import Settings
from actors.evaluation import FEATURES, Evaluator, NamedModel, outputs_of
from governance.artifacts import split_stage
from governance.cache import ArtifactCache
from governance.database import Connection
from governance.signing import check_signed
from models.bundle import open_bundle
from models.decision import load_decision
from models.forest import Forest
from models.spec import FeatureSpec, load_spec

logger = logging.getLogger(__name__)


class PipelineLoader:
    """Makes pipelines ready for use. A model that several of them share is mapped, checked and warmed once.

    Args:
        cache: the directory of this host's artifacts.
        settings: how models are mapped, how much memory they may take, which keys are trusted.
    """

    def __init__(self, cache: Path, settings: Settings) -> None:
        self._cache = ArtifactCache(cache)
        self._settings = settings.scorer
        self._trusted = settings.trusted
        # Held by whoever evaluates with them: what nobody holds any more counts against no budget.
        self._forests: WeakValueDictionary[str, Forest] = WeakValueDictionary()

    def load(
        self,
        connection: Connection,
        stages: Mapping[str, str],
        *,
        only: Container[str] | None = None,
        latency_us: float | None = None,
    ) -> Evaluator:
        """Fetch, verify, check and warm what a pipeline needs.

        Args:
            connection: to the database.
            stages: stage to digest, of the whole pipeline: all of it must be signed where keys are trusted.
            only: the stages to load; None for all. Of a model that is left out, its name is known alone.
            latency_us: what the median row of all models together may take; None for no limit.

        Raises:
            SignatureError, CacheError, UnknownArtifactError: an artifact cannot be had, or not be trusted.
            ModelError: an artifact is not what it says.
            PipelineMismatchError, MemoryBudgetError, LatencyError: the pipeline cannot be used here.
            psycopg.OperationalError: the database is away.
        """
        if self._trusted:
            for digest in stages.values():
                check_signed(connection, digest, self._trusted)
        wanted = {stage: digest for stage, digest in stages.items() if only is None or stage in only}
        specs: dict[str, FeatureSpec] = {}
        forests: dict[str, Forest] = {}
        rules = None
        for stage, digest in wanted.items():
            base, name = split_stage(stage)
            if base == "features":
                specs[stage] = spec = load_spec(self._cache.fetch(connection, digest))
                spec.check_golden()
            elif base == "model":
                forests[name] = self._forest(connection, digest)
            else:
                rules = load_decision(self._cache.fetch(connection, digest))
        models = _models(stages, forests)
        _check(specs, models, latency_us)
        return Evaluator(specs, models, rules)

    def _forest(self, connection: Connection, digest: str) -> Forest:
        known = self._forests.get(digest)
        if known is not None:
            return known
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


def _models(stages: Iterable[str], forests: Mapping[str, Forest]) -> tuple[NamedModel, ...]:
    """Return the models of a pipeline, in the order of their names and the one without a name last."""
    names = sorted(name for base, name in map(split_stage, stages) if base == "model" and name)
    found = []
    for name in (*names, ""):
        own, forest = f"{FEATURES}:{name}", forests.get(name)
        outputs = outputs_of(name, forest.bundle.meta.outputs) if forest else ()
        found.append(NamedModel(name, own if own in stages else FEATURES, forest, outputs))
    return tuple(found)


def _check(
    specs: Mapping[str, FeatureSpec], models: tuple[NamedModel, ...], latency_us: float | None
) -> None:
    forests = [model.forest for model in models if model.forest is not None]
    for model in models:
        if model.forest is not None and model.features in specs:
            check_fit(specs[model.features], model.forest)
    check_outputs(models)
    if forests:
        logger.info("a row takes %.1f us here", check_latency(forests, latency_us))
