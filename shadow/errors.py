"""What can go wrong around the tee.

ShadowError
├── RecordError            bytes are no live record: the dead-letter topic keeps them, with the reason
├── BrokerError            Kafka does not do what is asked: whoever configured it must act
│   └── TopicError             a topic is missing, or cannot be made: make it, or set create_topics
├── CandidateError         a candidate's process does not do what it should: its node kills it
│   ├── CandidateDiedError     it died, ran into a limit or fell silent: its node starts another
│   └── CandidateWaitsError    it cannot load what it needs now: its node asks again
├── HiddenFieldError       the field policy hides what a shadow needs: whoever started it must act
├── ShadowBrokenError      a shadow fails whatever it is given: it is suspended, who started it must act
├── Stopped                a node stops while a batch is under way: nobody acts, it is read again
├── EmbeddedBrokerError    the broker of the demo and the tests cannot run
├── SummaryError           summaries of different versions meet: run one version on all shadow nodes
├── SamplingError          what [tee] says of sampling cannot be used: whoever configured it must act
├── SpoolError             the tee's directory cannot be used: whoever configured it must act
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


class CandidateError(ShadowError):
    """Raised when a candidate's process answers what is no answer."""


class CandidateDiedError(CandidateError):
    """Raised when a candidate's process died, ran into a limit or did not answer in time. It is gone.

    Attributes:
        place: of the record whose turn it was in the batch, as far as the process said; a hint.
    """

    def __init__(self, message: str, place: int = -1) -> None:
        super().__init__(message)
        self.place = place


class CandidateWaitsError(CandidateError):
    """Raised when a candidate cannot load what it needs now: the database is away, or the disk is full."""


class HiddenFieldError(ShadowError):
    """Raised when the field policy of the live features hides what a shadow needs; names the fields."""


class ShadowBrokenError(ShadowError):
    """Raised when a shadow fails whatever it is given; says how. It is suspended."""


class Stopped(ShadowError):  # noqa: N818 - control flow: nothing went wrong
    """Raised when a node stops while a batch is under way. Its place was not committed: it is read again."""


class SamplingError(ShadowError):
    """Raised when the expression that chooses what is copied is none."""


class SpoolError(ShadowError):
    """Raised when the tee's directory cannot be used, or is another process's."""


class EmbeddedBrokerError(ShadowError):
    """Raised when the embedded broker is not installed or does not start."""


class SummaryError(ShadowError):
    """Raised when a summary was written by a version of Scorewire that keeps other summaries."""


class ReportError(ShadowError):
    """Raised when a report is asked of a shadow that is not there, or of two that cannot be compared."""
