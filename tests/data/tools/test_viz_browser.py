"""The page in a real browser, opened from disk: what it shows, and that all moves in step."""

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leray.data.features import Feature, Features
from leray.data.lerobot.reader import DatasetReader
from leray.data.lerobot.writer import DatasetWriter
from leray.data.tools.viz.page import write_page
from tests.browser import Browser, headless_browser

SAMPLES = Path(__file__).parents[4] / "shared" / "data"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with headless_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def filmed_page(filmed, tmp_path_factory):
    output = tmp_path_factory.mktemp("page") / "filmed page.html"
    write_page(DatasetReader.open(filmed), output, name="filmed")
    return output


@pytest.fixture
def viewer(browser, filmed_page):
    """The browser with the filmed dataset freshly open and its first pictures decoded."""
    browser.errors.clear()
    browser.requests.clear()
    browser.open(filmed_page, height=1600)
    assert_shows(browser, 0, 0)
    yield browser
    assert browser.errors == []


def settle(browser: Browser) -> None:
    """Wait until the videos show what was sought."""
    browser.wait("cameras.every(c => c.video.readyState >= 2 && !c.video.seeking && !c.wanted)")


def pixels(browser: Browser, camera: int) -> np.ndarray:
    """Return what a video shows now, as its browser decoded it."""
    width, height, values = browser.js(
        f"""(() => {{
          const video = cameras[{camera}].video;
          const canvas = document.createElement("canvas");
          [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
          const context = canvas.getContext("2d");
          context.drawImage(video, 0, 0);
          const image = context.getImageData(0, 0, canvas.width, canvas.height);
          return [canvas.width, canvas.height, [...image.data]];
        }})()"""
    )
    return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]


def shown(browser: Browser, camera: int) -> tuple[int, int, int]:
    """Return the episode a video shows, and the frame by its left and its right half."""
    picture = pixels(browser, camera).astype(float)
    left, right = picture[10:40, 5:25, 0].mean(), picture[10:40, 40:60, 0].mean()
    episode = (picture[..., 1].mean() - 60) / 100
    return round(episode), round((left - 20) / 7), round((235 - right) / 7)


def assert_shows(browser: Browser, episode: int, frame: int, timeout_s: float = 20.0) -> None:
    """Check that both videos come to show a frame; decoded pictures are painted a little later."""
    settle(browser)
    deadline = time.monotonic() + timeout_s
    while (seen := [shown(browser, 0), shown(browser, 1)]) != [(episode, frame, frame)] * 2:
        assert time.monotonic() < deadline, f"{seen} instead of episode {episode}, frame {frame}"
        time.sleep(0.02)


def cursor_x(browser: Browser, plot: int) -> float:
    """Return where a plot's cursor is, in pixels from the plot's left side."""
    found = f"plots[{plot}]"
    return browser.js(
        f"{found}.cursor.getBoundingClientRect().x - {found}.stage.getBoundingClientRect().x"
    )


def expected_x(browser: Browser, plot: int, frame: int, length: int) -> float:
    width = browser.js(f"plots[{plot}].stage.clientWidth")
    return 56 + (width - 56 - 8) * frame / (length - 1)


def test_it_opens_from_disk_and_shows_pictures_and_plots(viewer):
    assert viewer.js("location.protocol") == "file:"
    assert viewer.js("document.title") == "filmed"
    facts = viewer.js("document.getElementById('facts').innerText")
    for fact in ("10", "fps", "2", "episodes", "42", "frames", "4.2 s", "v3.0"):
        assert fact in facts
    for number in (1, 2):
        picture = viewer.part(f"figure:nth-child({number}) video").astype(int)
        middle = picture.shape[1] // 2
        left, right = picture[:, : middle - 8, 0].mean(), picture[:, middle + 8 :, 0].mean()
        assert (left, right) == (pytest.approx(20, abs=4), pytest.approx(235, abs=4))
    for number in range(1, 6):
        plot = viewer.part(f".plot:nth-child({number}) canvas").reshape(-1, 3)
        assert len(np.unique(plot, axis=0)) > 10


def test_it_asks_for_nothing_but_itself(viewer, filmed_page):
    assert filmed_page.resolve().as_uri() in viewer.requests
    schemes = {url.partition(":")[0] for url in viewer.requests}
    assert schemes <= {"file", "blob", "data"}
    assert sum(url.startswith("file:") for url in viewer.requests) == 1


def test_the_policy_forbids_foreign_scripts_and_requests(browser, filmed_page):
    browser.open(filmed_page)
    browser.js(
        """(() => {
          const script = document.createElement("script");
          script.textContent = "document.title = 'owned'";
          document.body.append(script);
        })()"""
    )
    refused = "fetch(location.href).then(() => 'let through', () => 'refused')"
    assert browser.js(refused) == "refused"
    assert browser.js("document.title") == "filmed"


