"""A simulator of timestamped card payments, with fraud in it.

    python -m examples.card_payments --n 1000 --out payments.jsonl [--labels labels.csv]

The method is that of the transaction simulator in "Reproducible Machine Learning for Credit Card Fraud
Detection - Practical Handbook" (Le Borgne, Siblini, Lebichot, Bontempi; Universite Libre de Bruxelles,
2022): customers and terminals live on a map of 100 x 100; a customer pays at terminals nearby, some times a
day, around noon, amounts around its own mean. Its three patterns of fraud are here:

1. an amount over 220 is fraud (a pattern so plain that it shows whether a model works at all);
2. some terminals are compromised for 28 days, and all payments there are fraud;
3. some customers' cards leak for 14 days, and a third of their payments is fraud, five times as dear.

A fourth is ours: a stolen card is tested by night with a burst of small payments online. And a fifth, which
starts on a day that is asked for, so that a model that was trained before does not know it: skimmed cards
are emptied by day in quick bursts of contactless payments just below the amount that asks for no PIN.

The aggregates of the handbook (a customer's payments and mean amount over 1, 7 and 30 days, a terminal's
payments and share of fraud, known only after 7 days) are fields of each payment here: whoever sends a
payment to be scored has counted them. This module is an example, and no model of real fraud.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: The feature spec of these payments.
PAYMENT_SPEC = Path(__file__).with_name("card_payments.toml")

DAY_S = 86_400
CUSTOMERS, TERMINALS = 600, 1_200
RADIUS = 8.0
LIMIT = 220.0
TERMINAL_DAYS, LEAK_DAYS = 28, 14
#: Per day: terminals that become compromised, cards that leak, cards that are tested by night.
NEW_TERMINALS, NEW_LEAKS, NEW_TESTS = 0.35, 0.8, 0.5
#: Per day of the second pattern: cards that are emptied; between which amounts, without a PIN.
NEW_SKIMS, NO_PIN = 5.0, (38.0, 49.99)
WINDOWS_DAYS = (1, 7, 30)
#: Days until it is known whether a payment was fraud.
DELAY_DAYS = 7
COUNTRIES = ("BE", "FR", "NL", "DE", "LU")
STREAM_START = "2026-07-01"

Payment = dict[str, Any]


@dataclass
class _Windows:
    """Sums over the last days of one customer or terminal, kept up as payments come."""

    entries: dict[int, deque[tuple[float, float]]] = field(default_factory=lambda: defaultdict(deque))
    sums: dict[int, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, when: float, value: float) -> None:
        for days in WINDOWS_DAYS:
            self.entries[days].append((when, value))
            self.sums[days] += value

    def read(self, now: float, days: int) -> tuple[int, float]:
        """Return how many entries the last days had, and their mean (0 for none)."""
        entries = self.entries[days]
        while entries and entries[0][0] <= now - days * DAY_S:
            self.sums[days] -= entries.popleft()[1]
        return len(entries), (self.sums[days] / len(entries) if entries else 0.0)


class _History:
    """What is known of customers and terminals when a payment comes."""

    def __init__(self) -> None:
        self._amounts: dict[int, _Windows] = defaultdict(_Windows)
        self._last: dict[int, float] = {}
        self._visits: dict[int, _Windows] = defaultdict(_Windows)
        self._known: dict[int, _Windows] = defaultdict(_Windows)
        self._unknown: dict[int, deque[tuple[float, float]]] = defaultdict(deque)

    def enrich(self, payment: Payment, now: float, *, fraud: bool) -> Payment:
        """Add what was known before this payment, then take it in."""
        customer, terminal, amount = payment["customer_id"], payment["terminal_id"], payment["amount"]
        unknown = self._unknown[terminal]
        while unknown and unknown[0][0] <= now - DELAY_DAYS * DAY_S:
            when, was_fraud = unknown.popleft()
            self._known[terminal].add(when + DELAY_DAYS * DAY_S, was_fraud)
        for days in WINDOWS_DAYS:
            count, mean = self._amounts[customer].read(now, days)
            payment[f"customer_count_{days}d"] = count
            payment[f"customer_mean_{days}d"] = round(mean, 2)
            payment[f"terminal_count_{days}d"] = self._visits[terminal].read(now, days)[0]
            payment[f"terminal_risk_{days}d"] = round(self._known[terminal].read(now, days)[1], 4)
        last = self._last.get(customer)
        payment["seconds_since_last"] = None if last is None else round(now - last, 1)
        self._amounts[customer].add(now, amount)
        self._visits[terminal].add(now, amount)
        unknown.append((now, float(fraud)))
        self._last[customer] = now
        return payment


class _World:
    """Customers, terminals, and the fraud among them.

    Args:
        seed: the same one gives the same world.
        second_from: the day from which cards are skimmed, too; None for never.
    """

    def __init__(self, seed: int, second_from: int | None = None) -> None:
        self.second_from = second_from
        self.random = np.random.default_rng(seed)
        random = self.random
        self.means = random.uniform(5, 100, CUSTOMERS)
        self.rates = random.uniform(0, 4, CUSTOMERS)
        self.countries = random.integers(0, len(COUNTRIES), CUSTOMERS)
        homes = random.uniform(0, 100, (CUSTOMERS, 2))
        places = random.uniform(0, 100, (TERMINALS, 2))
        near = [np.flatnonzero(((places - home) ** 2).sum(1) < RADIUS**2) for home in homes]
        self.near = [found if found.size else random.integers(0, TERMINALS, 1) for found in near]
        self.bad_terminals: dict[int, int] = {}
        self.leaked: dict[int, int] = {}

    def day(self, day: int) -> list[tuple[float, Payment, bool]]:
        """Return a day's payments with their second and whether each is fraud, in order of time."""
        self._new_fraud(day)
        random = self.random
        payments: list[tuple[float, Payment, bool]] = []
        for customer in np.repeat(np.arange(CUSTOMERS), random.poisson(self.rates)).tolist():
            second = random.normal(DAY_S / 2, 20_000)
            if 0 < second < DAY_S:
                payments.append(self._pay(customer, day, second))
        for customer in random.integers(0, CUSTOMERS, random.poisson(NEW_TESTS)).tolist():
            payments += self._test_card(customer, day)
        if self.second_from is not None and day >= self.second_from:
            for customer in random.integers(0, CUSTOMERS, random.poisson(NEW_SKIMS)).tolist():
                payments += self._empty_card(customer, day)
        return sorted(payments, key=lambda entry: entry[0])

    def _new_fraud(self, day: int) -> None:
        for number, rate, until, compromised in (
            (TERMINALS, NEW_TERMINALS, day + TERMINAL_DAYS, self.bad_terminals),
            (CUSTOMERS, NEW_LEAKS, day + LEAK_DAYS, self.leaked),
        ):
            for one in self.random.integers(0, number, self.random.poisson(rate)).tolist():
                compromised[one] = until

    def _pay(self, customer: int, day: int, second: float) -> tuple[float, Payment, bool]:
        random = self.random
        mean = self.means[customer]
        amount = random.normal(mean, mean / 2)
        if amount < 0:
            amount = random.uniform(0, 2 * mean)
        terminal = int(random.choice(self.near[customer]))
        online = random.random() < 0.3
        fraud = self.bad_terminals.get(terminal, 0) > day
        if self.leaked.get(customer, 0) > day and random.random() < 1 / 3:
            amount, fraud, online = amount * 5, True, True
        channel = "online" if online else ("contactless" if amount < 50 else "chip")
        return (
            day * DAY_S + second,
            self._payment(customer, terminal, amount, channel),
            fraud or amount > LIMIT,
        )

    def _test_card(self, customer: int, day: int) -> list[tuple[float, Payment, bool]]:
        random = self.random
        seconds = random.uniform(1, 4) * 3600 + np.cumsum(random.exponential(40, random.integers(3, 9)))
        return [
            (
                day * DAY_S + second,
                self._payment(customer, int(random.integers(0, TERMINALS)), random.uniform(0.5, 5), "online"),
                True,
            )
            for second in seconds.tolist()
        ]

    def _empty_card(self, customer: int, day: int) -> list[tuple[float, Payment, bool]]:
        random = self.random
        seconds = random.uniform(9, 20) * 3600 + np.cumsum(random.exponential(90, random.integers(4, 10)))
        # Far from where the customer lives, at one counter after another.
        terminals = random.integers(0, TERMINALS, len(seconds)).tolist()
        amounts = random.uniform(*NO_PIN, len(seconds)).tolist()
        return [
            (day * DAY_S + second, self._payment(customer, terminal, amount, "contactless"), True)
            for second, terminal, amount in zip(seconds.tolist(), terminals, amounts, strict=True)
        ]

    def _payment(self, customer: int, terminal: int, amount: float, channel: str) -> Payment:
        return {
            "customer_id": customer,
            "terminal_id": terminal,
            "amount": round(float(amount), 2),
            "channel": channel,
            "country": COUNTRIES[self.countries[customer]],
        }


