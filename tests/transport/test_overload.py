"""Overload, in a model that makes it the same on any machine: what is answered, how soon, and whose."""

from __future__ import annotations

import pytest

from tests.transport.service_model import Costs, Model

#: Requests that one core does in a second at the best, with large batches.
CAPACITY = 1 / (4e-6 + 50e-6 + 15e-6 + 33e-6)


def after(costs: Costs, *rates: float, deadline_s: float = 0.1) -> Model:
    """Return a model that has run for long enough to be used to the load, and then for a second."""
    model = Model(costs, *rates, deadline_s=deadline_s)
    model.run(2.5)
    model.run(1.0)
    return model


@pytest.mark.parametrize("load", [1.5, 3, 6])
def test_beyond_its_capacity_a_node_goes_on_doing_what_it_can_and_what_it_takes_is_soon_done(
    load: float,
) -> None:
    (caller,) = after(Costs(), load * CAPACITY).callers
    assert caller.good > 0.8 * CAPACITY
    assert caller.late == 0
    assert caller.p99() < 0.008
    assert abs(caller.offered - caller.good - caller.refused) < 200


def test_below_its_capacity_nothing_is_refused_and_so_it_is_again_after_an_overload() -> None:
    model = Model(Costs(), 0.75 * CAPACITY)
    (caller,) = model.callers
    for load, settle_s in ((0.75, 0.0), (4.0, 1.0), (0.75, 2.0)):
        caller.rate = load * CAPACITY
        model.run(settle_s)
        model.run(1.0)
        assert (caller.refused > 0) is (load > 1)
    assert caller.good > 0.7 * CAPACITY


def test_a_greedy_caller_gets_no_more_than_a_modest_one_wherever_it_is_full() -> None:
    for costs in (Costs(), Costs(shared=False, score=300e-6)):
        capacity = CAPACITY if costs.shared else 1 / costs.score
        greedy, modest = after(costs, 3 * capacity, 0.3 * capacity).callers
        assert modest.good > 0.8 * modest.offered
        assert greedy.good > 0.4 * capacity


@pytest.mark.parametrize(
    ("costs", "capacity"),
    [
        # A scorer with a core of its own; one that is slow; a reply that is long on its way; large batches.
        (Costs(shared=False), 1 / (4e-6 + 50e-6 + 15e-6)),
        (Costs(shared=False, score=1e-3), 1e3),
        (Costs(shared=False, way=0.02), 1 / (4e-6 + 50e-6 + 15e-6)),
        (Costs(shared=False, batch=0.02, score=1e-4), 3000),
    ],
)
def test_whatever_holds_it_up_behind_a_node_it_is_kept_busy(costs: Costs, capacity: float) -> None:
    for load in (0.7, 3):
        (caller,) = after(costs, load * capacity, deadline_s=0.2).callers
        assert caller.good > 0.85 * min(load, 1.0) * capacity
        assert caller.late < 0.1 * caller.good
