"""A slow link: a TCP relay that passes everything on later. ``python relay.py PORT HOST HOST_PORT MILLISECONDS``

Each direction is late by that much; nothing is lost, and the bandwidth is the machine's. It ends with its input.
"""

from __future__ import annotations

import asyncio
import sys


async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter, delay: float) -> None:
    """Write what comes from ``source`` to ``target``, ``delay`` seconds later."""
    loop = asyncio.get_running_loop()
    on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def deliver() -> None:
        while True:
            due, data = await on_the_way.get()
            await asyncio.sleep(due - loop.time())
            if not data:
                target.close()
                return
            target.write(data)
            await target.drain()

    delivering = asyncio.create_task(deliver())
    data = b"."
    while data:
        try:
            data = await source.read(1 << 16)
        except ConnectionError:
            data = b""
        on_the_way.put_nowait((loop.time() + delay, data))
    await delivering


async def main(port: int, host: str, host_port: int, delay: float) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(host, host_port)
        ways = (pass_on(reader, there_writer, delay), pass_on(there_reader, writer, delay))
        await asyncio.gather(*ways, return_exceptions=True)

    await asyncio.start_server(connected, "127.0.0.1", port)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]) / 1000))
