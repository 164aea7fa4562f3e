"""The playground in a browser: any file is read or refused in words, and nothing goes elsewhere.

What stands in front of the networks is tested with a worker that makes its answers up (fake_worker.js); the last tests
ask the real one, where it was built.
"""

import functools
import hashlib
import http.server
import io
import json
import re
import shutil
import struct
import sys
import threading
import zlib
from base64 import b64decode, b64encode
from pathlib import Path

import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image, ImageDraw

from cvlab import run

sys.path.insert(0, str(run.book_root() / "book"))

import playground_page

ROOT = run.book_root()
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
FAKE = Path(__file__).with_name("fake_worker.js")
MODELS = ("lite0", "detector", "segmenter", "eyes", "eyes_mended", "pavement", "pavement_mended")
WORDS = "[data-part=words]"


@pytest.fixture(scope="module")
def folder(pages, tmp_path_factory):
    """The page and what it needs, with the made-up worker in the place of the real one."""
    target = tmp_path_factory.mktemp("playground")
    shutil.copytree(pages / "_static" / "fonts", target / "_static" / "fonts")
    for name in ("logo.svg", "favicon.svg"):
        shutil.copyfile(pages / "_static" / name, target / "_static" / name)
    (target / "playground").mkdir()
    for path in (pages / "playground").iterdir():
        if path.suffix in (".js", ".css", ".png", ".webp"):
            shutil.copyfile(path, target / "playground" / path.name)
    shutil.copyfile(FAKE, target / "playground" / "worker.js")
    page = BeautifulSoup((pages / "playground.html").read_text(encoding="utf-8"), "html.parser")
    told = page.find("script", {"data-part": "data"})
    data = json.loads(told.string) | {"models": dict.fromkeys(MODELS, 2_000_000), "runtime": 3_000_000}
    told.string.replace_with(json.dumps(data))
    page.html["data-built"] = ""
    (target / "playground.html").write_text(str(page), encoding="utf-8")
    return target


@pytest.fixture(scope="module")
def address(folder):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/playground.html"
    server.shutdown()


