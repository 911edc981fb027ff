"""Compressed bodies: gzip and deflate, as Triton's client and MLServer's server speak them.

Lengths that a request states, as the JSON's before binary data, are those of the unpacked body.
"""

from __future__ import annotations

import re
import zlib
from typing import Final

from actors.gateway.errors import MediaTypeError
from actors.gateway.message import Headers, HttpResponse
from transport.client.errors import ProtocolError, TooLargeError

#: Encoding to zlib's name for it. HTTP's deflate is zlib's format.
_WINDOW_BITS: Final = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
#: Shorter answers go in one packet, compressed or not.
LEAST_BYTES: Final = 1_400
#: Answers are JSON and numbers: what higher levels gain costs many times as much.
_LEVEL: Final = 1
_ZERO: Final = re.compile(rb"q=0(?:[.]0*)?")


def unpack(body: bytes, headers: Headers, most: int) -> bytes:
    """Return a request's body as it was before its caller compressed it.

    Args:
        body: as it came.
        headers: of the request.
        most: bytes that it may have once it is unpacked; more are not even made.

    Raises:
        MediaTypeError: it is encoded in another way.
        TooLargeError: it has more bytes.
        ProtocolError: it is not what its encoding says.
    """
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding == b"identity":
        return body
    bits = _WINDOW_BITS.get(encoding)
    if bits is None:
        why = f"a body is sent as it is, or in one of gzip and deflate, not as {encoding.decode('latin-1')!r}"
        raise MediaTypeError(why, field="content-encoding", rule="value")
    inflater = zlib.decompressobj(bits)
    try:
        plain = inflater.decompress(body, most + 1)
    except zlib.error as error:
        raise _broken(encoding, str(error)) from error
    if len(plain) > most:
        why = f"a body may have {most} bytes, and this one has more once it is unpacked"
        raise TooLargeError(why, field="body", rule="unpacked_size")
    if not inflater.eof:
        raise _broken(encoding, "it ends too early")
    if inflater.unused_data:
        raise _broken(encoding, f"{len(inflater.unused_data)} bytes follow its end")
    return plain


def _broken(encoding: bytes, why: str) -> ProtocolError:
    detail = f"the body is not what its content-encoding {encoding.decode()} says: {why}"
    return ProtocolError(detail, field="body", rule="encoding")


def pack(response: HttpResponse, headers: Headers) -> None:
    """Compress an answer, where its caller takes that and it is long enough to be worth it."""
    accepted = headers.get(b"accept-encoding")
    if accepted is None or len(response.body) < LEAST_BYTES:
        return
    encoding = _choose(accepted)
    if encoding:
        deflater = zlib.compressobj(_LEVEL, wbits=_WINDOW_BITS[encoding])
        response.body = deflater.compress(response.body) + deflater.flush()
        response.headers += [(b"content-encoding", encoding), (b"vary", b"accept-encoding")]


def _choose(accepted: bytes) -> bytes:
    """Return the first of ours that a caller takes; b"" if it takes none."""
    taken = dict[bytes, bool]()
    for part in accepted.lower().split(b","):
        name, _, quality = part.replace(b" ", b"").partition(b";")
        taken[name] = not _ZERO.fullmatch(quality)
    for encoding in _WINDOW_BITS:
        if taken.get(encoding, taken.get(b"*", False)):
            return encoding
    return b""
