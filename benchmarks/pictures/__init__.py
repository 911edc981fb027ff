"""Pictures of what whoever is on call sees: `run.py top`, and the dashboards on a real Prometheus."""
