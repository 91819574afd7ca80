r"""How much `flowad serve` bears: throughput, latency, memory over many requests, and kills.

    python -m benchmarks.serving --bundle=cflow.flowad --image=photo.png --output=serving.json

The service runs in a process of its own, the clients in this one, all on the same cores. Every
request sends the file of one image and waits for its answer. --kills starts the service, has it
judge and confirm images from several threads, and kills it (SIGKILL) at a random moment: every
verdict that was acknowledged has to be in the file of feedback.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import statistics
import tempfile
import threading
import time
from http.client import HTTPException
from pathlib import Path
from typing import Any

from benchmarks import _common, _service
from benchmarks._service import Service
from flowad_jax.arguments import Parser
from flowad_jax.feedback.store import FeedbackStore, beside

CLIENTS = (1, 4, 16)


def load(service: Service, path: str, image: bytes, clients: int, seconds: float) -> dict[str, Any]:
    """Requests per second, and the median and 99th percentile of milliseconds."""
    times: list[float] = []
    refused: list[int] = []
    end = time.monotonic() + seconds

    def client() -> None:
        connection = service.connect()
        while time.monotonic() < end:
            started = time.perf_counter()
            connection.request("POST", path, image)
            answer = connection.getresponse()
            answer.read()
            if answer.status == 200:
                times.append(1000 * (time.perf_counter() - started))
            else:
                refused.append(answer.status)
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    parts = statistics.quantiles(times, n=100)
    rate = len(times) / seconds
    return {
        "requests_per_second": rate, "p50": parts[49], "p99": parts[98], "refused": len(refused)
    }  # fmt: skip


def endure(service: Service, path: str, image: bytes, requests: int) -> list[float]:
    """Memory in MiB after every tenth of so many requests."""
    connection, found = service.connect(), []
    for number in range(requests):
        connection.request("POST", path, image)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise SystemExit(f"error: {answer.status} {content[:200]!r}")
        if (number + 1) % max(1, requests // 10) == 0:
            found.append(service.memory())
    connection.close()
    return found


def kill(bundle: Path, path: str, image: bytes, wait: float) -> list[int]:
    """Kills a service after so many seconds of work; returns the acknowledged verdicts."""
    acknowledged: list[int] = []
    name = bundle.stem
    with _service.serving(bundle) as service:

        def confirm() -> None:
            # A killed service ends a connection anywhere, also within an answer.
            with contextlib.suppress(OSError, HTTPException, ValueError):
                while True:
                    status, content = service.ask("POST", path, image)
                    if status != 200:
                        raise SystemExit(f"error: {content}")
                    number = content["predictions"][0]["id"]
                    body = json.dumps({"id": number, "verdict": "good"}).encode()
                    status, _ = service.ask("POST", f"/v1/detectors/{name}/verdicts", body)
                    if status == 200:
                        acknowledged.append(number)

        threads = [threading.Thread(target=confirm) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(wait)
        service.process.kill()
        for thread in threads:
            thread.join()
    return acknowledged


def main() -> None:
    """Measures and prints what was found."""
    parser = Parser("python -m benchmarks.serving", __doc__)
    parser.add_argument("--bundle", required=True, help="folder of an exported detector")
    parser.add_argument("--image", required=True, help="file that is sent")
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each number of clients")
    parser.add_argument("--requests", type=int, default=10_000, help="for memory; 0 for none")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--output", help="JSON file")
    options = parser.parse_args()
    image = Path(options.image).read_bytes()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder, Path(options.bundle).name)
        shutil.copytree(options.bundle, bundle)
        path = f"/v1/detectors/{bundle.stem}/predict"
        with _service.serving(bundle, f"--backend={options.backend}") as service:
            load(service, path, image, 1, 1.0)  # warms up
            for clients in CLIENTS:
                found[f"{clients} clients"] = one = load(
                    service, path, image, clients, options.seconds
                )
                print(
                    f"{clients} clients: {one['requests_per_second']:.1f} requests/s, "
                    f"p50 {one['p50']:.0f} ms, p99 {one['p99']:.0f} ms, {one['refused']} refused"
                )
            if options.requests:
                found["memory_mib"] = endure(service, path, image, options.requests)
                print(f"MiB in the course of {options.requests} requests: {found['memory_mib']}")
        rng, acknowledged = random.Random(0), set()
        for _ in range(options.kills):
            acknowledged |= {*kill(bundle, path, image, rng.uniform(0.05, 1.0))}
        if options.kills:
            store = FeedbackStore(beside(bundle))
            kept = {row.id for row in store.rows() if row.verdict == "good"}
            store.close()
            found["kills"] = {
                "kills": options.kills,
                "acknowledged": len(acknowledged),
                "lost": len(acknowledged - kept),
            }
            print(f"{found['kills']}")
    if options.output:
        _common.write(options.output, **found)


if __name__ == "__main__":
    main()
