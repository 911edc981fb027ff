"""Frames between nodes and workers: whole however they arrive, and garbage is named."""

from __future__ import annotations

import contextlib
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.code.frames import MAX_FRAME, FrameReader, GarbageError, pack_frame

VALUES = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text()
FRAMES = st.lists(
    st.lists(VALUES | st.binary() | st.lists(VALUES, max_size=3), min_size=1, max_size=5), max_size=6
)


@given(FRAMES, st.data())
def test_frames_come_back_whole_however_they_are_cut(frames: list[list[Any]], data: st.DataObject) -> None:
    stream = b"".join(pack_frame(msgpack.packb(frame)) for frame in frames)
    reader, found = FrameReader(), []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        reader.feed(stream[:cut])
        stream = stream[cut:]
        found += list(reader.frames())
    assert found == frames


@given(FRAMES, st.binary())
def test_what_comes_before_garbage_is_read_and_garbage_has_one_error(
    frames: list[list[Any]], garbage: bytes
) -> None:
    reader, found = FrameReader(), []
    reader.feed(b"".join(pack_frame(msgpack.packb(frame)) for frame in frames) + garbage)
    with contextlib.suppress(GarbageError):
        for frame in reader.frames():
            found.append(frame)  # noqa: PERF402 - what was read before the error counts
    assert found[: len(frames)] == frames


@pytest.mark.parametrize(
    "stream",
    [
        (MAX_FRAME + 1).to_bytes(4, "little"),
        pack_frame(b""),
        pack_frame(b"\xc1"),
        pack_frame(msgpack.packb({"a": 1})),
        pack_frame(msgpack.packb([])),
        pack_frame(msgpack.packb([1]) + b"more"),
    ],
)
def test_each_kind_of_garbage_is_named(stream: bytes) -> None:
    reader = FrameReader()
    reader.feed(stream)
    with pytest.raises(GarbageError, match="a frame"):
        list(reader.frames())
