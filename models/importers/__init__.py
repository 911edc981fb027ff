"""Importers: from a trained model to a bundle, exactly or not at all."""

from models.importers.importer import import_model

__all__ = ["import_model"]
