"""A headless Chromium, and a page as a person sees it: texts, buttons, fields."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from support.processes import wait_until

PROGRAMS = ("chromium", "chromedriver")
SEE_S = 60.0
AGAIN_S = 15.0


def obstacle() -> str:
    """Why there is no browser on this machine, and what to do; "" when there is one."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    packages = "chromium chromium-driver"
    return f"no {' and '.join(missing)}: apt-get install {packages}" if missing else ""


@contextmanager
def browser() -> Iterator[Page]:
    """A browser of the test's own, with no history and no proxy."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    words = ["--headless=new", "--window-size=1280,1000", "--disable-gpu", "--no-proxy-server"]
    if os.geteuid() == 0:
        words.append("--no-sandbox")  # Chromium refuses to be root's otherwise
    for word in (*words, "--disable-dev-shm-usage"):
        options.add_argument(word)
    options.binary_location = str(shutil.which("chromium"))
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.set_page_load_timeout(120)
    try:
        yield Page(driver)
    finally:
        driver.quit()


class Page:
    """What is on the screen. Everything waits until it is there."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    @property
    def address(self) -> str:
        return self._driver.current_url

    @property
    def text(self) -> str:
        found = self._driver.find_elements("tag name", "body")
        return self._tried(lambda: found[0].text if found else "") or ""

    def go(self, url: str) -> None:
        self._driver.get(url)

    def await_text(self, *texts: str, within_s: float = SEE_S) -> None:
        """Wait until all of these stand on the page."""

        def seen() -> bool:
            text = self.text
            return all(each in text for each in texts)

        self._await(seen, f"the text {texts}", within_s)

    def press(self, text: str, selector: str = "button") -> None:
        """Press the button (or another kind of element) with exactly this text."""
        self._await(lambda: self._press(selector, text), f"a {selector} {text!r} to press", SEE_S)

    def press_until(self, text: str, condition: Any, what: str) -> None:
        """Press a button, and again while it is there and nothing comes of it."""

        def done() -> bool:
            self._press("button", text)
            with suppress(AssertionError):
                wait_until(condition, what, AGAIN_S)
                return True
            return False

        self._await(done, what, SEE_S)

    def type_into(self, selector: str, text: str) -> None:
        """Replace what stands in a field."""
        from selenium.webdriver.common.keys import Keys

        def typed() -> bool:
            fields = self._driver.find_elements("css selector", selector)
            if not fields:
                return False
            fields[0].send_keys(Keys.CONTROL, "a")
            fields[0].send_keys(text)
            return bool(fields[0].get_attribute("value") == text)

        self._await(lambda: self._tried(typed), f"the field {selector}", SEE_S)

    def press_enter(self, selector: str) -> None:
        from selenium.webdriver.common.keys import Keys

        self._driver.find_element("css selector", selector).send_keys(Keys.ENTER)

    def picture(self, path: str) -> None:
        self._driver.save_screenshot(path)

    def _press(self, selector: str, text: str) -> bool:
        def pressed() -> bool:
            for element in self._driver.find_elements("css selector", selector):
                ready = element.is_displayed() and element.is_enabled()
                if ready and element.text.strip() == text:
                    element.click()
                    return True
            return False

        return bool(self._tried(pressed))

    def _await(self, condition: Any, what: str, within_s: float) -> None:
        try:
            wait_until(condition, what, within_s)
        except AssertionError as error:
            raise AssertionError(f"{error} at {self.address}; it says:\n{self.text}") from None

    def _tried(self, look: Any) -> Any:
        """What a look finds; nothing while the page is being drawn anew under it."""
        from selenium.common.exceptions import WebDriverException

        try:
            return look()
        except WebDriverException:
            return None
