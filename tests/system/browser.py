"""A real Chromium without a screen, and what it asked for: Debian's `chromium` and `chromium-driver`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from selenium import webdriver
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    StaleElementReferenceException,
)
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.patience import PATIENCE_S
from tests.system.harness import until

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
AXE: Final = "axe-core@4.14.1"
needs_chromium = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium here: apt-get install chromium chromium-driver")


class Browser:
    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        self.driver.get(url)

    def find(self, selector: str) -> WebElement:
        found: WebElement = until(lambda: self.driver.find_elements(By.CSS_SELECTOR, selector), why=selector)[0]
        return found

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """All that is in it, shown or not; read at once, so that no element is replaced meanwhile."""
        return str(self.run("return document.querySelector(arguments[0])?.textContent ?? ''", selector))

    def until_text(self, selector: str, wanted: Callable[[str], bool]) -> str:
        until(lambda: wanted(self.text(selector)), why=lambda: self.text(selector))
        return self.text(selector)

    def click(self, selector: str) -> None:
        """As soon as it can be: what streams in may just push it aside."""

        def clicked() -> bool:
            try:
                self.find(selector).click()
            except (ElementClickInterceptedException, ElementNotInteractableException, StaleElementReferenceException):
                return False
            return True

        until(clicked, why=f"{selector} can be clicked")

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def log_in(self, token: str) -> None:
        until(lambda: self.find("#secret").is_displayed(), why="the question for the token")
        self.find("#secret").send_keys(token)
        self.click("#login button")
        until(lambda: self.text("#line") == "live" and self.text("#facts"), why="the page is live, and shows the jar")

    def asked_for(self) -> list[str]:
        """URLs of every request since the last time, those that failed too."""
        entries = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]  # type: ignore[no-untyped-call]
        return [str(entry["params"]["request"]["url"]) for entry in entries if entry["method"] == "Network.requestWillBeSent"] + [
            str(entry["params"]["url"]) for entry in entries if entry["method"] == "Network.webSocketCreated"
        ]

    def said(self) -> list[str]:
        """What the browser complained about, since the last time."""
        entries = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [str(entry["message"]) for entry in entries if entry["level"] in ("SEVERE", "WARNING")]

    def heap_bytes(self) -> int:
        """In use, once what is not is collected."""
        self.driver.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
        return int(self.driver.execute_cdp_cmd("Runtime.getHeapUsage", {})["usedSize"])

    def nodes(self) -> int:
        return int(self.run("return document.querySelectorAll('*').length"))

    def look(self, width: int, height: int, *, dark: bool = False) -> None:
        """A screen of that size."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def picture(self, path: Path) -> None:
        assert self.driver.save_screenshot(str(path))


@contextmanager
def chromium() -> Iterator[Browser]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    # --no-sandbox: root, which tests may be, can have none; it is our own page alone that is opened
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,1400"):
        options.add_argument(argument)
    # its own services (updates, suggestions) are silenced, and names lead nowhere: what the page asks of others would be seen to fail
    for argument in ("--disable-background-networking", "--disable-component-update", "--no-first-run", "--no-proxy-server"):
        options.add_argument(argument)
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    try:
        yield Browser(driver)
    finally:
        driver.quit()


def axe(folder: Path) -> str:
    """The source of axe-core, fetched by npm and kept. Skip where it cannot be had."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "brainjar" / "tests"
    kept = cache / f"{AXE}.js"
    if not kept.exists():
        if shutil.which("npm") is None:
            pytest.skip("no npm here, which axe-core comes by")
        done = subprocess.run(["npm", "pack", "--silent", AXE], cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        if done.returncode:
            pytest.skip(f"axe-core cannot be fetched: {done.stderr.strip()[-200:]}")
        with tarfile.open(folder / done.stdout.strip().splitlines()[-1]) as packed:
            source = packed.extractfile("package/axe.min.js")
            assert source is not None
            cache.mkdir(parents=True, exist_ok=True)
            aside = kept.with_suffix(f".{os.getpid()}")
            aside.write_bytes(source.read())
            aside.rename(kept)
    return kept.read_text()
