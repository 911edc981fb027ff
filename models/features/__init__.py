"""The vocabulary of feature specs: one file a family of kinds, and what compiles a recipe of them.

A spec becomes a plan: fields that are read and checked, then nodes, each a kind with its parameters,
computed from fields and earlier nodes (`plan.py`). The plan is compiled twice when a spec is loaded: into one
generated Python function for a transaction (`compile_one.py`), and into a chain of numpy calls for many
(`compile_many.py`). Each kind brings both forms, and a property test holds them equal to the bit.

**Where a feature that reads state goes** (counts and sums over windows, later): it is a kind like any other
whose node stands between the fields and the rest, so that others may be computed from it. What it reads
comes in as one more argument of the generated function beside the transaction, fetched before the
function runs, so that the function stays pure; what it writes is told by the plan (the slots of its key and
value) and done by whoever called, once for each transaction id. Nothing here reads a clock, a disk or a
network.
"""
