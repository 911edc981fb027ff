"""Stages that are code: a worker process for each, with limits, time budgets and successors."""
