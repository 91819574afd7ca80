"""The live page in a real browser: images, verdicts, the slider, reloading, keys, small screens."""

import time

import pytest

from tests.bundle import stub
from tests.report.test_report_browser import browser, pytestmark  # noqa: F401
from tests.serve.service import png, running


@pytest.fixture(scope="module", name="service")
def _service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    stub.write(folder / "screws.flowad")
    stub.write(folder / "tiles.flowad")
    with running(folder / "screws.flowad", folder / "tiles.flowad") as service:
        yield service


@pytest.fixture(scope="module", name="driver")
def _driver():
    with browser() as driver:
        yield driver


@pytest.fixture(name="page")
def _page(service, driver):
    driver.set_window_size(1280, 900)
    driver.get(service.url)
    wait(lambda: driver.find_elements("css selector", "#detector option"))
    return driver


def wait(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "the page does not come to it"
        time.sleep(0.05)
    return found


def names(driver, selector=".card .name"):
    return [one.text for one in driver.find_elements("css selector", selector)]


def text(driver, selector):
    return driver.find_element("css selector", selector).text


def upload(driver, folder, **images):
    for name, content in images.items():
        (folder / f"{name}.png").write_bytes(content)
    paths = "\n".join(str(folder / f"{name}.png") for name in images)
    driver.find_element("id", "files").send_keys(paths)


def card_of(driver, name):
    for card in driver.find_elements("css selector", ".card"):
        if card.find_element("css selector", ".name").text == name:
            return card
    raise AssertionError(name)


def set_rate(driver, exponent):
    driver.execute_script(
        "const r = document.getElementById('rate'); r.value = arguments[0];"
        "r.dispatchEvent(new Event('input'));",
        exponent,
    )


def test_upload_slider_verdict_and_reload(page, service, tmp_path):
    # Scores 0.157, 0.43 and 0.98; the held-out ones lie evenly between 0.1 and 0.5.
    upload(page, tmp_path, dark=png(), grey=png(grey=110), bright=png(spot=True))
    wait(lambda: {*names(page)} == {"dark.png", "grey.png", "bright.png"})
    wait(lambda: len(page.find_elements("css selector", ".card img[src]")) == 3)
    badge = ".badge"
    assert card_of(page, "bright.png").find_element("css selector", badge).text == "▲ anomalous"
    assert card_of(page, "grey.png").find_element("css selector", badge).text == "● normal"

    set_rate(page, -0.5)  # 30 %
    wait(
        lambda: (
            card_of(page, "grey.png").find_element("css selector", badge).text[2:] == "anomalous"
        )
    )
    assert text(page, "#rate-text") == "32 %"
    assert text(page, "#meaning").startswith("A promise")
    set_rate(page, -3)  # fewer than 19 held-out images could promise
    wait(lambda: text(page, "#meaning").startswith("An estimate"))

    button = card_of(page, "bright.png").find_element("css selector", ".defect")
    button.click()
    wait(lambda: "a defect" in text(page, "#status"))
    rows = service.get("/v1/detectors/screws/history")[1]["rows"]
    assert {row["name"]: row["verdict"] for row in rows}["bright.png"] == "defect"

    page.refresh()
    wait(lambda: "bright.png" in names(page))
    again = card_of(page, "bright.png")
    assert again.find_element("css selector", ".said").text == "Confirmed: a defect."
    assert again.find_element("css selector", ".defect").get_attribute("aria-pressed") == "true"
    wait(lambda: len(page.find_elements("css selector", ".card img[src]")) == 3)
    assert not [x for x in page.get_log("browser") if x["level"] == "SEVERE"]


def test_filters_and_keys(page, service, tmp_path):
    upload(page, tmp_path, a=png(), b=png(spot=True))
    wait(lambda: {"a.png", "b.png"} <= {*names(page)})
    page.find_element("css selector", "[data-filter=anomalous]").click()
    assert "a.png" not in names(page)
    page.find_element("css selector", "[data-filter=all]").click()
    body = page.find_element("tag name", "body")
    body.send_keys("j")
    first = wait(lambda: names(page, ".card.chosen .name"))
    body.send_keys("j")
    assert names(page, ".card.chosen .name") != first or len(names(page)) == 1
    body.send_keys("k")
    assert names(page, ".card.chosen .name") == first
    body.send_keys("g")
    wait(lambda: text(page, ".card.chosen .said").startswith("Confirmed: good."))
    body.send_keys("?")
    assert page.find_element("id", "help").is_displayed()


def test_what_is_no_image_is_named(page, tmp_path):
    upload(page, tmp_path, broken=b"no image")
    wait(lambda: text(page, "#status").startswith("broken.png: cannot read 'broken.png'"))


def test_another_detector_and_what_comes_from_elsewhere(page, service):
    page.find_element("css selector", "#detector option:nth-child(2)").click()
    wait(lambda: text(page, "#count") == "0 of 0 images")
    assert service.predict(png(), "?file_name=camera.png", name="tiles")[0] == 200
    wait(lambda: names(page) == ["camera.png"])
    page.execute_script("sessionStorage.clear()")


def test_drift_is_shown_and_starts_anew(page, service):
    for number in range(30):  # each brighter than all before
        assert service.predict(png(grey=150 + 3 * number))[0] == 200
    wait(lambda: text(page, "#drift-word") == "▲ alarm")
    page.find_element("id", "reset").click()
    page.find_element("css selector", "#sure button[value=yes]").click()
    wait(lambda: text(page, "#drift-word") == "● none")
    assert service.get("/v1/detectors/screws/drift")[1]["images"] == 0


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_cut_off_and_targets_are_large(page, width, tmp_path):
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    try:
        upload(page, tmp_path, **{"a-very-long-name-of-an-image-without-any-end" * 3: png()})
        wait(lambda: any(name.startswith("a-very-long") for name in names(page)))
        wide = page.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width
        buttons = page.find_elements("css selector", "button, .button, select")
        sizes = [one.size for one in buttons if one.is_displayed()]
        assert len(sizes) > 10
        assert all(size["height"] >= 56 and size["width"] >= 56 for size in sizes)
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_dark_mode_stays(page):
    before = page.execute_script("return document.documentElement.dataset.theme")
    page.find_element("id", "theme").click()
    after = page.execute_script("return document.documentElement.dataset.theme")
    assert {before, after} == {"light", "dark"}
    page.refresh()
    assert page.execute_script("return document.documentElement.dataset.theme") == after


def test_a_token_is_asked_for(tmp_path, driver):
    stub.write(tmp_path / "screws.flowad")
    with running(tmp_path / "screws.flowad", env={"FLOWAD_TOKEN": "geheim"}) as service:
        driver.get(service.url)
        field = wait(lambda: driver.find_element("id", "token").is_displayed()) and (
            driver.find_element("id", "token")
        )
        field.send_keys("geheim")
        driver.find_element("css selector", "#login button").click()
        wait(lambda: driver.find_elements("css selector", "#detector option"))
        upload(driver, tmp_path, a=png())
        wait(lambda: len(driver.find_elements("css selector", ".card img[src]")) == 1)
    wait(lambda: "does not answer" in text(driver, "#banner"))
