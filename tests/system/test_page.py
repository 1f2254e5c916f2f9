"""The page in a real Chromium, beside a real jar: what happens there is seen here, and what is done here happens there."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from brainjar.messages import Death, SenseStatus, WatchdogStatus
from tests.fakejar import FakeJar
from tests.system.browser import Browser, axe, chromium, needs_chromium
from tests.system.conftest import THREE, MakeJar
from tests.system.harness import Jar, until
from tests.web.served import served

pytestmark = needs_chromium
TOP = Path(__file__).parents[2]
DOCS, CONFIGS = TOP / "docs", TOP / "configs"
WEB = "\n[web]\nenabled = true\nport = {port}\ncontrol = {control}\n"


def free_port() -> int:
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


@pytest.fixture
def page(browser: Browser) -> Iterator[Browser]:
    browser.driver.delete_all_cookies()
    browser.asked_for()
    browser.said()
    yield browser
    browser.open("about:blank")


def with_dashboard(make_jar: MakeJar, text: str = THREE, *, control: bool = True) -> tuple[Jar, str, str]:
    """(the jar, the address of its dashboard, the token)."""
    port = free_port()
    jar = make_jar(text + WEB.format(port=port, control=str(control).lower()))
    jar.start()
    jar.until_ready()
    until(lambda: jar.status()["web"]["serves"], why=lambda: jar.status()["web"])
    return jar, f"http://127.0.0.1:{port}/", (jar.state_dir / "web-token").read_text().strip()


def test_a_kill_on_the_page_is_a_death_and_a_resurrection_on_the_page(page: Browser, make_jar: MakeJar) -> None:
    jar, url, token = with_dashboard(make_jar)
    page.open(url)
    page.find("#secret").send_keys("nonsense")
    page.click("#login button")
    page.until_text("#refused", bool)
    page.find("#secret").clear()
    page.log_in(token)
    card = "#persona-subject"
    assert [one.text for one in page.all(".persona .name")] == ["subject", "observer", "god"]
    page.until_text(f"{card} .thought", lambda text: len(text) > 40)
    pid = jar.persona("subject")["pid"]
    page.click(f"{card} .kill")
    page.click("#question button[value=no]")
    page.click(f"{card} .kill")
    assert "Kill subject?" in page.text("#asked")
    assert jar.persona("subject")["pid"] == pid, "a question comes first, and no is no"
    page.click("#yes")
    page.until_text("#events", lambda text: "DEATH" in text and "RESURRECTION" in text)
    page.until_text(f"{card} .facts", lambda text: "life 2" in text and "1 death," in text and "killed-by-operator" in text)
    page.until_text(f"{card} .state", lambda text: text.startswith(("ready", "thinking")))
    assert jar.persona("subject")["pid"] != pid and jar.persona("subject")["deaths"] == 1
    for figure in ("memory", "timeline"):
        assert "killed-by-operator" in page.text(f"{card} .{figure} .death title"), figure
    assert "killed-by-operator" in page.text(f"{card} .thought")
    page.click("#search button")
    page.until_text("#found", lambda text: "killed-by-operator" in text)
    # the other orders
    page.click(f"{card} .pause")
    page.until_text(f"{card} .state", lambda text: text == "paused")
    until(lambda: page.text(f"{card} .pause") == "Resume", why="the button turns round")
    page.click(f"{card} .pause")
    page.until_text(f"{card} .state", lambda text: text.startswith(("ready", "thinking")))
    page.find(f"{card} .say input").send_keys("<img src=x onerror=alert(1)> <b>stone</b>")
    page.click(f"{card} .say button")
    page.until_text("#events", lambda text: "<b>stone</b>" in text)
    assert not page.all("#events b img, #events img, main b b") and not page.all("main script"), "text is only ever text"
    page.click(f"{card} .restart")
    page.click("#yes")
    page.until_text(f"{card} .answer", lambda text: "subject" in text)
    assert jar.persona("subject")["deaths"] == 1, "a restart in good order is no death"
    page.click("#leave")
    until(lambda: page.find("#secret").is_displayed() and not page.find("#shown").is_displayed(), why="it is left")
    # nothing has left the host, nothing was refused that the page itself needs
    assert [one for one in page.asked_for() if not one.startswith((url, "data:"))] == []
    assert [line for line in page.said() if "401" not in line] == []


def test_it_goes_on_over_a_restart_of_the_dashboard_and_forgets_no_death(page: Browser, make_jar: MakeJar) -> None:
    jar, url, token = with_dashboard(make_jar)
    page.open(f"{url}#{token}")
    until(lambda: page.text("#line") == "live", why="the token in the address is enough")
    assert token not in page.driver.current_url
    page.until_text("#persona-subject .thought", bool)
    page.run("window.kept = true")
    page.run(
        "const line = document.querySelector('#line'), what = {childList: true, characterData: true, subtree: true};"
        "window.lines = []; new MutationObserver(() => window.lines.push(line.textContent)).observe(line, what)"
    )
    dashboard = jar.status()["web"]["pid"]
    supervisor = jar.pid
    os.kill(dashboard, signal.SIGKILL)
    until(lambda: any(text.startswith("not live") for text in page.run("return window.lines")), why="it says that it is not live")
    jar.ask("kill", name="observer")  # while nobody looks
    jar.ask("say", name="god", text="Nobody is there.")
    until(lambda: jar.status()["web"]["serves"] and jar.status()["web"]["pid"] != dashboard, why=lambda: jar.status()["web"])
    page.until_text("#line", lambda text: text == "live")
    page.until_text("#events", lambda text: "DEATH" in text and "observer" in text and "Nobody is there." in text)
    before = len(page.text("#persona-subject .thought"))
    page.until_text("#persona-subject .thought", lambda text: len(text) != before)
    assert page.run("return window.kept") is True, "the page was never loaded again"
    assert jar.pid == supervisor and jar.persona("subject")["deaths"] == 0


def test_who_may_only_look_is_shown_nothing_to_press(page: Browser, make_jar: MakeJar) -> None:
    jar, url, token = with_dashboard(make_jar, control=False)
    page.open(f"{url}#{token}")
    page.until_text("#persona-god .state", bool)
    assert not any(one.is_displayed() for one in page.all(".controls"))
    answer = page.run("return fetch('/api/v1/personas/god/kill', {method: 'POST'}).then((one) => one.status)")
    assert answer == 403 and jar.persona("god")["deaths"] == 0


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeJar]:
    with FakeJar(tmp_path) as one:
        yield one


def test_axe_finds_no_serious_fault(page: Browser, make_jar: MakeJar, tmp_path: Path) -> None:
    source = axe(tmp_path)
    _, url, token = with_dashboard(make_jar)
    page.open(url)
    until(lambda: page.find("#secret").is_displayed(), why="the question for the token")
    faults = {"login": run_axe(page, source)}
    page.log_in(token)
    page.until_text("#persona-god .thought", bool)
    for name, (width, dark) in {"light": (1280, False), "dark": (1280, True), "phone": (360, False)}.items():
        page.look(width, 1400, dark=dark)
        faults[name] = run_axe(page, source)
    page.click("#persona-god .kill")
    faults["question"] = run_axe(page, source)
    page.click("#question button[value=no]")
    assert {name: found for name, found in faults.items() if found} == {}


def run_axe(page: Browser, source: str) -> list[str]:
    found = page.driver.execute_async_script(
        source + ";const done = arguments[arguments.length - 1], failed = (error) => [{id: String(error), impact: 'critical', nodes: []}];"
        "axe.run().then((found) => done(found.violations), (error) => done(failed(error)));"
    )
    return [f"{one['id']}: {[node['html'][:120] for node in one['nodes']]}" for one in found if one["impact"] in ("serious", "critical")]


@pytest.mark.parametrize("width", [360, 500, 1280])
def test_nothing_runs_out_of_the_screen(page: Browser, fake: FakeJar, width: int) -> None:
    disk = SenseStatus(sense="disk", where="/" + "long" * 40, value=12.3, level="calm", mark=95.0)
    fake.status = msgspec.structs.replace(fake.status, watchdog=WatchdogStatus(senses=(disk,)))
    with served(fake.state_dir, control=True) as one:
        page.look(width, 900)
        page.open(f"{one.url}/#{one.token}")
        page.until_text("#persona-subject .state", bool)
        until(lambda: one.dashboard.hears, why="the bus")
        fake.say("THOUGHT", "subject", "x" * 10_000 + " " + "word " * 200, life=1, metadata={"turn": 1})
        page.until_text("#persona-subject .thought", lambda text: "word" in text)
        page.until_text("#host", lambda text: "longlong" in text)
        assert page.run("return document.documentElement.scrollWidth") <= width
        for part in ("#host", "#persona-subject", "#events", "#search"):
            assert page.run("return document.querySelector(arguments[0]).getBoundingClientRect().right", part) <= width, part
        assert page.run("return document.querySelector('#host').getBoundingClientRect().height") < 400


def test_eight_hours_of_events_stay_bounded(page: Browser, fake: FakeJar) -> None:
    """What two personas say in them, as fast as the page takes it: a heartbeat and a token each second, a death every two minutes."""
    seconds, personas = 8 * 3600, ("subject", "observer")
    with served(fake.state_dir) as one:
        page.look(1280, 1400)
        page.open(f"{one.url}/#{one.token}")
        page.until_text("#line", lambda text: text == "live")
        until(lambda: one.dashboard.hears, why="the bus")
        sizes: list[tuple[int, int]] = []
        for second in range(seconds):
            for name in personas:
                fake.say("HEARTBEAT", name, life=1, metadata={"private_bytes": (40 + second % 60) << 20, "state": "thinking"})
                fake.say("TOKEN", name, " word", life=1, metadata={"turn": second // 100})
                if second % 120 == 0:
                    death = Death(persona=name, life=1, birth=second, at=time.time(), cause="segv")
                    fake.say("DEATH", name, f"{name} died", life=1, metadata={"cause": death.cause, "birth": death.birth, "at": death.at})
            if second % 200 == 199:
                fake.say("SAID", "subject", f"second {second}")
                page.until_text("#events li", lambda text, second=second: f"second {second}" in text)  # type: ignore[misc]
            if second in (seconds // 4, seconds // 2, seconds - 1):
                sizes.append((page.heap_bytes(), page.nodes()))
        early, _, late = sizes
        assert late[0] < early[0] * 1.5 + (4 << 20), f"{sizes}: it has grown"
        assert late[1] < 3000 and len(page.all("#events li")) <= 200, sizes
        assert len(page.text("#persona-subject .thought")) < 10_000
        assert len(one.dashboard.stream.ring) <= 8192


def test_the_pictures_of_the_docs(page: Browser, make_jar: MakeJar, tmp_path: Path) -> None:
    """BRAINJAR_PICTURES=SECONDS writes them anew, of a jar that has run for so long."""
    seconds = float(os.environ.get("BRAINJAR_PICTURES", "0"))
    jar, url, token = with_dashboard(make_jar, (CONFIGS / "matrix.toml").read_text() if seconds else THREE)
    page.look(1280, 1250)
    page.open(f"{url}#{token}")
    page.until_text("#line", lambda text: text == "live")
    end = time.monotonic() + seconds
    while True:
        jar.ask("kill", name="observer")
        page.until_text("#events", lambda text: "RESURRECTION" in text)
        page.until_text("#persona-observer .thought", bool)
        if time.monotonic() > end:
            break
        time.sleep(seconds / 4)
    page.click("#search button")
    page.until_text("#found", lambda text: "killed-by-operator" in text)
    page.until_text("#persona-observer .state", lambda text: text == "thinking")
    page.run("scrollTo(0, 0)")
    for name, (width, height, dark) in {"light": (1280, 975, False), "dark": (1280, 975, True), "phone": (390, 1400, False)}.items():
        page.look(width, height, dark=dark)
        picture = tmp_path / f"dashboard-{name}.png"
        page.picture(picture)
        assert picture.stat().st_size > 20_000
        if seconds:
            (DOCS / picture.name).write_bytes(picture.read_bytes())
