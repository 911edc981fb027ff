"""Imports a fitted scikit-learn pipeline: its transformers become a feature spec, its model a bundle.

The columns of a data frame are followed through the transformers (`draft.py` holds what they have become,
`scalers.py`, `encoders.py`, `imputers.py` and `others.py` know the transformers, `walk.py` their order). What
comes out is compared with scikit-learn's own output on random and hostile rows (`rows.py`, `pipeline.py`).
"""

from models.importers.pipelines.pipeline import ImportedPipeline, import_pipeline, is_pipeline

__all__ = ["ImportedPipeline", "import_pipeline", "is_pipeline"]
