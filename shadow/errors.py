"""What can go wrong around the tee.

ShadowError
├── RecordError            bytes are no live record: the dead-letter topic keeps them, with the reason
├── BrokerError            Kafka does not do what is asked: whoever configured it must act
│   └── TopicError             a topic is missing, or cannot be made: make it, or set create_topics
├── EmbeddedBrokerError    the broker of the demo and the tests cannot run
├── SummaryError           summaries of different versions meet: run one version on all shadow nodes
└── ReportError            there is nothing to report on: the command was given a wrong name, or too early
"""

from __future__ import annotations


class ShadowError(Exception):
    """The base of the errors of this room."""


class RecordError(ShadowError):
    """Raised when bytes cannot be read as a live record; says what is wrong, and in which field."""


class BrokerError(ShadowError):
    """Raised when Kafka refuses a setting, or does not answer in time."""


class TopicError(BrokerError):
    """Raised when a topic does not exist and may not, or cannot, be made."""


class EmbeddedBrokerError(ShadowError):
    """Raised when the embedded broker is not installed or does not start."""


class SummaryError(ShadowError):
    """Raised when a summary was written by a version of Scorewire that keeps other summaries."""


class ReportError(ShadowError):
    """Raised when a report is asked of a shadow that is not there, or of two that cannot be compared."""
