"""A wide-area link for tests, run as a program: TCP with delay, lost packets, and breaks on demand.

``links.py DELAY_S LOSS SEED PORT=HOST:PORT[,HOST:PORT…] …`` listens on each port and passes connections on, by turns to
those of the hosts that answer. Standard input takes ``stall PORT`` (nothing passes any more, and nobody is told) and
``go PORT`` (stalled connections are reset, new ones pass). It ends with its standard input.
"""

from __future__ import annotations

import asyncio
import random
import sys
from contextlib import suppress

#: What a sender waits, in seconds, before it sends a lost packet again; those behind it wait with it.
RETRANSMISSION_S = 0.2
_PACKET = 64 << 10
_CONNECT_S = 2.0


class Link:
    """One listening port.

    Parameters
    ----------
    targets : list of (str, int)
    delay_s : float
        One way.
    loss : float
        Fraction of packets that are sent twice.
    draws : random.Random
    """

    def __init__(self, targets: list[tuple[str, int]], delay_s: float, loss: float, draws: random.Random) -> None:
        self.targets, self.delay_s, self.loss, self.draws = targets, delay_s, loss, draws
        self.flows = asyncio.Event()
        self.flows.set()
        self._turn = 0

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on until either side closes it."""
        writers = [writer]
        try:
            await self._pass_gate(writer)
            far_reader, far_writer = await self._connect()
            writers.append(far_writer)
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._one_way(reader, far_writer))
                ways.create_task(self._one_way(far_reader, writer))
        except* OSError:
            pass
        finally:
            for one in writers:
                one.transport.abort() if one.transport.get_write_buffer_size() else one.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self._turn += 1
        for number in range(len(self.targets)):
            host, port = self.targets[(self._turn + number) % len(self.targets)]
            with suppress(OSError, asyncio.TimeoutError):
                return await asyncio.wait_for(asyncio.open_connection(host, port), _CONNECT_S)
        raise ConnectionError

    async def _one_way(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        packets: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)

        async def arrive() -> None:
            while True:
                due, packet = await packets.get()
                await asyncio.sleep(due - loop.time())
                await self._pass_gate(writer)
                if not packet:
                    with suppress(OSError):
                        writer.write_eof()
                    return
                writer.write(packet)
                await writer.drain()

        async with asyncio.TaskGroup() as both:
            both.create_task(arrive())
            packet, latest = b"more", 0.0
            while packet:
                packet = await reader.read(_PACKET)
                late = RETRANSMISSION_S if self.draws.random() < self.loss else 0.0
                latest = max(latest, loop.time() + self.delay_s + late)
                await packets.put((latest, packet))

    async def _pass_gate(self, writer: asyncio.StreamWriter) -> None:
        """Wait while the link is stalled; who had to wait is reset."""
        if not self.flows.is_set():
            await self.flows.wait()
            writer.transport.abort()
            raise ConnectionError


async def main(delay: str, loss: str, seed: str, *texts: str) -> None:
    """Listen, and take commands until standard input ends."""
    draws, links = random.Random(int(seed)), {}
    for text in texts:
        port, _, targets = text.partition("=")
        pairs = [(host, int(number)) for host, _, number in (one.partition(":") for one in targets.split(","))]
        links[port] = Link(pairs, float(delay), float(loss), draws)
        await asyncio.start_server(links[port].connection, "0.0.0.0", int(port))
    print("listening", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        word, port = line.split()
        links[port].flows.set() if word == "go" else links[port].flows.clear()
        print(word, port, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
