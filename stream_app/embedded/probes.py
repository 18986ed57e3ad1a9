"""Is the server at this port ready? Asked in its own protocol, without a client library."""

import socket
import struct

timeout_s = 1.0
reply_bytes_max = 65_536

# Kafka protocol, Metadata request version 1: header (api key, version, correlation id, client id),
# then an empty array of topics. https://kafka.apache.org/protocol#The_Messages_Metadata
_METADATA_V1 = struct.pack(">hhih5si", 3, 1, 1, 5, b"probe", 0)


def redis_answers(port: int) -> bool:
    """Return whether the server answers PING, so it has loaded its data.

    >>> redis_answers(1)
    False
    """
    try:
        with socket.create_connection(("127.0.0.1", port), timeout_s) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:  # refused, reset or timed out: not ready, which is the answer
        return False


def kafka_answers(port: int) -> bool:
    """Return whether the broker lists a live broker in its metadata (a fenced one lists none).

    >>> kafka_answers(1)
    False
    """
    try:
        with socket.create_connection(("127.0.0.1", port), timeout_s) as connection:
            connection.sendall(struct.pack(">i", len(_METADATA_V1)) + _METADATA_V1)
            (size,) = struct.unpack(">i", _read(connection, 4))
            reply = _read(connection, min(size, reply_bytes_max))
    except OSError:
        return False
    if len(reply) < 8:
        return False
    _correlation, brokers = struct.unpack_from(">ii", reply)
    return bool(brokers > 0)


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = connection.recv(size - len(data))
        if not chunk:
            raise ConnectionResetError(f"closed after {len(data)} of {size} bytes")
        data += chunk
    return data
