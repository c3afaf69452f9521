"""The page in a browser: it plays sounds, fits a phone, has a dark mode, and makes no requests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.evaluation.report.conftest import HURT, SECONDS
from tests.fixtures.chromium import Chromium, find_chromium

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium here: apt-get install chromium")

# Elements whose own letters have less contrast to what is behind them than WCAG 2.2 asks for at level AA.
PALE = """(() => {
  const channels = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = colour => {
    const linear = x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = channels(colour).map(x => linear(x / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = element => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      if (channels(colour)[3] !== 0) return colour;
    }
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].filter(n => n.nodeType === 3).map(n => n.data.trim()).join("");
    if (!text || ["SCRIPT", "STYLE"].includes(element.tagName) || !element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    const ink = light(element.closest("svg") ? style.fill : style.color), other = light(behind(element));
    const contrast = (Math.max(ink, other) + 0.05) / (Math.min(ink, other) + 0.05);
    if (contrast < 4.5) found.push(`${element.tagName} ${text}: ${contrast.toFixed(2)}`);
  }
  return found;
})()"""
UNNAMED = """[
  ...[...document.querySelectorAll("img")].filter(x => !x.alt),
  ...[...document.querySelectorAll("audio, svg, nav, [role=region]")].filter(x => !x.getAttribute("aria-label")),
].map(x => x.outerHTML.slice(0, 80))"""
IS_TOO_WIDE = "document.documentElement.scrollWidth > 375"  # a phone's innerWidth grows with what does not fit
UNFOLD = "document.querySelectorAll('details').forEach(x => x.open = true)"
BACKGROUND = "getComputedStyle(document.body).backgroundColor"


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Chromium]:
    with Chromium(find_chromium(), tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def opened(browser: Chromium, page: Path) -> Chromium:
    browser.show(1280)
    browser.open(page)
    return browser


def test_sounds_play_one_at_a_time(opened):
    states = opened.evaluate("""(async () => {
      const players = [...document.querySelectorAll("audio")], states = [];
      for (const player of players) {
        await player.play();
        const others = players.filter(x => x !== player).every(x => x.paused);
        while (player.currentTime < 0.2) await new Promise(go => setTimeout(go, 20));
        const line = player.closest("figure").querySelector(".now");
        const {controls, readyState, duration} = player;
        states.push([controls, readyState, duration, others, line.hidden, parseFloat(line.style.left)]);
      }
      return states;
    })()""")
    assert len(states) == 5  # three sounds, two controls
    for controls, ready, duration, others_wait, hidden, place in states:
        assert controls and ready == 4 and others_wait and not hidden
        assert duration == pytest.approx(SECONDS, abs=0.01)
        assert 0 < place <= 100


def test_no_requests_and_no_errors(opened, page):
    opened.evaluate(UNFOLD)
    assert [url for url in opened.requests if not url.startswith("data:")] == [page.resolve().as_uri()]
    assert opened.complaints == []
    broken = "[...document.querySelectorAll('img')].filter(x => !x.complete || !x.naturalWidth).length"
    assert opened.evaluate(broken) == 0


def test_user_text_is_not_markup(opened):
    assert opened.evaluate("typeof window.hurt") == "undefined"
    opened.evaluate(UNFOLD)
    shown = opened.evaluate("document.body.innerText")
    for text in (f"“{HURT}”", "b '\"><img src=x onerror=window.hurt=1>.png", f"{HURT}.wav: is silent"):
        assert text in shown
    assert opened.evaluate("document.querySelectorAll('script').length") == 1


def test_the_policy_blocks_injected_code(opened):
    """Even if a text were not escaped, its script would not run and its address would not be requested."""
    opened.evaluate("""(async () => {
      const holder = document.createElement("div");
      holder.innerHTML = "<img src='http://127.0.0.1:9/x.png' onerror='window.hurt = 1'>";
      document.body.append(holder);
      await new Promise(go => setTimeout(go, 200));
    })()""")
    assert opened.evaluate("typeof window.hurt") == "undefined"
    assert any("Content Security Policy" in event["entry"]["text"] for event in opened.named("Log.entryAdded"))


@pytest.mark.parametrize("dark", [False, True])
def test_fits_a_phone_and_is_readable(browser, page, dark):
    browser.show(375, dark=dark)
    browser.open(page)
    assert not browser.evaluate(IS_TOO_WIDE)
    browser.evaluate(UNFOLD)
    assert not browser.evaluate(IS_TOO_WIDE)
    assert browser.evaluate("[...document.querySelectorAll('img, svg, audio')].every(x => x.clientWidth <= 375)")
    assert browser.evaluate(PALE) == []
    assert browser.evaluate(UNNAMED) == []


def test_dark_mode(browser, page):
    lightness = []
    for dark in (False, True):
        browser.show(1280, dark=dark)
        browser.open(page)
        lightness.append([int(x) for x in browser.evaluate(BACKGROUND).strip("rgb()").split(",")])
    assert min(lightness[0]) > 240 and max(lightness[1]) < 40
