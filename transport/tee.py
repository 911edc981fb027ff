"""The two ends of the way from a preprocessor to its tee: the sender, and the intake."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Final, cast

import zmq
from zmq.utils.monitor import recv_monitor_message

from transport import tee_wire
from transport.client.loop import Loop
from transport.errors import BindRefusedError, TeeFrameError
from transport.tee_ring import TeeRing
from transport.tee_wire import RawRecord, TeeKind

#: Seconds that a record waits for others, so that many are sent as one: sending is the actor's time.
FLUSH_S: Final = 0.02
#: Seconds between two hellos, each of which asks for an acknowledgement too: one may have been lost.
HELLO_S: Final = 1.0
#: Seconds that a connection may take, before another is tried.
RECONNECT_S: Final = 0.5
#: Frames that are read in one turn.
_FRAMES_A_TURN: Final = 64
_DRAIN_POLL_MS: Final = 20


class TeeSender:
    """Sends a ring's records to the tee, in the thread of a loop; never blocks, and never fails.

    Each connection has a socket of its own, and begins with a hello and the oldest record that is not safe. A
    socket that connects again by itself might send newer records first, unnoticed.

    Args:
        loop: the loop of the actor that uses it.
        context: the node's ZeroMQ context.
        ring: the records.
        address: where the tee listens.
        node_id: who sends.
        busy: says whether answers are under way, which a batch had better not hold up.
    """

    def __init__(
        self,
        loop: Loop,
        context: zmq.Context[zmq.Socket[bytes]],
        ring: TeeRing,
        address: str,
        node_id: str,
        busy: Callable[[], bool],
    ) -> None:
        self.ring = ring
        self._loop = loop
        self._context = context
        self._address = address
        self._node_id = node_id
        self._busy = busy
        self._flush_at: float | None = None
        self._hello_at = 0.0
        loop.add(self)
        self._open()

    def _open(self) -> None:
        self._connected = False
        self._open_at = time.monotonic() + RECONNECT_S
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, 0)  # bounded by the ring's window
        # Without IMMEDIATE records would wait in the queue of a connection that never comes about.
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        self._socket.setsockopt(zmq.RECONNECT_IVL, -1)
        self._socket.setsockopt(zmq.MAXMSGSIZE, tee_wire.MAX_FRAME_BYTES)
        events = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        self._monitor: zmq.Socket[bytes] = self._socket.get_monitor_socket(events)
        self._socket.connect(self._address)
        self.ring.rewind()
        self._loop.watch(self._socket, self)
        self._loop.watch(self._monitor, self)

    def offer(
        self, at: float, flags: int, policy: bytes, request: bytes, vectors: bytes, answer: bytes
    ) -> None:
        """Take a record; arguments as in RawRecord. It is sent within 2 * FLUSH_S, with those that follow."""
        self.ring.offer(at, flags, policy, request, vectors, answer)
        if self._flush_at is None and self._connected:
            self._flush_at = time.monotonic() + FLUSH_S

    def due(self) -> float:
        """Return when there is something to send, or a connection to try."""
        if not self._connected:
            return self._open_at
        return self._hello_at if self._flush_at is None else min(self._send_at(), self._hello_at)

    def _send_at(self) -> float:
        """Return when the batch is sent: when it is due, or with answers under way when they have left."""
        assert self._flush_at is not None  # noqa: S101 - the callers have looked
        return self._flush_at + FLUSH_S if self._busy() else self._flush_at

    def pump(self) -> None:
        """Take acknowledgements, and send what is due."""
        self._watch_connection()
        now = time.monotonic()
        if not self._connected:
            if now >= self._open_at:
                self._close_sockets()
                self._open()
            return
        self._take_acks()
        if now >= self._hello_at:
            self._hello_at = now + HELLO_S
            self._send(tee_wire.pack_hello(self.ring.seq, self._node_id, self.ring.counters()))
        if self._flush_at is not None and now >= self._send_at():
            self._flush()

    def drain(self, seconds: float) -> int:
        """Send what is held, and wait for the acknowledgements for so long at most; return what is left."""
        give_up_at = time.monotonic() + seconds
        self._hello_at = 0.0
        while len(self.ring) and (now := time.monotonic()) < give_up_at:
            self._flush_at = now if self.ring.may_send else None
            self.pump()
            self._socket.poll(_DRAIN_POLL_MS)
        return len(self.ring)

    def close(self) -> None:
        """Close the sockets; the ring keeps what is not safe. Closing twice is harmless."""
        self._loop.remove(self)
        self._close_sockets()

    def _close_sockets(self) -> None:
        self._loop.unwatch(self._socket)
        self._loop.unwatch(self._monitor)
        with contextlib.suppress(zmq.ZMQError):
            self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(0)

    def _watch_connection(self) -> None:
        while cast("int", self._monitor.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            made = recv_monitor_message(self._monitor)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED
            self._connected = made
            if made:
                self._hello_at = self._flush_at = 0.0
            else:
                self._open_at = time.monotonic() + FLUSH_S

    def _take_acks(self) -> None:
        for _ in range(_FRAMES_A_TURN):
            try:
                frame = tee_wire.unpack(self._socket.recv(zmq.NOBLOCK))
            except zmq.Again:
                return
            except TeeFrameError:
                continue  # whatever listens there is no tee
            if frame.kind is TeeKind.ACK:
                self.ring.acknowledge(frame.number)
                if self._flush_at is None and self.ring.may_send:
                    self._flush_at = 0.0

    def _flush(self) -> None:
        self._flush_at = None
        while batch := self.ring.batch():
            if not self._send(tee_wire.pack_records(batch)):
                return

    def _send(self, frame: bytes) -> bool:
        try:
            self._socket.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            # The connection is gone, which the monitor tells next: all is sent again on another.
            return False
        return True


class TeeIntake:
    """The socket at which a tee takes records. Use it from one thread only.

    A record that comes again on another connection of the same node, and was taken before, is left out.

    Args:
        loop: the loop of the actor that uses it.
        context: the tee's ZeroMQ context.
        address: where to listen.
        on_records: takes records that are new, and the node that sent them.
        on_hello: takes a node's counters.

    Attributes:
        unreadable: frames that were none, or came before a HELLO.
        repeated: records that were taken before.

    Raises:
        BindRefusedError: it cannot listen there.
    """

    def __init__(
        self,
        loop: Loop,
        context: zmq.Context[zmq.Socket[bytes]],
        address: str,
        *,
        on_records: Callable[[str, list[RawRecord]], None],
        on_hello: Callable[[str, Mapping[str, int]], None],
    ) -> None:
        self.unreadable = 0
        self.repeated = 0
        self._loop = loop
        self._on_records = on_records
        self._on_hello = on_hello
        self._node_of: dict[bytes, str] = {}
        self._route_of: dict[str, bytes] = {}
        self._taken: dict[str, int] = {}
        self._safe: dict[str, int] = {}
        self._socket: zmq.Socket[bytes] = context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, tee_wire.MAX_FRAME_BYTES)
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            self._socket.close(0)
            raise BindRefusedError(f"the tee cannot listen at {address}: {error}") from error
        loop.add(self, self._socket)

    def due(self) -> None:
        """Wait for frames alone."""

    def pump(self) -> None:
        """Take the frames that have arrived, up to one turn's worth."""
        for _ in range(_FRAMES_A_TURN):
            try:
                route, *frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                self._take(route, frames[0] if len(frames) == 1 else b"")
            except TeeFrameError:
                self.unreadable += 1

    def acknowledge(self, node: str, seq: int) -> None:
        """Tell a node that all of its records up to one are safe."""
        self._safe[node] = seq
        route = self._route_of.get(node)
        if route is not None:
            # What cannot be told now is told at the next hello.
            with contextlib.suppress(zmq.ZMQError):
                self._socket.send_multipart([route, tee_wire.pack_ack(seq)], zmq.NOBLOCK)

    def hold(self, *, off: bool) -> None:
        """Read nothing more, or go on."""
        if off:
            self._loop.unwatch(self._socket)
        else:
            self._loop.watch(self._socket, self)

    def forget(self, node: str) -> None:
        """Forget a node that is gone."""
        self._node_of.pop(self._route_of.pop(node, b""), None)
        self._taken.pop(node, None)
        self._safe.pop(node, None)

    def close(self) -> None:
        """Stop listening. Closing twice is harmless."""
        self._loop.remove(self)
        self._socket.close(0)

    def _take(self, route: bytes, data: bytes) -> None:
        frame = tee_wire.unpack(data)
        if frame.kind is TeeKind.HELLO:
            node, counters = tee_wire.unpack_hello(frame.payload)
            self._node_of.pop(self._route_of.get(node, b""), None)
            self._node_of[route] = node
            self._route_of[node] = route
            self._on_hello(node, counters)
            if node in self._safe:
                self.acknowledge(node, self._safe[node])
        elif frame.kind is TeeKind.RECORDS and route in self._node_of:
            node = self._node_of[route]
            records = tee_wire.unpack_records(frame)
            taken = self._taken.get(node, 0)
            new = [one for one in records if one.seq > taken]
            self.repeated += len(records) - len(new)
            if new:
                self._taken[node] = new[-1].seq
                self._on_records(node, new)
        else:
            raise TeeFrameError(f"a {frame.kind.name} from one who has not said hello")
