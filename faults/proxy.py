"""A TCP proxy between one worker and Valkey or Kafka that can do what networks do."""

import asyncio
from contextlib import suppress

READ_BYTES = 262_144
host = "127.0.0.1"


class Proxy:
    """Passes bytes until told otherwise; the fields may be set at any time.

    ``delay_s`` is added to every reply. ``drop_replies`` counts down: that many times a command
    reaches the server, which applies it, and the connection ends instead of the reply.
    ``passing``, while it is cleared, keeps connections open and passes no reply (half open).
    """

    def __init__(self, target_port: int, *, port: int = 0) -> None:
        self._target_port = target_port
        self.delay_s = 0.0
        self.drop_replies = 0
        self.passing = asyncio.Event()
        self.passing.set()
        self.port = port  # 0: a free one, known after the start
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, host, self.port, limit=READ_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and end all connections."""
        if self._server is not None:
            self._server.close()
            self.reset()
            await self._server.wait_closed()

    def reset(self) -> None:
        """End all connections with RST, also in the middle of a command or a reply."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(host, self._target_port, limit=READ_BYTES)
        except OSError:  # the server is away: so is its proxy
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        ways = [
            asyncio.ensure_future(self._commands(reader, back)),
            asyncio.ensure_future(self._replies(there, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._writers -= {writer, back}
            for end in (writer, back):
                end.transport.abort()

    async def _commands(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(READ_BYTES):
                writer.write(data)
                await writer.drain()

    async def _replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(READ_BYTES):
                if self.drop_replies > 0:
                    self.drop_replies -= 1
                    return
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await self.passing.wait()
                writer.write(data)
                await writer.drain()
