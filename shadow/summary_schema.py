"""The parts of a summary, and how many names each of them keeps."""

from __future__ import annotations

from typing import Final

from shadow.mergeable import Bag, Extreme, Newest, Record, Same, Sum, Sums, Top

#: Differences of scores within which results count as agreeing.
EPSILONS: Final = ("1e-06", "0.001", "0.01", "0.1")
#: How many names a bag keeps: fields, values of a field, features, reason codes, outputs and stages.
FIELD_NAMES, VALUES, FEATURE_NAMES, CODES, NAMES = 64, 128, 256, 256, 32
#: How many transactions are told one by one, and how many minutes, hours and days.
MOST_DIFFERENT, MINUTES, HOURS, DAYS = 50, 120, 72, 400

_COUNTS: Final = Bag(2000, Sum())  # of buckets: their scale has fewer
_PAIR: Final = Record({"champion": _COUNTS, "shadow": _COUNTS})
_TIMES: Final = Bag(NAMES, Record({"n": Sum(), "sum": Sum(), "buckets": _COUNTS}))
#: Results; those with other outcomes; those whose scores can be compared; the sums of these scores'
#: differences (1e-6), of the differences' squares (1e-6), and of the amounts of other outcomes (1e-3).
GROUP: Final = Sums(6)
FIELD_VALUES: Final = Bag(VALUES, GROUP)
FIELD: Final = Record({"all": GROUP, "values": FIELD_VALUES})
FEATURE: Final = Record(
    {"n": Sum(), "differs": Sum(), "missing": Sums(2), "champion": _COUNTS, "shadow": _COUNTS}
)

SUMMARY: Final = Record(
    {
        "v": Same(1),
        "n": Sum(),
        "first": Extreme(min),  # Unix time in microseconds
        "last": Extreme(max),
        "unknown": Sum(),  # results with a score that is no finite number
        "exact": Sum(),
        "within": Record({epsilon: Sum() for epsilon in EPSILONS}),
        "scores": _PAIR,
        "difference": _COUNTS,  # the shadow's score less the champion's
        "outputs": Bag(NAMES, Sums(3)),  # name to: compared, exact, within 0.01
        "decided": Sum(),  # results with two outcomes
        "outcomes": Bag(64, Sums(3)),  # "champion's>shadow's" to: results, with an amount, amount (1e-3)
        "reasons": Bag(CODES, Sums(2)),  # code to: of the champion, of the shadow
        "amount": Sums(2),  # results with an amount, amount (1e-3)
        "all": GROUP,
        "us": Record({"champion": _TIMES, "shadow": _TIMES}),
        "slices": Bag(FIELD_NAMES, FIELD),
        "drift": Bag(FEATURE_NAMES, FEATURE),
        "different": Top(MOST_DIFFERENT),  # by difference of scores
        "dearest": Top(MOST_DIFFERENT),  # other outcomes, by amount
        "minutes": Newest(MINUTES, GROUP),
        "hours": Newest(HOURS, GROUP),
        "days": Newest(DAYS, GROUP),
        "releases": Newest(NAMES, Sum()),  # the champion's, ten digits wide so that they sort
    }
)