def test_texts_are_shown_as_text(viewer, filmed):
    hostile = DatasetReader.open(filmed).tasks[1]
    viewer.js("pick(1)")
    viewer.js("seek(9)")
    assert viewer.js("document.getElementById('task').textContent") == f"{hostile}note {hostile}"
    assert viewer.js("document.getElementById('facts').textContent").count(hostile) == 1
    assert viewer.js("document.querySelectorAll('img').length") == 0
    assert viewer.js("document.title") == "filmed"


def test_every_frame_is_the_one_asked_for(viewer):
    for episode, length in enumerate((30, 12)):
        viewer.js(f"pick({episode})")
        for frame in np.random.default_rng(episode).permutation(length).tolist():
            viewer.js(f"seek({frame})")
            assert_shows(viewer, episode, frame)


def test_the_slider_moves_videos_and_plots(viewer):
    x, y, width, height = viewer.box("#slider")
    before = viewer.part("figure:nth-child(1) video").astype(int)
    viewer.click(x + width * 0.7, y + height / 2)
    frame = viewer.js("Number(document.getElementById('slider').value)")
    settle(viewer)
    assert 18 <= frame <= 22
    times = viewer.js("cameras.map(c => c.video.currentTime)")
    assert times == [pytest.approx((frame + 0.5) / 10, abs=1e-4)] * 2
    assert_shows(viewer, 0, frame)
    assert np.abs(viewer.part("figure:nth-child(1) video") - before).mean() > 20
    for plot in range(5):
        assert cursor_x(viewer, plot) == pytest.approx(expected_x(viewer, plot, frame, 30), abs=1)
    clock = viewer.js("document.getElementById('clock').innerText")
    assert clock == f"{frame / 10:.2f} s / 2.90 s · frame {frame} / 29"


def test_clicking_into_a_plot_seeks(viewer):
    x, y, _, height = viewer.box(".plot:nth-child(2) .stage")
    viewer.click(x + expected_x(viewer, 1, 24, 30), y + height / 2)
    assert viewer.js("now.frame") == 24
    assert_shows(viewer, 0, 24)


def test_the_picker_changes_videos_plots_and_slider(viewer):
    plot = viewer.part(".plot:nth-child(1) canvas")
    viewer.click_on("#episodes li:nth-child(2) button")
    assert_shows(viewer, 1, 0)
    assert viewer.js("document.getElementById('slider').max") == "11"
    other = viewer.part(".plot:nth-child(1) canvas")
    assert other.shape == plot.shape
    assert (other != plot).any()
    current = "document.querySelector('#episodes [aria-current=true]').innerText"
    assert viewer.js(current).startswith("1")


def test_playing_moves_all_in_step_and_ends_at_the_last_frame(viewer):
    viewer.key(" ")
    viewer.wait("now.frame >= 5")
    viewer.key(" ")
    settle(viewer)
    frame = viewer.js("now.frame")
    assert 5 <= frame < 29
    assert_shows(viewer, 0, frame)
    assert cursor_x(viewer, 0) == pytest.approx(expected_x(viewer, 0, frame, 30), abs=1)
    viewer.js("const speed = document.getElementById('speed'); speed.value = '4'; speed.onchange()")
    viewer.key(" ")
    viewer.wait("!now.playing")
    assert viewer.js("now.frame") == 29
    assert_shows(viewer, 0, 29)


def test_keys(viewer):
    for key, shift, frame in (
        ("ArrowRight", False, 1),
        ("ArrowRight", True, 11),
        ("ArrowLeft", False, 10),
        ("ArrowLeft", True, 0),
        ("ArrowLeft", False, 0),
        ("End", False, 29),
        ("ArrowRight", False, 29),
        ("Home", False, 0),
    ):
        viewer.key(key, shift=shift)
        assert viewer.js("now.frame") == frame
    for key, episode in (("ArrowDown", 1), ("ArrowDown", 1), ("ArrowUp", 0)):
        viewer.key(key)
        assert viewer.js("now.episode") == episode


def test_hovering_reads_values_out(viewer):
    values = "plots[1].entries.map(entry => entry.value.textContent)"
    x, y, _, height = viewer.box(".plot:nth-child(1) .stage")
    viewer.move_to(x + expected_x(viewer, 0, 3, 30), y + height / 2)
    assert viewer.js(values) == ["NaN", "0.8253", "0.5000"]
    assert viewer.js("plots[0].hoverText.textContent") == "0.30 s · 3"
    viewer.move_to(x + expected_x(viewer, 0, 4, 30), y + height / 2)
    assert viewer.js(values)[0] == "∞"
    viewer.move_to(5, 5)
    assert viewer.js(values) == ["0.0000", "1.0000", "0.5000"]
    assert viewer.js("plots[3].entries[0].value.textContent") == "no"


