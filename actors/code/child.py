"""The worker process of a code package. It is run as a file and imports nothing of the house.

It speaks frames over the one socket that it inherits: four bytes of length, little-endian, then msgpack.
First it is told what to load (a map); it answers `["ready"]` or `["failed", reason]`. Then each request,
`[id, payload]`, is answered in its order: `[id, 0, result]`; `[id, 1, rule, detail]` where it failed;
or `[id, 2, field, rule, detail]` where it refused the transaction. Before an answer may stand what the
package logs, `["log", level, logger, text]`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import math
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import msgpack

_LENGTH = struct.Struct("<I")
#: What is given up when memory is out, so that there is enough to say so.
_RESERVE_BYTES = 1 << 20
#: Seconds beyond the budget after which the kernel ends this process, were its node gone or held up.
_GRACE_S = 1.0
_DETAIL = 500
#: Records of the log for each request, and characters of each; while it loads it may write as many.
_RECORDS, _TEXT = 20, 2_000
_OUTCOMES = ("approve", "review", "decline")
_OUT_OF_MEMORY, _SOCKET_GONE = 86, 87

Call = Callable[[Any], Any]


class _WrongError(Exception):
    """Raised when what the package gave is not what it declared."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(detail)
        self.rule = rule


class Channel:
    """Frames over the socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray()

    def take(self) -> Any:
        """Return the next frame if all of it is here, else None."""
        buffer = self._buffer
        if len(buffer) < _LENGTH.size:
            return None
        end = _LENGTH.size + _LENGTH.unpack_from(buffer)[0]
        if len(buffer) < end:
            return None
        frame = msgpack.unpackb(memoryview(buffer)[_LENGTH.size : end], strict_map_key=False)
        del buffer[:end]
        return frame

    def receive(self) -> None:
        """Wait for more bytes; when the node is gone, end this process."""
        chunk = self._socket.recv(1 << 16)
        if not chunk:
            os._exit(0)
        self._buffer += chunk

    def send(self, frame: list[Any]) -> None:
        """Write a frame; where nobody can read it, end this process."""
        try:
            self.tell(frame)
        except OSError:
            # The node is gone; or this is a fork of the worker, which has no business here.
            os._exit(_SOCKET_GONE)

    def tell(self, frame: list[Any]) -> None:
        """Write a frame.

        Raises:
            OSError: nobody can read it.
        """
        body = msgpack.packb(frame)
        self._socket.sendall(_LENGTH.pack(len(body)) + body)


class LogHandler(logging.Handler):
    """Sends what the package logs to the node, up to `left` records more."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(logging.INFO)
        self.left = _RECORDS
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record, with its traceback."""
        if self.left <= 0:
            return
        self.left -= 1
        try:
            self._channel.tell(["log", record.levelno, record.name[:_TEXT], self.format(record)[:_TEXT]])
        except Exception:  # noqa: BLE001 - a record that cannot be written is no reason to fail a request
            return


def main(descriptor: int) -> NoReturn:
    """Load what the first frame says, then serve until the node is gone."""
    # Whoever stops a node and all of its processes would stop requests that the node still waits for.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sock = socket.socket(fileno=descriptor)
    os.register_at_fork(after_in_child=sock.close)
    channel = Channel(sock)
    while (orders := channel.take()) is None:
        channel.receive()
    signal.setitimer(signal.ITIMER_REAL, orders["start_s"] + _GRACE_S)
    _limit(orders)
    log = LogHandler(channel)
    logging.getLogger().addHandler(log)
    logging.getLogger().setLevel(logging.INFO)
    try:
        call = _BINDERS[orders["stage"]](_load(orders), orders)
    except BaseException as error:  # noqa: BLE001 - whatever its import raises, SystemExit included
        channel.send(["failed", _told(error, orders["directory"])])
        os._exit(0)
    with contextlib.suppress(Exception):
        # Once ahead, so that what is loaded at the first call is not in a request's time.
        call(msgpack.unpackb(orders["warm"]))
    _limit_processes()
    gc.collect()
    gc.freeze()
    signal.setitimer(signal.ITIMER_REAL, 0)
    channel.send(["ready"])
    _serve(channel, call, orders, log)


def _serve(channel: Channel, call: Call, orders: dict[str, Any], log: LogHandler) -> NoReturn:
    reserve = bytearray(_RESERVE_BYTES)
    limit_s = orders["budget_s"] + _GRACE_S
    while True:
        request = channel.take()
        if request is None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            channel.receive()
            continue
        # The kernel's own timer: a loop in C that holds the GIL is ended as well.
        signal.setitimer(signal.ITIMER_REAL, limit_s)
        number, payload = request
        log.left = _RECORDS
        try:
            answer = [number, 0, call(payload)]
        except MemoryError:
            del reserve
            channel.send([number, 1, "memory", "MemoryError: it took more than code.memory_mb"])
            os._exit(_OUT_OF_MEMORY)
        except _WrongError as error:
            answer = [number, 1, error.rule, str(error)]
        except BaseException as error:  # noqa: BLE001 - whatever it raises is this request's error alone
            answer = _failure(number, error, orders["directory"])
        channel.send(answer)


def _failure(number: int, error: BaseException, directory: str) -> list[Any]:
    field, rule = getattr(error, "field", None), getattr(error, "rule", None)
    if isinstance(field, str) and isinstance(rule, str):
        return [number, 2, field[:_DETAIL], rule[:_DETAIL], _said(error)]
    return [number, 1, "exception", _told(error, directory)]


def _said(error: BaseException) -> str:
    try:
        return str(error)[:_DETAIL]
    except Exception:  # noqa: BLE001 - an exception of the package may do anything when it is asked
        return "(it cannot say what)"


def _told(error: BaseException, directory: str) -> str:
    """Say what was raised, and the last line of the package that led there."""
    place, trace = "", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file.startswith(directory):
            place = f" ({file[len(directory) :].lstrip('/')}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return f"{type(error).__name__}: {_said(error)}{place}"


def _limit(orders: dict[str, Any]) -> None:
    memory = orders["memory_bytes"]
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    memory = memory if most == resource.RLIM_INFINITY else min(memory, most)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    # A shadow's own limit, which counts from its own start.
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # it writes no files
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


def _limit_processes() -> None:
    # From here on it starts no thread and no process; the kernel does not hold root to that.
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def _load(orders: dict[str, Any]) -> Call:
    # Behind the standard library and before what is installed here.
    place = next((i for i, path in enumerate(sys.path) if path.endswith("-packages")), len(sys.path))
    sys.path.insert(place, orders["directory"])
    found: Any = importlib.import_module(orders["module"])
    for part in orders["object"].split("."):
        found = getattr(found, part)
    if isinstance(found, type):
        found = found()
    if not callable(found):
        raise TypeError(f"{orders['object']} is a {type(found).__name__}, not a function or a class")
    call: Call = found
    return call


def _bind_features(call: Call, orders: dict[str, Any]) -> Call:
    names = orders["features"]
    width = len(names)
    pack = struct.Struct(f"<{width}f").pack

    def vector(transaction: Any) -> bytes:
        result = call(transaction)
        if not isinstance(result, list | tuple):
            return _floats(result, (width,), "<f4", names)
        if len(result) != width:
            raise _WrongError("shape", f"gave {len(result)} features, declared are {width}")
        try:
            packed = pack(*result)
        except (struct.error, TypeError, OverflowError):
            _find_wrong(result, names)
            raise
        if math.inf in result or -math.inf in result:
            _find_wrong(result, names)
        return packed

    return vector


def _find_wrong(result: Any, names: list[str]) -> None:
    """Name the feature that is no number that float32 can hold; NaN is a missing value."""
    for name, value in zip(names, result, strict=True):
        try:
            struct.pack("<f", value)
        except OverflowError as error:
            raise _WrongError(
                "infinite", f"feature {name!r} is {value!r}, which float32 cannot hold"
            ) from error
        except (struct.error, TypeError) as error:
            raise _WrongError(
                "type", f"feature {name!r} is a {type(value).__name__}, not a number"
            ) from error
        if math.isinf(value):
            raise _WrongError("infinite", f"feature {name!r} is infinite")


def _bind_decision(call: Call, orders: dict[str, Any]) -> Call:
    known = frozenset(orders["reasons"])

    def decide(payload: Any) -> list[Any]:
        result = call(*payload)
        if not isinstance(result, list | tuple) or len(result) != 2:  # noqa: PLR2004 - outcome and reasons
            raise _WrongError("shape", f"gave a {type(result).__name__}, not an outcome with its reasons")
        outcome, reasons = result
        if outcome not in _OUTCOMES:
            raise _WrongError("type", f"decided {outcome!r}"[:_DETAIL])
        if not isinstance(reasons, list | tuple) or not known.issuperset(reasons):
            raise _WrongError("type", f"gave reasons that it did not declare: {reasons!r}"[:_DETAIL])
        return [outcome, list(reasons)]

    return decide


def _bind_model(call: Call, orders: dict[str, Any]) -> Call:
    import numpy as np  # noqa: PLC0415 - only models need it here

    width, outputs = len(orders["features"]), orders["outputs"]

    def scores(payload: Any) -> bytes:
        rows = np.frombuffer(payload, "<f4").reshape(-1, width)
        result = np.asarray(call(rows))
        if len(outputs) == 1 and result.ndim == 1:
            result = result[:, None]
        return _floats(result, (len(rows), len(outputs)), "<f8", outputs)

    return scores


def _floats(result: Any, shape: tuple[int, ...], dtype: str, names: list[str]) -> bytes:
    """Return an array's bytes, if it is of the declared shape and holds numbers."""
    if not hasattr(result, "dtype"):
        raise _WrongError("type", f"gave a {type(result).__name__}, not numbers")
    import numpy as np  # noqa: PLC0415 - whoever gives arrays has loaded it

    found = np.asarray(result)
    if found.shape != shape:
        raise _WrongError("shape", f"gave the shape {found.shape}, declared is {shape}")
    if found.dtype.kind not in "fiub":
        raise _WrongError("type", f"gave an array of {found.dtype}, not of numbers")
    with np.errstate(all="ignore"):
        numbers = np.ascontiguousarray(found, dtype)
    wrong = np.isinf(numbers) if dtype == "<f4" else ~np.isfinite(numbers)
    if wrong.any():
        name = names[int(np.argwhere(wrong)[0][-1])]
        raise _WrongError("infinite", f"{name!r} is no finite number")
    return numbers.tobytes()


_BINDERS: dict[str, Callable[[Call, dict[str, Any]], Call]] = {
    "features": _bind_features,
    "decision": _bind_decision,
    "model": _bind_model,
}

if __name__ == "__main__":
    main(int(sys.argv[1]))
