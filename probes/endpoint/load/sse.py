"""Server-sent events, from bytes as they come to the data of each event. Pure.

By the WHATWG HTML standard, section 9.2.6: a line ends with CRLF, LF or CR, a colon begins a comment (a ping), the
space after ``data:`` may be missing, several lines of data are one event, and a byte-order mark is skipped. Beyond it:
what the end of the stream cuts off counts, because some servers leave the last blank line out.
"""

from __future__ import annotations


class TooLong(ValueError):
    """An event is larger than any that makes sense."""


class Events:
    """The data of the events so far. ``most``: bytes of one event, lines and all."""

    def __init__(self, most: int = 1 << 20) -> None:
        self._most = most
        self._rest = b""
        self._data: list[bytes] = []
        self._held = 0
        self._began = False
        self._after_cr = False

    def feed(self, read: bytes) -> list[bytes]:
        """The events that end with these bytes. Raises TooLong."""
        if self._after_cr and read[:1] == b"\n":
            read = read[1:]
        self._after_cr = read[-1:] == b"\r" or (self._after_cr and not read)
        *lines, self._rest = _lines(self._rest + read)
        if len(self._rest) + self._held > self._most:
            raise TooLong(f"an event of more than {self._most} bytes")
        return [event for line in lines if (event := self._take(line)) is not None]

    def end(self) -> list[bytes]:
        """The event that the end of the stream cut off, where there is one."""
        events = [self._take(self._rest), self._take(b"")]
        self._rest = b""
        return [event for event in events if event is not None]

    def _take(self, line: bytes) -> bytes | None:
        if not self._began:
            self._began, line = True, line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            event = b"\n".join(self._data) if self._data else None
            self._data, self._held = [], 0
            return event
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._held += len(value)
            if self._held > self._most:
                raise TooLong(f"an event of more than {self._most} bytes")
        return None


def _lines(text: bytes) -> list[bytes]:
    """Its lines without their ends; the last one has none yet."""
    lines = text.splitlines()
    return lines if text and text[-1:] not in b"\r\n" else [*lines, b""]
