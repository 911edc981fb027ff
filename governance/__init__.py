"""What Postgres holds: artifacts, environments, releases, membership; and the watcher that re-reads it."""
