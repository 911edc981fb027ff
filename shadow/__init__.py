"""The shadow pipeline: tee, shadow nodes, comparison and report (its first parts come with the tee)."""