def _run(seed: int, start: str, second_from: int | None = None) -> Iterator[tuple[Payment, bool]]:
    """Yield payments and whether each is fraud, endlessly, in order of time."""
    world, history = _World(seed, second_from), _History()
    origin = datetime.fromisoformat(start).replace(tzinfo=UTC).timestamp()
    number = day = 0
    while True:
        for second, payment, fraud in world.day(day):
            now = origin + second
            known = {"id": f"{seed}-{number}", "timestamp": datetime.fromtimestamp(now, UTC).isoformat()}
            yield {**known, **history.enrich(payment, now, fraud=fraud)}, fraud
            number += 1
        day += 1


def simulate(
    *, n: int, seed: int, start: str = "2026-01-01", second_from: int | None = None
) -> tuple[list[Payment], NDArray[np.uint8]]:
    """Simulate n payments in order of time.

    Args:
        n: how many.
        seed: the same one gives the same payments.
        start: the first day.
        second_from: the day, counted from 0, on which the second pattern of fraud starts; None for never.

    Returns:
        the payments, ready for JSON, and uint8 [n], 1 where a payment is fraud.
    """
    pairs = list(islice(_run(seed, start, second_from), n))
    return [payment for payment, _ in pairs], np.array([fraud for _, fraud in pairs], np.uint8)


def stream(*, seed: int) -> Iterator[Payment]:
    """Yield payments endlessly, as a live feed would."""
    return (payment for payment, _ in _run(seed, STREAM_START))


def main() -> None:
    """Write payments to a file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=1_000, help="how many payments")
    parser.add_argument("--seed", type=int, default=7, help="the same seed gives the same payments")
    parser.add_argument(
        "--second-from", type=int, metavar="DAY", help="the day, from 0, on which a second pattern starts"
    )
    parser.add_argument("--out", type=Path, required=True, help="where the payments go, as JSON lines")
    parser.add_argument("--labels", type=Path, help="where their labels go, as CSV: id,fraud")
    arguments = parser.parse_args()
    payments, labels = simulate(n=arguments.n, seed=arguments.seed, second_from=arguments.second_from)
    arguments.out.write_text("".join(json.dumps(payment) + "\n" for payment in payments), encoding="utf-8")
    if arguments.labels:
        with arguments.labels.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("id", "fraud"))
            rows.writerows((p["id"], int(f)) for p, f in zip(payments, labels, strict=True))
    print(f"{len(payments)} payments, {int(labels.sum())} of them fraud")


if __name__ == "__main__":
    main()
