"""gzip bodies, inflated in steps so short that other senders do not notice."""

import zlib

STEP_IN, STEP_OUT = 64 * 1024, 256 * 1024  # bytes of a step; out: about a millisecond
MARK = b"\x1f\x8b"


class Inflation:
    """What a gzip body holds, as far as it is known: `step` goes on until it returns True.

    Then `pieces` are what it holds: the body as it came where it is no gzip (its decoder says so), None where it holds
    more than `most` bytes.
    """

    def __init__(self, body: bytes | bytearray, most: int) -> None:
        self._body = memoryview(body)
        self._most = most
        self._inflater = zlib.decompressobj(wbits=31)
        self._at = self._n_bytes = 0
        self._rest = b""  # of the last bytes of the body, what did not fit into its step
        self.pieces: list[bytes | memoryview] | None = []

    def step(self) -> bool:
        """Inflates a little more. True: that was all."""
        if self.pieces is None:
            return True
        data: bytes | memoryview = self._rest
        if not data:
            data = self._body[self._at : self._at + STEP_IN]
            self._at += len(data)
        try:
            piece = self._inflater.decompress(data, STEP_OUT)
        except zlib.error:
            return self._is_none()
        self._rest = self._inflater.unconsumed_tail
        self._n_bytes += len(piece)
        self.pieces.append(piece)
        if self._n_bytes > self._most:
            self.pieces = None
            return True
        if self._inflater.eof:
            has_more = self._inflater.unused_data or self._at < len(self._body)
            return self._is_none() if has_more else True
        return self._is_none() if not piece and not self._rest and self._at == len(self._body) else False

    def _is_none(self) -> bool:
        self.pieces = [self._body]
        return True
