"""`ball serve` under load: clients that ask as fast as they are answered, for some time.

    python benchmarks/serve.py BUNDLE IMAGES --clients 50 --seconds 60 --schema 50
    python benchmarks/serve.py BUNDLE IMAGES --slow 500       (that alone)

Prints requests/s, latencies, every status that is not 200, and the server's memory from begin to end; then ends the
server while requests are on their way, each of which must be answered. With --schema, schemathesis (pip install
schemathesis) draws so many requests of each operation from the server's OpenAPI first, odd ones too. With --slow, so
many clients send a file of 19 MB at a byte a second for a minute, while another asks whether the server is well.
"""

import argparse
import asyncio
import re
import statistics
import subprocess
import sys
import time
import urllib.parse
from collections import Counter
from pathlib import Path

import httpx


async def client(
    http: httpx.AsyncClient, bodies: list[bytes], start: int, until: float, seen: list, least: int = 0
) -> None:
    """Ask again and again, every tenth time for the map too."""
    number = start
    while time.perf_counter() < until or len(seen) < least:
        number += 1
        began = time.perf_counter()
        try:
            query = "?map=true" if number % 10 == 0 else ""
            headers = {"Content-Type": "application/octet-stream"}
            answer = await http.post(f"/v1/predict{query}", content=bodies[number % len(bodies)], headers=headers)
            status = answer.status_code
        except httpx.HTTPError as error:
            status = type(error).__name__
        seen.append((status, time.perf_counter() - began))


def memory_mb(pid: int) -> float:
    """Resident memory of a process."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024


async def load(url: str, pid: int, bodies: list[bytes], clients: int, seconds: float, least: int) -> None:
    """Warm up, then measure."""
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as http:
        await asyncio.gather(*(client(http, bodies, n, time.perf_counter() + 5, []) for n in range(clients)))  # warm-up
        seen, memory, begin = [], [memory_mb(pid)], time.perf_counter()
        until = begin + seconds
        work = asyncio.gather(*(client(http, bodies, n * 7, until, seen, least) for n in range(clients)))
        while not work.done():
            await asyncio.sleep(seconds / 6)
            memory.append(memory_mb(pid))
        await work
        took = time.perf_counter() - begin
        metrics = (await http.get("/metrics")).text
    times = sorted(t for _, t in seen)
    wrong = {status: sum(s == status for s, _ in seen) for status in {s for s, _ in seen} - {200}}
    images, batches = (float(re.search(rf"ball_batch_images_{key} (\S+)", metrics)[1]) for key in ("sum", "count"))
    print(f"{len(seen)} requests of {clients} clients in {took:.1f} s: {len(seen) / took:.1f} a second")
    print(
        f"latency: median {statistics.median(times):.2f} s, 95 % {times[int(0.95 * len(times))]:.2f} s, "
        f"longest {times[-1]:.2f} s; {images / batches:.1f} images a batch"
    )
    print(f"not 200: {wrong or 'none'}")
    print("memory in MB, begin to end:", " ".join(f"{value:.0f}" for value in memory))


async def slow(url: str, pid: int, body: bytes, clients: int, seconds: float = 60) -> None:
    """Upload slowly on many connections; how others fare, and what becomes of the slow ones."""
    parts, ends, times, most = urllib.parse.urlsplit(url), [], [], 0.0
    head = f"POST /v1/predict HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/octet-stream\r\n"

    async def one() -> None:
        begun = time.perf_counter()
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(f"{head}Content-Length: 19000000\r\n\r\n".encode())
        answer = asyncio.create_task(reader.read(12))
        try:
            while not answer.done():
                writer.write(b"x")
                await asyncio.wait([answer], timeout=1)
            said = answer.result().decode()
        except OSError as error:
            said = type(error).__name__
        ends.append((said, time.perf_counter() - begun))
        writer.close()

    before, until = memory_mb(pid), time.perf_counter() + seconds
    uploads = [asyncio.create_task(one()) for _ in range(clients)]
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        while time.perf_counter() < until:
            begun = time.perf_counter()
            times.append(((await http.get("/healthz")).status_code, time.perf_counter() - begun))
            most = max(most, memory_mb(pid))
            await asyncio.sleep(0.5)
        headers = {"Content-Type": "application/octet-stream"}
        last = (await http.post("/v1/predict", content=body, headers=headers)).status_code
    await asyncio.wait_for(asyncio.gather(*uploads), 60)
    said = dict(Counter(said for said, _ in ends))
    print(f"{clients} slow uploads: {said}, the last after {max(ends, key=_second)[1]:.0f} s")
    answered, longest = sum(status == 200 for status, _ in times), max(times, key=_second)[1]
    print(f"others: {answered} of {len(times)} answered, the longest in {longest:.1f} s; then an image: {last}")
    print(f"memory: {before:.0f} MB before, never above {most:.0f}")


def _second(pair: tuple) -> float:
    return pair[1]


async def leave(url: str, server: subprocess.Popen, bodies: list[bytes], clients: int) -> None:
    """End the server while it answers; what has arrived is answered."""
    seen: list = []

    async def one(http: httpx.AsyncClient, body: bytes) -> None:
        answer = await http.post("/v1/predict", content=body, headers={"Content-Type": "application/octet-stream"})
        seen.append(answer.status_code)

    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        asked = [asyncio.create_task(one(http, bodies[number % len(bodies)])) for number in range(clients)]
        while (await asyncio.wait(asked, timeout=0.01))[1] and not seen:
            pass
        server.terminate()
        await asyncio.gather(*asked, return_exceptions=True)
    code = await asyncio.to_thread(server.wait, 30)
    print(f"ended while {clients} requests were on their way: {seen.count(200)} answered, exit code {code}")


def schema(url: str, count: int) -> None:
    """Draw requests from the server's description of itself."""
    command = [
        "run",
        f"{url}/openapi.json",
        "--phases",
        "examples,coverage,fuzzing,stateful",
        "--max-examples",
        str(count),
        "--generation-database",
        "none",
    ]
    command += ["--suppress-health-check", "all"]
    # A token is not asked for here, and a file of random bytes is rightly no image.
    checks = "not_a_server_error,content_type_conformance,response_schema_conformance,status_code_conformance"
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", *command, "--checks", checks], capture_output=True, text=True
    )
    print("\n".join(done.stdout.splitlines()[-25:]))


def main() -> None:
    """Start a server of its own, and load it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("images", type=Path)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--requests", type=int, default=0, help="go on until so many are answered")
    parser.add_argument("--schema", type=int, default=0)
    parser.add_argument("--slow", type=int, default=0, help="slow uploads at once")
    arguments = parser.parse_args()
    files = sorted(f for f in arguments.images.rglob("*") if f.suffix.lower() in (".jpg", ".png"))[:200]
    command = [sys.executable, "-m", "ball_features", "serve", arguments.bundle, "--port", "0", "--quiet"]
    command += ["--max-rate", "100000"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        url = server.stdout.readline().split()[-1]
        bodies = [f.read_bytes() for f in files]
        if arguments.schema:
            schema(url, arguments.schema)
        if arguments.slow:
            asyncio.run(slow(url, server.pid, bodies[0], arguments.slow))
            return
        asyncio.run(load(url, server.pid, bodies, arguments.clients, arguments.seconds, arguments.requests))
        asyncio.run(leave(url, server, bodies, arguments.clients))
    finally:
        server.kill()
        server.wait(20)


if __name__ == "__main__":
    main()
