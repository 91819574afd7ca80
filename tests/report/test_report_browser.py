"""The report in a real browser: it opens from disk, filters, sorts, and complains about nothing."""

import shutil
from contextlib import contextmanager

import numpy as np
import pytest

from tests.report.test_report import KINDS, page

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="chromium and chromedriver (chromium-driver) are not installed",
)


@contextmanager
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    # Containers give root no sandbox and little shared memory.
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def texts(driver, selector):
    found = driver.find_elements("css selector", selector)
    return [element.text for element in found if element.is_displayed()]


def test_report_opens_filters_and_sorts_in_chromium(tmp_path):
    p_values = np.linspace(1, 0.05, len(KINDS))
    page(tmp_path, p_values=p_values, threshold=7.5)
    with browser() as driver:
        driver.get((tmp_path / "report.html").as_uri())
        assert texts(driver, "#shown") == ["14 shown"]
        broken = "return [...document.images].filter(i => i.complete && !i.naturalWidth).length"
        assert driver.execute_script(broken) == 0

        # Space picks a radio button: the filters work without a mouse.
        driver.find_element("css selector", "input[value=missed]").send_keys(" ")
        assert texts(driver, "#shown") == ["2 shown"]
        assert texts(driver, ".entry .badge") == ["missed", "missed"]
        assert [name.split("\n")[0] for name in texts(driver, ".entry h3")] == ["scratch"] * 2

        kind = driver.find_element("css selector", "select[name=kind]")
        kind.send_keys("good")
        assert texts(driver, "#shown") == ["0 shown"]
        assert texts(driver, "#none") == ["No image matches the filters."]

        driver.find_element("css selector", "input[name=outcome][value='']").send_keys(" ")
        link = driver.find_element("css selector", "#kinds-of-defects a[data-kind='2']")
        driver.execute_script("arguments[0].click()", link)
        assert texts(driver, "#shown") == ["5 shown"]
        assert {name.split("\n")[0] for name in texts(driver, ".entry h3")} == {"scratch"}
        kind.send_keys("good")

        driver.find_element("css selector", "select[name=order]").send_keys("lowest")
        numbers = [line.split(",")[0] for line in texts(driver, ".entry .numbers")]
        assert numbers == [f"score {i}" for i in range(6)]

        width = "return [document.documentElement.scrollWidth, innerWidth]"
        driver.set_window_size(500, 900)
        needed, given = driver.execute_script(width)
        assert needed <= given, "a narrow page does not scroll sideways"
        assert driver.get_log("browser") == []
