"""What a client can do wrong with a connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import TypeAlias

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Kind: TypeAlias = Callable[[Streams, str, random.Random], Awaitable[bytes]]

PATHS = ("/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages")
STREAM = {"prompt": "import ", "max_tokens": 16384, "logit_bias": {"0": -100}, "stream": True}


async def send(kind: Kind, port: int, key: str, chance: random.Random) -> bytes:
    """Do something wrong; return how the answer begins, b"" if there is none."""
    streams = await asyncio.open_connection("127.0.0.1", port)
    try:
        return await kind(streams, key, chance)
    finally:
        streams[1].transport.abort()


def _head(path: str, key: str, *lines: str) -> bytes:
    all_lines = [
        f"POST {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {key}",
        "Content-Type: application/json", *lines,
    ]  # fmt: skip
    return "\r\n".join(all_lines).encode() + b"\r\n\r\n"


async def _ask(streams: Streams, path: str, key: str, body: bytes) -> bytes:
    reader, writer = streams
    writer.write(_head(path, key, f"Content-Length: {len(body)}") + body)
    await writer.drain()
    return await reader.read(4096)


async def broken_json(streams: Streams, key: str, chance: random.Random) -> bytes:
    whole = json.dumps({"prompt": "a", "messages": [{"role": "user", "content": "a"}]}).encode()
    body = whole[: chance.randrange(len(whole))] + chance.randbytes(chance.randrange(20))
    return await _ask(streams, chance.choice(PATHS), key, body)


async def wrong_types(streams: Streams, key: str, chance: random.Random) -> bytes:
    wrong = chance.choice([{}, [], None, True, 1e300, -1, "x", [[]], {"a": {"b": []}}])
    names = ["prompt", "messages", "input", "max_tokens", "stop", "tools", "temperature", "stream"]
    body = {name: wrong for name in chance.sample(names, 4)}
    return await _ask(streams, chance.choice(PATHS), key, json.dumps(body).encode())


async def huge_body(streams: Streams, key: str, chance: random.Random) -> bytes:
    """That says how long it is, and then does not send it."""
    reader, writer = streams
    writer.write(_head(chance.choice(PATHS), key, "Content-Length: 10000000000"))
    writer.write(b"a" * 100_000)
    await writer.drain()
    return await reader.read(4096)


async def endless_body(streams: Streams, key: str, chance: random.Random) -> bytes:
    """That does not say how long it is."""
    reader, writer = streams
    writer.write(_head(chance.choice(PATHS), key, "Transfer-Encoding: chunked"))
    for _ in range(40):
        writer.write(b"c350\r\n" + b"a" * 50_000 + b"\r\n")
        await writer.drain()
    return await reader.read(4096)


async def slow_body(streams: Streams, key: str, chance: random.Random) -> bytes:
    """Of which a few bytes come, and then nobody."""
    _, writer = streams
    writer.write(_head(chance.choice(PATHS), key, "Content-Length: 1000"))
    for _ in range(3):
        writer.write(b'{"a')
        await writer.drain()
        await asyncio.sleep(chance.random() / 5)
    return b""


async def half_closed(streams: Streams, key: str, chance: random.Random) -> bytes:
    """Who says that nothing more comes, and still reads."""
    reader, writer = streams
    body = json.dumps({**STREAM, "max_tokens": 50, "stream": chance.random() < 0.5}).encode()
    writer.write(_head("/v1/completions", key, f"Content-Length: {len(body)}") + body)
    await writer.drain()
    writer.write_eof()
    answer = b""
    while more := await reader.read(65536):
        answer += more
    return answer


async def no_http(streams: Streams, key: str, chance: random.Random) -> bytes:
    reader, writer = streams
    writer.write(chance.randbytes(chance.randrange(1, 2000)) + b"\r\n\r\n")
    await writer.drain()
    with contextlib.suppress(TimeoutError):  # it may wait for more
        await asyncio.wait_for(reader.read(1), 0.2)
    return b""


async def leaves_a_stream(streams: Streams, key: str, chance: random.Random) -> bytes:
    """Once it has begun; politely, or in a way that resets the connection."""
    reader, writer = streams
    body = json.dumps(STREAM).encode()
    writer.write(_head("/v1/completions", key, f"Content-Length: {len(body)}") + body)
    await writer.drain()
    answer = await reader.readuntil(b"data: ")
    if chance.random() < 0.5:
        connection: socket.socket = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return answer


KINDS: tuple[Kind, ...] = (
    broken_json, wrong_types, huge_body, endless_body, slow_body, half_closed, no_http,
    *[leaves_a_stream] * 5,
)  # fmt: skip


def may_be_cut(kind: Kind) -> bool:
    """Whether the server may close the connection while the client still sends."""
    return kind in (huge_body, endless_body, no_http)
