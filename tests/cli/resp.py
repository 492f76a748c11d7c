"""A client of `dedupctl serve` in a few lines: what is sent and what comes back, as it is."""

import socket


class Refused(Exception):
    """An error reply."""


class Client:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.input = self.socket.makefile("rb")

    def close(self):
        self.input.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @staticmethod
    def request(*arguments):
        parts = [b"*%d\r\n" % len(arguments)]
        for argument in arguments:
            data = argument if isinstance(argument, bytes) else str(argument).encode()
            parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
        return b"".join(parts)

    def send(self, *arguments):
        self.socket.sendall(self.request(*arguments))

    def reply(self):
        """bytes, int, None, a list; an error as the Refused that it would raise."""
        line = self.input.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the server has gone")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest
        if kind == b"-":
            return Refused(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self._bytes(int(rest))
        if kind == b"*":
            return None if rest == b"-1" else [self.reply() for _ in range(int(rest))]
        raise AssertionError(f"no reply begins like this: {line!r}")

    def _bytes(self, size):
        data = self.input.read(size + 2)
        if len(data) < size + 2:
            raise ConnectionError("the server has gone")
        return data[:-2]

    def ask(self, *arguments):
        self.send(*arguments)
        reply = self.reply()
        if isinstance(reply, Refused):
            raise reply
        return reply

    def ask_map(self, *arguments):
        flat = self.ask(*arguments)
        return dict(zip([name.decode() for name in flat[::2]], flat[1::2]))