class Playground:
    """The page, opened, with what a reader does there, and all that it asked for and complained of."""

    def __init__(self, browser, address, width=1280, scheme="light", **options):
        self.context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme, **options)
        self.context.set_default_timeout(15_000)
        self.page = self.context.new_page()
        self.asked, self.complaints = [], []
        self.context.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda m: m.type in ("error", "warning") and self.complaints.append(m.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(address, wait_until="networkidle")

    def drop(self, name, content):
        """Give the page a file as a reader would, and wait for words about it."""
        self.page.set_input_files("[data-part=file]", {"name": name, "mimeType": "", "buffer": content})
        return self.answer()

    def answer(self):
        """Wait until the page has an answer; give (words, error)."""
        self.page.wait_for_function(
            "() => document.querySelector('[data-part=status]').hidden && !document.querySelector('[aria-busy]') &&"
            " ['words', 'error'].some(name => document.querySelector(`[data-part=${name}]`).textContent)"
        )
        return tuple(self.page.locator(f"[data-part={name}]").text_content() for name in ("words", "error"))

    def pixels(self):
        """Give the image that the page shows, (H, W, 4) uint8."""
        url = self.page.evaluate("document.querySelector('canvas[data-part=image]').toDataURL()")
        return np.asarray(Image.open(io.BytesIO(b64decode(url.partition(",")[2]))).convert("RGBA"))

    def choose(self, name):
        self.page.click(f"[data-image={name}]")
        return self.answer()


@pytest.fixture(scope="module")
def playground(browser, address):
    opened = []

    def go(fragment="", **options):
        opened.append(Playground(browser, address + fragment, **options))
        return opened[-1]

    yield go
    for each in opened:
        each.context.close()


@pytest.fixture(scope="module")
def desk(playground):
    """One page for all tests that need nothing special."""
    return playground()


# ---- files ---------------------------------------------------------------------------------------


def quarters(width=60, height=40):
    """An image whose quarters are red, green, blue and yellow, so that turning it shows."""
    image = Image.new("RGB", (width, height))
    draw, (x, y) = ImageDraw.Draw(image), (width // 2, height // 2)
    for place, colour in (((0, 0), "red"), ((x, 0), "lime"), ((0, y), "blue"), ((x, y), "yellow")):
        draw.rectangle([*place, place[0] + x, place[1] + y], fill=colour)
    return image


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned_by_exif():
    """The quarters, stored lying on their side, with the EXIF note that says how to put them upright."""
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90° clockwise to see it upright
    return encoded(quarters().transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=exif)


def moving_gif():
    return encoded(quarters(), "GIF", save_all=True, append_images=[Image.new("RGB", (60, 40), "black")], duration=50)


def with_alpha():
    image = quarters().convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    return encoded(image, "PNG")


def claims_to_be_huge():
    """A small PNG whose header says 30,000 × 30,000 pixels."""
    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + head
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + bytes(64)


READ = {
    "a JPEG turned by EXIF": ("photo.jpg", turned_by_exif, (40, 60)),
    "a PNG": ("image.png", lambda: encoded(quarters(), "PNG"), (40, 60)),
    "a CMYK JPEG": ("print.jpg", lambda: encoded(quarters().convert("CMYK"), "JPEG", quality=95), (40, 60)),
    "the first frame of a moving GIF": ("moving.gif", moving_gif, (40, 60)),
    "a WebP with the wrong name": ("notes.txt", lambda: encoded(quarters(), "WEBP", lossless=True), (40, 60)),
    "a BMP": ("old.bmp", lambda: encoded(quarters(), "BMP"), (40, 60)),
    "a grey image of 16 bits": ("deep.png", lambda: encoded(Image.new("I;16", (8, 8), 40_000), "PNG"), (8, 8)),
    "one pixel": ("dot.png", lambda: encoded(Image.new("RGB", (1, 1), "red"), "PNG"), (1, 1)),
    "a line of one pixel": ("line.png", lambda: encoded(Image.new("RGB", (5_000, 1), "red"), "PNG"), (1, 1_024)),
}
REFUSED = {
    "0 bytes": ("empty.jpg", lambda: b"", "empty"),
    "a text file": ("notes.jpg", lambda: b"Dear diary, today I named a text file as an image.\n", "text file"),
    "a text file of another alphabet": ("notes.png", lambda: "Привет, мир! Это не картинка.".encode(), "text file"),
    "a web page": ("page.png", lambda: b"<!DOCTYPE html><html><body>hello</body></html>", "web page"),
    "an SVG": (
        "drawing.png",
        lambda: (
            b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>parent.hacked = 1</script></svg>'
        ),
        "SVG",
    ),
    "a HEIC": ("IMG_1.HEIC", lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(400), "HEIC"),
    "a broken PNG": ("broken.png", lambda: encoded(quarters(), "PNG")[:60], "damaged"),
    "a broken JPEG": ("broken.jpg", lambda: turned_by_exif()[:90], "damaged"),
    "a PDF": ("paper.pdf", lambda: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "PDF"),
    "noise": ("noise.jpg", lambda: np.random.default_rng(0).bytes(5_000), "no image of a kind"),
    "900 megapixels": ("huge.png", claims_to_be_huge, "900 megapixels"),
}


@pytest.mark.parametrize("what", READ)
def test_a_file_is_read_whatever_its_name(desk, what):
    name, make, size = READ[what]
    words, error = desk.drop(name, make())
    assert error == ""
    assert words.startswith("tiger cat")
    assert desk.pixels().shape[:2] == size
    assert desk.complaints == []


@pytest.mark.parametrize("what", ["a JPEG turned by EXIF", "a PNG", "a CMYK JPEG", "the first frame of a moving GIF"])
def test_an_image_stands_upright_in_its_colours(desk, what):
    name, make, _ = READ[what]
    desk.drop(name, make())
    expected = np.asarray(quarters())
    corners = [(3, 3), (3, -4), (-4, 3), (-4, -4)]
    for y, x in corners:
        found = desk.pixels()[y, x, :3].astype(int)
        assert np.abs(found - expected[y, x]).max() < (90 if "CMYK" in what else 30), (what, y, x)


def test_what_is_transparent_is_white(desk):
    desk.drop("glass.png", with_alpha())
    assert (desk.pixels() == 255).all()


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_image_is_refused_in_words_and_the_page_goes_on(desk, what):
    name, make, told = REFUSED[what]
    words, error = desk.drop(name, make())
    assert told in error
    assert error.endswith((".", "first.")) and len(error) < 220
    assert desk.page.evaluate("window.hacked") is None
    words, error = desk.drop("image.png", encoded(quarters(), "PNG"))
    assert words.startswith("tiger cat") and error == ""
    assert desk.complaints == []


def test_forty_megapixels_are_scaled_down_while_the_page_answers(desk):
    large = encoded(quarters(8_000, 5_000), "JPEG", quality=60)
    desk.page.evaluate(
        """() => { window.longest = 0; let last = performance.now(); const beat = () => { const now = performance.now();
        longest = Math.max(longest, now - last); last = now; window.beating && setTimeout(beat, 5); };
        window.beating = true; beat(); }"""
    )
    words, error = desk.drop("large.jpg", large)
    assert (error, words[:9]) == ("", "tiger cat")
    assert desk.pixels().shape[:2] == (640, 1024)
    assert "8000 × 5000" in desk.page.locator("[data-part=caption]").text_content()
    assert desk.page.evaluate("window.beating = false, window.longest") < 1_000


def test_an_image_can_be_pasted_and_dropped(desk):
    give = """([kind, bytes]) => { const data = new DataTransfer();
        if (bytes) data.items.add(new File([new Uint8Array(bytes)], "image.png"));
        else data.setData("text/plain", "hello");
        const event = kind === "paste" ? new ClipboardEvent(kind, {clipboardData: data, bubbles: true})
            : new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true});
        document.querySelector("#playground").dispatchEvent(event); }"""
    for kind in ("paste", "drop"):
        desk.page.evaluate(give, [kind, None])
        assert desk.answer()[1] != ""
        desk.page.evaluate(give, [kind, list(encoded(quarters(30, 30), "PNG"))])
        assert desk.answer()[1] == ""
        assert desk.pixels().shape[:2] == (30, 30)


# ---- the views -----------------------------------------------------------------------------------


def test_a_photograph_its_class_and_why_take_three_taps_on_a_phone(playground):
    phone = playground(width=390, has_touch=True, is_mobile=True, device_scale_factor=2)
    with phone.page.expect_file_chooser() as chooser:
        phone.page.tap("[data-do=camera]")  # the first
    chooser.value.set_files({"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": turned_by_exif()})
    words, _ = phone.answer()
    assert re.fullmatch(r"tiger cat \d+\s%, lynx 12\s%, tabby 8\s%, .*", words)
    phone.page.tap("[data-target='281']")  # the second
    words, _ = phone.answer()
    assert words == "Grad-CAM for lynx"
    assert phone.page.get_attribute("[data-target='281']", "aria-pressed") == "true"
    assert phone.page.evaluate("document.querySelector('canvas[data-part=map]').width") == 24
    assert phone.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert phone.complaints == []


def test_nothing_is_loaded_before_the_first_click(playground):
    opened = playground()
    before = [url.rpartition("/")[2].partition("?")[0] for url in opened.asked]
    allowed = r"playground\.(html|js|css)|.*-thumb\.webp|source-.*\.woff2|.*\.svg"
    assert [name for name in before if not re.fullmatch(allowed, name)] == []
    opened.choose("cat")
    assert any("worker.js" in url for url in opened.asked)


def test_a_link_shows_its_image_and_waits_for_a_click(playground):
    opened = playground("#view=explain&method=saliency&network=pavement&image=car")
    opened.page.wait_for_selector("[data-part=stage][data-full]")
    assert opened.page.get_attribute("[data-view=explain]", "aria-selected") == "true"
    assert opened.page.input_value("[data-part=network]") == "pavement"
    assert not any("worker.js" in url for url in opened.asked)
    button = opened.page.locator("[data-do=run]")
    assert re.fullmatch(r"Explain this image \(up to 5\.0\sMB to load\)", button.text_content())
    button.click()
    words, error = opened.answer()
    assert error == "" and re.fullmatch(r"Saliency for tiger cat: \d+\s% of the map lies inside the car", words)
    assert "of the image" in opened.page.locator("[data-part=told]").text_content()


def test_the_switch_asks_the_network_with_mended_data(playground):
    opened = playground()
    opened.choose("dog")
    assert opened.page.input_value("[data-part=network]") == "eyes"
    opened.page.click("[data-mended=true]")
    opened.answer()
    assert "network=eyes_mended" in opened.page.url
    opened.page.select_option("[data-part=network]", "lite0")
    opened.answer()
    assert not opened.page.is_visible("[data-part=mended]")


def test_thresholds_filter_the_boxes_again(playground):
    opened = playground()
    opened.choose("table")
    opened.page.click("[data-view=detect]")
    assert re.fullmatch(r"1 box: cat 92\s%", opened.answer()[0])
    assert "of 3 toys found" in opened.page.locator("[data-part=told]").text_content()
    opened.page.focus("[data-part=threshold]")
    for _ in range(3):
        opened.page.keyboard.press("ArrowLeft")
    opened.page.wait_for_function(f"() => document.querySelector('{WORDS}').textContent.startsWith('2 boxes')")
    opened.page.check("[data-part=truth-box]")
    assert opened.page.locator("[data-part=layer] .pg-true").count() == 3
    assert opened.complaints == []


def test_a_segmentation_says_the_shares_and_how_many_pixels_are_right(playground):
    opened = playground()
    opened.choose("lawn")
    opened.page.click("[data-view=segment]")
    assert re.fullmatch(r"floor 75\s%, cat 25\s%", opened.answer()[0])
    assert re.search(r"Pixel accuracy .*: \d+\s%", opened.page.locator("[data-part=told]").text_content())


def test_a_place_says_what_lies_there_by_mouse_and_keyboard(playground):
    opened = playground()
    opened.choose("cat")
    opened.page.click("[data-view=explain]")
    opened.answer()
    opened.page.locator("[data-part=stage]").click(position={"x": 10, "y": 10})
    opened.page.wait_for_function(
        "() => document.querySelector('[data-part=place]').textContent.includes('segmentation')"
    )
    corner = opened.page.locator("[data-part=place]").text_content()
    assert "the truth is background" in corner and "says cat" in corner
    opened.page.focus("[data-part=stage]")
    opened.page.keyboard.press("ArrowRight")
    assert opened.page.locator("[data-part=place]").text_content() != ""
    assert opened.page.locator("[data-part=layer] ellipse").count() == 2


def test_a_network_that_fails_says_so_and_the_next_one_answers(playground):
    opened = playground()
    opened.choose("cat")
    opened.page.click("[data-view=explain]")
    opened.answer()
    opened.page.select_option("[data-part=method]", "occlusion")
    assert opened.answer()[1] == "Occlusion failed on purpose."
    opened.page.select_option("[data-part=method]", "cam")
    words, error = opened.answer()
    assert words.startswith("CAM for") and error == ""


def test_the_tabs_and_the_images_follow_the_keyboard(playground):
    opened = playground()
    opened.page.focus("[data-image=coffee]")
    opened.page.keyboard.press("Enter")
    opened.answer()
    opened.page.focus("[data-view=classify]")
    for view in ("detect", "segment", "explain", "classify"):
        opened.page.keyboard.press("ArrowRight")
        assert opened.page.evaluate("document.activeElement.dataset.view") == view
        opened.answer()
    outline = opened.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    opened.page.focus("[data-target='282']")
    opened.page.keyboard.press("Enter")
    assert opened.answer()[0] == "Grad-CAM for tabby"
    assert opened.page.evaluate("document.activeElement.dataset.view") == "explain"
    opened.page.focus("[data-target='283']")
    opened.page.keyboard.press("Enter")
    assert opened.answer()[0] == "Grad-CAM for Egyptian cat"
    assert opened.page.evaluate("document.activeElement.dataset.target") == "283", "the focus stays where it was"


def test_the_result_is_saved_as_a_png(playground):
    opened = playground(accept_downloads=True)
    opened.choose("chelsea")
    opened.page.click("[data-view=detect]")
    opened.answer()
    with opened.page.expect_download() as download:
        opened.page.click("[data-do=save]")
    assert download.value.suggested_filename == "playground-detect.png"
    image = Image.open(download.value.path())
    assert image.format == "PNG" and image.width >= 451 and image.height > 300


# ---- private, safe, and for everybody ------------------------------------------------------------


def test_the_policy_is_strict_and_its_hash_is_that_of_the_one_inline_script(pages):
    page = BeautifulSoup((pages / "playground.html").read_text(encoding="utf-8"), "html.parser")
    policy = page.find("meta", {"http-equiv": "Content-Security-Policy"})["content"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["connect-src"] == rules["worker-src"] == rules["style-src"] == "'self'"
    assert "unsafe-inline" not in policy and "http" not in policy and "*" not in policy
    inline = [tag.string for tag in page.find_all("script") if not tag.get("src") and not tag.get("type")]
    hashes = [b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in inline]
    assert rules["script-src"] == " ".join(["'self' 'wasm-unsafe-eval'", *(f"'sha256-{one}'" for one in hashes)])
    assert not page.find_all(style=True)
    assert not page.find_all(lambda tag: any(name.startswith("on") for name in tag.attrs))


def test_nothing_is_asked_elsewhere_and_nothing_is_stored(desk):
    own = desk.page.evaluate("location.origin")
    assert [url for url in desk.asked if not url.startswith((own, "blob:", "data:"))] == []
    assert desk.context.cookies() == []
    stored = "(async () => [localStorage.length, sessionStorage.length, (await indexedDB.databases()).length])()"
    assert desk.page.evaluate(stored) == [0, 0, 0]


def test_the_browser_keeps_the_page_from_asking_elsewhere(playground):
    opened = playground()
    refused = "fetch('http://elsewhere.invalid/').then(() => 'sent', error => String(error))"
    assert "sent" not in opened.page.evaluate(refused)
    assert any("Content Security Policy" in line for line in opened.complaints)
    inline = "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))"
    opened.page.evaluate(inline)
    assert opened.page.evaluate("window.ran") is None


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_barrier_in_any_view(playground, scheme, width):
    opened = playground(scheme=scheme, width=width, bypass_csp=True)
    told = []
    for view in ("none", "classify", "detect", "segment", "explain"):
        if view == "classify":
            opened.choose("table")
        elif view != "none":
            opened.page.click(f"[data-view={view}]")
            opened.answer()
        opened.page.evaluate(AXE.read_text(encoding="utf-8"))
        found = opened.page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
        told += [f"{view}: {v['id']}: {node['html'][:150]}" for v in found for node in v["nodes"]]
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    assert told == []


def test_from_a_disk_it_says_in_one_sentence_that_it_needs_a_server(browser, folder):
    opened = Playground(browser, (folder / "playground.html").as_uri())
    needs = opened.page.locator("[data-part=needs]")
    assert needs.is_visible()
    assert "python -m http.server" in needs.text_content() and needs.text_content().count(". ") == 0
    assert not opened.page.is_visible("[data-part=choose]")
    assert opened.complaints == []
    opened.context.close()


def test_without_networks_the_page_says_why(browser, folder, address):
    page = BeautifulSoup((folder / "playground.html").read_text(encoding="utf-8"), "html.parser")
    told = page.find("script", {"data-part": "data"})
    told.string.replace_with(json.dumps(json.loads(told.string) | {"models": None}))
    page.find(class_="pg-needs").string = playground_page.NO_MODELS.format("tfjs-core is missing")
    del page.html["data-built"]
    (folder / "bare.html").write_text(str(page), encoding="utf-8")
    opened = Playground(browser, address.replace("playground.html", "bare.html"))
    assert opened.page.locator("[data-part=needs]").text_content().endswith("tfjs-core is missing")
    assert not opened.page.is_visible("[data-part=choose]") and opened.complaints == []
    opened.context.close()


# ---- inside the lessons --------------------------------------------------------------------------


def lessons_with_a_link(pages):
    return [page for page in sorted((pages / "chapters").glob("week*/*.html")) if "cv-try" in page.read_text("utf-8")]


def test_each_lesson_with_a_method_opens_the_playground_in_place(pages):
    assert {page.stem for page in lessons_with_a_link(pages)} >= {"retinanet", "cam", "saliency", "grad_cam"}
    ids = {example[0] for example in playground_page.EXAMPLES}
    for page in lessons_with_a_link(pages):
        for frame in BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").select(".cv-try iframe"):
            told = dict(pair.split("=") for pair in frame["src"].partition("#")[2].split("&"))
            assert told["image"] in ids and told["embed"] == "1" and frame["loading"] == "lazy"
            assert (page.parent / frame["src"].partition("#")[0]).resolve() == pages / "playground.html"


def test_in_a_lesson_nothing_is_fetched_before_it_is_opened(browser, served, pages):
    name = lessons_with_a_link(pages)[0].relative_to(pages).as_posix()
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page, asked = context.new_page(), []
    context.on("request", lambda request: asked.append(request.url))
    complaints = []
    page.on("console", lambda message: message.type in ("error", "warning") and complaints.append(message.text))
    page.goto(f"{served}/{name}", wait_until="networkidle")
    page.locator(".cv-try").first.scroll_into_view_if_needed()
    page.wait_for_timeout(300)
    assert not any("playground.html" in url for url in asked)
    page.locator(".cv-try summary").first.click()
    frame = page.frame_locator(".cv-try iframe").first
    frame.locator("h1").wait_for(state="hidden")
    frame.locator("[data-part=stage][data-full]").wait_for()
    assert any("playground.html" in url for url in asked)
    assert complaints == []
    context.close()


# ---- the real networks ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(browser, served, pages):
    """The built page with the real worker, opened."""
    data = BeautifulSoup((pages / "playground.html").read_text(encoding="utf-8"), "html.parser")
    models = json.loads(data.find("script", {"data-part": "data"}).string)["models"]
    if not models:
        pytest.skip(data.find(class_="pg-needs").get_text())
    opened = Playground(browser, f"{served}/playground.html")
    opened.models = models
    opened.page.set_default_timeout(60_000)
    yield opened
    opened.context.close()


def test_the_real_networks_answer_in_every_view(real):
    own = real.page.evaluate("location.origin")
    words, error = real.choose("chelsea")
    assert error == "" and re.search(r"(tiger cat|tabby|Egyptian cat) \d+\s%", words)
    for view in ("explain", "detect", "segment"):
        real.page.click(f"[data-view={view}]")
        words, error = real.answer()
        if view == "segment" and "segmenter" not in real.models:
            assert "not part of this copy" in error
        else:
            assert error == "" and words
    assert [url for url in real.asked if not url.startswith((own, "blob:", "data:"))] == []
    assert real.complaints == []


def test_every_method_explains_the_car_and_mended_data_turn_smooth_grad_to_it(real):
    real.choose("car")
    real.page.click("[data-view=explain]")
    shares = {}
    for method in ("cam", "grad_cam", "saliency", "occlusion", "smooth_grad"):
        real.page.select_option("[data-part=method]", method)
        for mended in ("false", "true"):
            real.page.click(f"[data-mended={mended}]")
            words, error = real.answer()
            assert error == ""
            shares[method, mended] = int(re.search(r"(\d+)\s% of the map", words)[1])
    assert shares["cam", "true"] == shares["grad_cam", "true"], "the same map on the last features"
    assert shares["smooth_grad", "true"] > shares["smooth_grad", "false"]  # what the lesson shows


@pytest.mark.weekly
def test_two_hundred_images_leave_memory_flat(real):
    def used():
        session = real.context.new_cdp_session(real.page)
        session.send("HeapProfiler.collectGarbage")
        processes = browser_memory()
        session.detach()
        return processes

    rng = np.random.default_rng(0)
    for number in range(200):
        image = Image.fromarray(rng.integers(0, 256, (30, 40, 3), "uint8")).resize((800, 600))
        words, error = real.drop(f"{number}.jpg", encoded(image, "JPEG"))
        assert error == "" and words
        if number == 10:
            before = used()
    assert used() < 1.1 * before


def browser_memory():
    """Give the memory of the renderers of this machine's headless Chromium, in bytes."""
    total = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            if b"--type=renderer" in status.with_name("cmdline").read_bytes():
                total += int(re.search(r"RssAnon:\s+(\d+)", status.read_text())[1]) * 1024
        except (OSError, TypeError):
            continue  # it has ended
    return total
