"""Pure computation: bundles, the forest kernel, importers and feature specs."""