def test_the_legend_hides_lines(viewer):
    def colours() -> list[bool]:
        plot = viewer.part(".plot:nth-child(1) canvas").reshape(-1, 3).astype(int)
        swatches = viewer.js(
            """plots[0].entries.map(({ swatch }) => {
              const context = new OffscreenCanvas(1, 1).getContext("2d");
              context.fillStyle = getComputedStyle(swatch).backgroundColor;
              context.fillRect(0, 0, 1, 1);
              return [...context.getImageData(0, 0, 1, 1).data.slice(0, 3)];
            })"""
        )
        viewer.move_to(5, 5)
        return [bool((np.abs(plot - swatch).max(1) <= 2).any()) for swatch in swatches]

    assert colours() == [True, True, True]
    viewer.click_on(".plot:nth-child(1) .legend button:nth-child(2)")
    viewer.move_to(5, 5)
    assert colours() == [True, False, True]
    viewer.click_on(".plot:nth-child(1) .title button")
    viewer.move_to(5, 5)
    assert colours() == [True, True, True]


def test_it_follows_the_dark_scheme(browser, filmed_page):
    brightness = []
    for dark in (False, True):
        browser.open(filmed_page, dark=dark)
        brightness.append(browser.screenshot()[-5:, :5].mean())
    assert brightness[0] > 200
    assert brightness[1] < 60


@pytest.mark.parametrize("width", [360, 800, 1400])
def test_it_fits_every_width(browser, filmed_page, width):
    browser.open(filmed_page, width=width)
    inside = browser.js("document.documentElement.clientWidth")
    assert browser.js("document.documentElement.scrollWidth") == inside
    x, y, across, high = browser.box("#transport")
    assert x >= 0
    assert x + across <= width
    assert y + high <= 900


@pytest.mark.parametrize("length", [1, 2, 100_000])
def test_numbers_alone_of_any_length(browser, tmp_path, length):
    features = {"action": Feature("float32", (12,)), "next.done": Feature("bool", (1,))}
    rng = np.random.default_rng(0)
    action = rng.normal(size=(length, 12)).astype(np.float32)
    action[length // 2] = 40.0
    with DatasetWriter.create(tmp_path / "d", fps=50, features=Features(features)) as writer:
        writer.add_episode({"action": action, "next.done": np.zeros(length, bool)}, "move")
    write_page(DatasetReader.open(tmp_path / "d"), tmp_path / "page.html", name="numbers")
    browser.errors.clear()
    browser.open(tmp_path / "page.html")
    assert browser.js("getComputedStyle(document.getElementById('cameras')).display") == "none"
    timed = "(() => { const t = performance.now(); {} return performance.now() - t; })()"
    drawing_ms = browser.js(timed.replace("{}", "plots.forEach(plot => plot.draw());"))
    assert drawing_ms < 500
    moving_ms = browser.js(timed.replace("{}", "for (let i = 0; i < 100; i++) show(0);"))
    assert moving_ms < 500
    assert browser.js("plots[0].range()[1]") > 40
    browser.key(" ")
    browser.wait(f"now.frame >= {min(length - 1, 5)}")
    browser.key(" ")
    assert browser.errors == []


def test_a_recorded_dataset(browser, tmp_path):
    root = SAMPLES / "so101_rosbag_v30"
    if not root.is_dir():
        pytest.skip("the recorded dataset so101_rosbag_v30 is not on this machine")
    reader = DatasetReader.open(root, episodes=[4, 5])
    write_page(reader, tmp_path / "page.html", name=root.name)
    browser.errors.clear()
    browser.open(tmp_path / "page.html")
    settle(browser)
    starts = (0, 90)
    for episode, frame in ((0, 40), (1, 150), (0, 89)):
        browser.js(f"pick({episode}); seek({frame})")
        settle(browser)
        expected = reader.read_frames(
            "observation.images.wrist", np.array([starts[episode] + frame])
        )
        small = Image.fromarray(expected[0]).resize((320, 180), Image.Resampling.BOX)
        seen = pixels(browser, 0).astype(int)
        assert seen.shape == (180, 320, 3)
        assert seen.std() > 20
        assert np.abs(seen - np.asarray(small, int)).mean() < 4
    assert browser.js("plots.map(plot => plot.feature.name)") == ["observation.state", "action"]
    assert browser.errors == []
