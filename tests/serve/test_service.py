"""What the service answers, by HTTP to a real process."""

import concurrent.futures
import contextlib
import csv
import io
import json
import re
import socket
import time

import numpy as np
import pytest
from PIL import Image

from flowad_jax import flowad_runtime
from tests.bundle import stub
from tests.serve.service import png, running


@pytest.fixture(scope="module", name="place")
def _place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    stub.write(folder / "screws.flowad")
    stub.write(folder / "tiles.flowad", normal=[[0.1, 0.2, 0.3], [0.2, 0.4, 0.6]], kind="cross")
    return folder


@pytest.fixture(scope="module", name="service")
def _service(place):
    limits = ("--timeout=1", "--max_bytes=300000", "--max_pixels=500000")
    with running(place / "screws.flowad", place / "tiles.flowad", *limits) as service:
        yield service


def only(answer):
    status, content = answer
    assert status == 200, content
    (found,) = content["predictions"]
    return found


def test_an_image_is_judged_as_the_bundle_does(service, place, tmp_path):
    (tmp_path / "a.png").write_bytes(png(spot=True))
    expected = flowad_runtime.Detector(place / "screws.flowad").predict(tmp_path / "a.png")
    found = only(service.predict(png(spot=True), "?file_name=a.png"))
    assert (found["score"], found["p_value"]) == (expected.score, expected.p_value)
    assert found["anomalous"] is expected.anomalous is True
    assert found["regions"] == [region._asdict() for region in expected.regions]
    assert (found["name"], found["width"], found["height"]) == ("a.png", 30, 20)
    assert found["brightness"] == expected.brightness


def test_several_images_of_which_one_is_none(service):
    parts = [("a.png", png()), ("b.png", b"no image"), ("c.png", png(spot=True))]
    status, content = service.form(parts)
    assert status == 200
    names = [one["name"] for one in content["predictions"]]
    assert names == ["a.png", "b.png", "c.png"]
    first, second, third = content["predictions"]
    assert (first["anomalous"], third["anomalous"]) == (False, True)
    assert second["error"].startswith("cannot read 'b.png': it is none of BMP")


def test_pictures_on_request(service):
    found = only(service.predict(png(spot=True), "?pictures=overlay,heatmap"))
    assert {*found["pictures"]} == {"overlay", "heatmap"}
    for address in found["pictures"].values():
        status, headers, content = service.ask("GET", address)
        assert (status, headers.get_content_type()) == (200, "image/png")
        assert Image.open(io.BytesIO(content)).size == (30, 20)
    assert only(service.predict(png()))["pictures"] == {}
    assert service.get("/v1/detectors/screws/pictures/99999/overlay.png")[0] == 404


def test_the_list_of_detectors(service):
    status, content = service.get("/v1/detectors")
    assert status == 200
    screws, tiles = content["detectors"]
    assert (screws["name"], screws["kind"], screws["method"]) == ("screws", "bundle", "bright")
    assert screws["card"]["decided_by"] == "promise"
    assert [len(part) for part in tiles["normal"]] == [3, 3]
    assert service.get("/v1/detectors/tiles")[1]["name"] == "tiles"
    assert len(only(service.predict(png(), name="tiles"))["scores"]) == 2


def test_another_rate_is_only_shown(service):
    before = service.get("/v1/detectors/screws")[1]["card"]
    status, card = service.get("/v1/detectors/screws/decisions?false_alarm_rate=0.3")
    assert (status, card["level"]) == (200, 0.3)
    assert card["image"] < before["image"]
    assert service.get("/v1/detectors/screws")[1]["card"] == before


def test_verdicts_history_and_table(service):
    found = only(service.predict(png(spot=True), "?file_name=%3D1.png"))
    status, row = service.say(found["id"], "good")
    assert (status, row["verdict"], row["id"]) == (200, "good", found["id"])
    rows = service.get(f"/v1/detectors/screws/history?after={found['id'] - 1}")[1]["rows"]
    assert [(row["id"], row["verdict"]) for row in rows] == [(found["id"], "good")]
    assert len(service.get("/v1/detectors/screws/history?limit=1")[1]["rows"]) == 1
    table = service.get("/v1/detectors/screws/feedback.csv")[1].decode()
    last = [*csv.DictReader(io.StringIO(table))][-1]
    assert (last["name"], last["verdict"]) == ("'=1.png", "good")


def test_drift_and_its_reset(service):
    for _ in range(3):
        only(service.predict(png(), name="tiles"))
    status, content = service.get("/v1/detectors/tiles/drift")
    assert (status, content["limit"]) == (200, 100)
    assert content["images"] == len(content["points"]) >= 3
    assert content["points"][-1]["value"] == content["value"]
    assert service.post("/v1/detectors/tiles/drift/reset")[1]["images"] == 0
    assert only(service.predict(png(), name="tiles"))["id"] > 3
    assert service.get("/v1/detectors/tiles/drift")[1]["images"] == 1


def noise():
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8)).save(file, "PNG")
    return file.getvalue()


WRONG = {
    "no detector": ("GET", "/v1/detectors/none", b"", {}, 404, "no detector 'none': choose screws"),
    "no image": ("POST", "/v1/detectors/screws/predict", b"", {}, 400, "holds no image"),
    "damaged": (
        "POST",
        "/v1/detectors/screws/predict",
        noise()[:900],
        {},
        400,
        "cannot read 'image'",
    ),
    "huge": ("POST", "/v1/detectors/screws/predict", b"x" * 300_001, {}, 413, "more than 300,000"),
    "kind": (
        *("POST", "/v1/detectors/screws/predict", png(), {"Content-Type": "text/html"}),
        *(415, "content-type text/html"),
    ),
    "broken form": (
        *("POST", "/v1/detectors/screws/predict", b"--x\r\nno"),
        *({"Content-Type": "multipart/form-data; boundary=xyz"}, 400, "form cannot be read"),
    ),
    "form without boundary": (
        *("POST", "/v1/detectors/screws/predict", b"--x\r\nno"),
        *({"Content-Type": "multipart/form-data"}, 400, "form cannot be read"),
    ),
    "pictures": (
        *("POST", "/v1/detectors/screws/predict?pictures=all", png(), {}),
        *(422, "choose overlay, heatmap or both"),
    ),
    "limit": ("GET", "/v1/detectors/screws/history?limit=0", b"", {}, 422, "limit: "),
    "rate": (
        *("GET", "/v1/detectors/screws/decisions?false_alarm_rate=1", b"", {}),
        *(422, "between 0 and 1"),
    ),
    "verdict": (
        *("POST", "/v1/detectors/screws/verdicts", b'{"id": 1, "verdict": "bad"}'),
        *({"Content-Type": "application/json"}, 422, "verdict: "),
    ),
    "no json": (
        *("POST", "/v1/detectors/screws/verdicts", b"{"),
        *({"Content-Type": "application/json"}, 422, "JSON"),
    ),
    "unknown image": (
        *("POST", "/v1/detectors/screws/verdicts", b'{"id": 999999, "verdict": "good"}'),
        *({"Content-Type": "application/json"}, 404, "no image has the number 999999"),
    ),
    "other site": (
        *("POST", "/v1/detectors/screws/predict", png(), {"Origin": "http://evil.example"}),
        *(403, "other sites"),
    ),
    "fetch": (
        *("GET", "/v1/detectors", b"", {"Sec-Fetch-Site": "cross-site"}),
        *(403, "other sites"),
    ),
    "host": ("GET", "/v1/detectors", b"", {"Host": "evil.example"}, 403, "not called"),
    "no host": ("GET", "/v1/detectors", b"", {"Host": "[::1"}, 403, "no address"),
    "no origin": ("GET", "/v1/detectors", b"", {"Origin": "http://["}, 403, "no address"),
    "far": ("GET", f"/v1/detectors/screws/history?after={10**30}", b"", {}, 422, "after: "),
    "large number": (
        *(
            "POST",
            "/v1/detectors/screws/verdicts",
            b'{"id": 9223372036854775808, "verdict": "good"}',
        ),
        *({"Content-Type": "application/json"}, 422, "id: "),
    ),
    "method": ("DELETE", "/v1/detectors", b"", {}, 405, "Method Not Allowed"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_line(service, case):
    method, path, body, headers, status, message = WRONG[case]
    found, _, content = service.ask(method, path, body, headers)
    assert found == status, content
    assert message in content["error"]
    assert "\n" not in content["error"]


def test_an_image_of_too_many_pixels(service):
    status, content = service.predict(png(size=(800, 800)), "?file_name=large.png")
    assert status == 413
    assert content["error"] == "'large.png' has 800 x 800 pixels, more than 500,000"


def test_a_body_without_a_length_is_counted(service):
    def chunks():
        for _ in range(31):
            yield b"x" * 10_000

    for _ in range(5):
        # A server that has heard enough hangs up; a client that still talks may miss the answer.
        with contextlib.suppress(ConnectionError):
            status, content = service.predict(chunks())
            assert status == 413, content
            return
    pytest.fail("the answer was never seen")


def test_a_head_that_never_ends_is_let_go(service):
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        answer = b""
        while b"alive" not in answer:  # head and body may come apart
            answer += client.recv(1000)
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127")  # and no more
        started = time.monotonic()
        assert client.recv(1000) == b""
        assert 5 < time.monotonic() - started < 40


def test_a_slow_client_is_let_go(service):
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as client:
        start = f"POST /v1/detectors/screws/predict HTTP/1.1\r\nHost: 127.0.0.1:{service.port}\r\n"
        client.sendall(start.encode() + b"Content-Length: 100\r\n\r\n")
        answer, started = b"", time.monotonic()
        client.settimeout(0.3)
        while b"seconds" not in answer and time.monotonic() - started < 15:
            with contextlib.suppress(TimeoutError, BrokenPipeError, ConnectionResetError):
                if not answer:
                    client.sendall(b"x")  # a byte at a time
                answer += client.recv(1000)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"more than 1 seconds" in answer
    assert service.get("/readyz")[0] == 200


def test_openapi_is_true(service):
    status, document = service.get("/openapi.json")
    assert status == 200
    routes = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    base = "/v1/detectors/{name}"
    assert routes == {
        *(("GET", path) for path in ("/healthz", "/readyz", "/metrics", "/v1/detectors", base)),
        *(("GET", f"{base}/{x}") for x in ("history", "decisions", "drift", "feedback.csv")),
        ("GET", f"{base}/pictures/{{number}}/{{kind}}.png"),
        *(("POST", f"{base}/{path}") for path in ("predict", "verdicts", "drift/reset")),
    }
    described = document["paths"][f"{base}/predict"]["post"]
    assert {"application/octet-stream", "multipart/form-data"} <= {
        *described["requestBody"]["content"]
    }
    given = {str(WRONG[case][4]) for case in WRONG if WRONG[case][1].startswith(base[:20] + "s")}
    assert given - {"405"} <= {*described["responses"], "404"}
    schema = document["components"]["schemas"]["Predicted"]["properties"]
    assert {*schema} == {*only(service.predict(png()))}


def test_metrics(service):
    only(service.predict(png(spot=True)))
    text = service.get("/metrics")[1].decode()
    figures = dict(re.findall(r"^(flowad_\S+) (\S+)$", text, re.MULTILINE))
    assert float(figures['flowad_images_total{decision="anomalous",detector="screws"}']) >= 1
    assert float(figures['flowad_judge_seconds_count{detector="screws"}']) >= 1
    assert float(figures['flowad_refused_total{reason="bytes"}']) >= 0
    assert figures['flowad_queue_images{detector="screws"}'] == "0.0"
    assert float(figures['flowad_drift_alarm{detector="screws"}']) in (0, 1)
    assert any(name.startswith("flowad_request_seconds_bucket") for name in figures)


def test_many_clients_at_once_get_their_own_answers(service):
    def ask(number):
        grey = 20 + number
        return only(service.predict(png(grey=grey), f"?file_name={number}"))["score"] * 255, grey

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        for found, grey in pool.map(ask, range(48)):
            assert found == pytest.approx(grey, abs=1e-3)


def test_the_page_comes_without_the_network(service):
    status, headers, content = service.ask("GET", "/")
    assert (status, headers.get_content_type()) == (200, "text/html")
    assert headers["Content-Security-Policy"].startswith("default-src 'self'")
    assert not re.search(rb"(src|href)=\"?https?:", content)
    assert json.dumps(service.get("/healthz")[1]) == '{"status": "alive"}'
