"""The built pages in a browser: they need nobody, every control works, and everybody can read them.

The tests of one page run in this order and share its visits: first those that only read, then those that change it.
"""

import functools
import gzip
import re
import sys
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup
from test_controls import KEYS, seen

from cvlab import run

sys.path.insert(0, str(run.book_root() / "book"))

import cells
import look

ROOT = run.book_root()
# Bytes transferred, at most: of a page as it opens, and of one that is read to its end.
FIRST_VIEW, LANDING, WHOLE = 350_000, 300_000, 900_000
HEIGHT, ELEMENTS = 20_000, 5_000  # of a lesson with everything folded, 1,280 pixels wide


def toc_pages():
    """Name the pages of _toc.yml: ["intro.html", "chapters/week1/transfer_learning.html", …]."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    files = [toc["root"]] + [c["file"] for part in toc.get("parts", [toc]) for c in part.get("chapters", [])]
    return [f"{file.removesuffix('.md').removesuffix('.ipynb')}.html" for file in files]


CHAPTERS = [f"chapters/{name}.html" for name in run.chapters()]
every_page = pytest.mark.parametrize("name", toc_pages())
every_chapter = pytest.mark.parametrize("name", CHAPTERS)
landing_page = pytest.mark.parametrize("name", ["intro.html"])
every_page_to_play_with = pytest.mark.parametrize("name", ["chapters/appendix/datasets.html", *CHAPTERS])
both_ways = pytest.mark.parametrize("disk", [False, True], ids=["served", "from disk"])


@functools.cache
def soup(page):
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def test_the_book_renders_without_a_warning(pages):
    assert (ROOT / "_build" / "warnings.txt").read_text(encoding="utf-8") == ""


def test_each_chapter_is_a_page_with_all_its_figures(pages):
    assert set(CHAPTERS) <= set(toc_pages())
    for name in run.chapters():
        staged = nbformat.read(ROOT / "_build" / "stage" / "chapters" / f"{name}.ipynb", as_version=4)
        outputs = [o.get("data", {}) for cell in staged.cells for o in cell.get("outputs", [])]
        html = "".join("".join(data.get("text/html", "")) for data in outputs)
        drawn = sum("image/png" in data and "text/html" not in data for data in outputs)
        page = soup(pages / f"chapters/{name}.html").find("article")
        assert len(page.find_all("figure")) >= len(BeautifulSoup(html, "html.parser").find_all("figure")) > 0
        assert len(page.find_all("img")) >= len(BeautifulSoup(html, "html.parser").find_all("img")) + drawn


@every_chapter
def test_every_figure_and_table_of_a_lesson_is_numbered_in_order(pages, name):
    page, counts = soup(pages / name).find("article"), {"Figure": 0, "Table": 0}
    chapter = page.h1.find(class_="section-number").text.strip()
    for shown in page.select("figure, .cv-table"):
        kind = "Figure" if shown.name == "figure" else "Table"
        counts[kind] += 1
        number = (
            shown.find("figcaption" if kind == "Figure" else "caption")
            .find(class_="caption-number")
            .get_text(strip=True)
        )
        assert number == f"{kind} {chapter}{counts[kind]}.", shown["id"]
    assert counts["Figure"]


@every_chapter
def test_a_lesson_says_how_to_run_it_and_leads_to_the_next_page(pages, name):
    page = soup(pages / name)
    assert page.find(class_="cv-run").find("a", download=True)["href"].endswith(".ipynb")
    assert page.select_one(".prev-next-area a.left-prev") and page.select_one(".prev-next-area a.right-next")


@every_chapter
def test_what_a_lesson_checks_is_folded_and_all_there(pages, name):
    staged = nbformat.read(
        ROOT / "_build" / "stage" / "chapters" / f"{name.removesuffix('.html').partition('/')[2]}.ipynb", 4
    )
    lines = {True: 0, False: 0}  # printed by exercises, and by claims
    for cell in staged.cells:
        for output in cell.get("outputs", []):
            if output.get("name") == "stdout":
                marked = [line for line in output.text.splitlines() if line.startswith(("✓", "○"))]
                lines[cells.kind(cell.source, cell.metadata.get("tags", ())) == "exercise"] += len(marked)
    page = soup(pages / name).find("article")
    assert len(page.select(".cv-checks li")) == lines[False] > 10
    assert len(page.select(".cv-answer")) == lines[True] >= 3
    assert not page.select(".cv-code[open], .cv-checks[open]")
    assert not [code for code in page.select("pre") if re.match(r"(claim\.summary\(\)\s*)?quiz\(", code.text)]


@every_page
def test_images_are_files_beside_the_page(pages, name):
    assert not re.search(r"data:image/[^\"']{1000}", (pages / name).read_text(encoding="utf-8"))
    images = [image for image in soup(pages / name).find_all("img") if "_images/" in image["src"]]
    assert all(((pages / name).parent / image["src"]).resolve().is_file() for image in images)
    assert [image.get("loading") for image in images[1:]] == ["lazy"] * len(images[1:])
    assert all(image.get("width") and image.get("height") for image in images if image.find_parent("figure"))


@landing_page
def test_the_landing_page_has_a_control_and_the_first_lesson_one_click_away(pages, name):
    page = soup(pages / name).find("article")
    assert page.find(class_="cv-look")
    assert page.find("a", class_="cv-start")["href"] == toc_pages()[1]


@every_page
def test_the_page_is_light_enough_for_a_poor_line(visit, name):
    seen = visit(name)
    sizes = weights(seen)
    assert sum(sizes.values()) <= (LANDING if name == "intro.html" else FIRST_VIEW), heaviest(sizes)
    for down in range(0, seen.page.evaluate("document.body.scrollHeight"), 800):
        seen.page.evaluate(f"window.scrollTo(0, {down})")
        seen.page.wait_for_timeout(30)
    seen.page.wait_for_load_state("networkidle")
    sizes = weights(seen)
    assert sum(sizes.values()) <= (LANDING if name == "intro.html" else WHOLE), heaviest(sizes)


def weights(seen):
    """Give the size of all that a visit asked for, as a server with gzip sends it."""
    bodies = {r.url: r.body() for r in seen.responses if r.url.startswith("http") and r.status == 200}
    return {url: min(len(body), len(gzip.compress(body, 6))) for url, body in bodies.items()}


def heaviest(sizes):
    return sum(sizes.values()), sorted(sizes.items(), key=lambda item: -item[1])[:5]


@both_ways
@every_page
def test_the_page_needs_nobody_and_complains_of_nothing(visit, name, disk):
    seen = visit(name, disk=disk)
    # Down to the end, so that whatever loads late has loaded.
    seen.page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    seen.page.wait_for_load_state("networkidle")
    assert seen.elsewhere == []
    assert seen.complaints == []
    assert seen.context.cookies() == []


@functools.cache
def anchors(page):
    """What links can lead to in a page."""
    return {tag["id"] for tag in soup(page).find_all(id=True)}


@every_page
def test_every_link_within_the_book_leads_somewhere(pages, name):
    for link in soup(pages / name).find_all("a", href=True):
        parts = urlsplit(link["href"])
        if parts.scheme or parts.netloc:
            continue
        target = ((pages / name).parent / unquote(parts.path)).resolve() if parts.path else pages / name
        assert target.is_file(), f"{link['href']} in {name}"
        if target.name == "playground.html" and "=" in parts.fragment:
            continue  # a view, not a place: test_playground_page.py reads these
        if parts.fragment and target.suffix == ".html":
            assert unquote(parts.fragment) in anchors(target), f"{link['href']} in {name}"


@every_page
def test_the_page_does_not_shift_as_it_loads(visit, name):
    shift = visit(name).page.evaluate(
        """() => new Promise(done => {
            const end = performance.getEntriesByType("navigation")[0].loadEventEnd + 500;
            let sum = 0;
            new PerformanceObserver(list => list.getEntries().forEach(each => {
                if (each.startTime < end) sum += each.value;
            })).observe({type: "layout-shift", buffered: true});
            setTimeout(() => done(sum), 200);
        })"""
    )
    assert shift <= 0.15  # the text's font, where it comes late, moves up to 0.12 on the page of references


@every_page
def test_every_picture_is_there_and_says_what_it_shows(visit, name):
    page = visit(name).page
    page.evaluate("document.querySelectorAll('img').forEach(image => image.loading = 'eager')")
    for picture in page.locator("img").all():
        # Text beside it says what it is.
        decorative = picture.evaluate("image => image.matches('.cv-thumbnail, .cv-look button img, .pg-home img')")
        assert bool(picture.get_attribute("alt").strip()) != decorative
        picture.evaluate("image => image.decode()")
        assert picture.evaluate("image => image.naturalWidth") > 0


@every_page
def test_headings_descend_step_by_step_from_one_title(visit, name):
    levels = [
        int(tag[1])
        for tag in visit(name)
        .page.locator("article")
        .locator("h1,h2,h3,h4,h5,h6")
        .evaluate_all("headings => headings.map(h => h.tagName)")
    ]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(deeper - level <= 1 for level, deeper in zip(levels, levels[1:]))


@every_page
def test_formulas_are_set_and_icons_drawn(visit, name):
    page = visit(name).page
    formulas = page.locator(".math")
    assert page.locator(".math svg[aria-label]").count() == formulas.count()
    assert not [text for text in formulas.all_inner_texts() if "\\" in text]
    unknown = page.evaluate(
        "[...document.querySelectorAll('.math use')].filter(use => !document.getElementById("
        "use.getAttribute('xlink:href').slice(1))).length"
    )
    assert unknown == 0, "each glyph is in the page"
    assert page.locator("svg.svg-inline--fa").count() > 0 or name == "playground.html"  # which needs no icons
    assert page.locator("i[class*='fa-'], svg.svg-inline--fa animate").count() == 0  # an unknown icon flickers


@every_chapter
def test_a_lesson_is_short_enough_with_everything_folded(visit, name):
    page = visit(name).page
    assert page.evaluate("document.documentElement.scrollHeight") <= HEIGHT
    assert page.evaluate("document.querySelectorAll('*').length") <= ELEMENTS


@every_chapter
def test_the_contents_mark_the_heading_in_both_directions(visit, name):
    page = visit(name).page
    links = page.locator("#page-contents a")
    wanted = [links.nth(i) for i in range(0, links.count(), 2)]
    for link in [*wanted, *reversed(wanted)]:
        place = link.get_attribute("href")[1:]
        page.evaluate(
            "id => { const at = document.getElementById(id); scrollTo({behavior: 'instant', top: scrollY + "
            "(at.querySelector('h1,h2,h3') || at).getBoundingClientRect().top - 60}); }",
            place,
        )
        page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        below = page.evaluate("innerHeight + scrollY >= document.documentElement.scrollHeight - 2")
        marked = page.locator("#page-contents a.active")
        assert marked.count() == 1
        assert below or marked.get_attribute("href")[1:] == place


@every_chapter
def test_a_dark_page_is_printed_light(visit, name):
    page = visit(name, scheme="dark").page
    page.wait_for_function("document.documentElement.dataset.theme == 'dark'")
    colour = "getComputedStyle(document.querySelector('article p')).color"
    ink = page.evaluate(colour)
    page.emulate_media(media="print")
    page.wait_for_function("document.documentElement.dataset.theme == 'light'")
    assert page.evaluate(colour) != ink
    assert not page.locator(".cv-controls:visible, .cv-run:visible").count()
    page.emulate_media(media="screen")
    page.wait_for_function("document.documentElement.dataset.theme == 'dark'")


@every_page
def test_the_page_has_a_description_and_a_language(pages, name):
    page = soup(pages / name)
    assert page.html["lang"] == "en-GB"
    assert 20 <= len(page.find("meta", {"name": "description"})["content"]) <= 320


@every_page
def test_the_page_fits_a_phone(visit, name):
    page = visit(name, width=360).page
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    left_out = page.evaluate("""() => [...document.querySelectorAll(".cv-table")].filter(table => [0, 9999].some(to => {
        table.scrollLeft = to;
        const frame = table.getBoundingClientRect(), caption = table.querySelector("caption").getBoundingClientRect();
        return caption.left < frame.left - 1 || caption.right > frame.right + 1;
    })).map(table => table.id)""")
    assert left_out == []  # a wide table is scrolled, its caption stays in view


@pytest.mark.parametrize("scheme", ["light", "dark"])
@every_page
def test_axe_finds_no_barrier(visit, name, scheme):
    page = visit(name, scheme=scheme).page
    page.wait_for_function(f"document.documentElement.dataset.theme == '{scheme}'")
    page.evaluate("window.folded = [...document.querySelectorAll('details:not([open])')]")
    page.evaluate("folded.forEach(d => d.open = true)")
    page.evaluate((ROOT / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    page.evaluate("folded.forEach(d => d.open = false)")
    told = [f"{v['id']}: {v['help']}: {node['html'][:200]}" for v in found for node in v["nodes"]]
    assert told == []


@every_chapter
def test_code_that_a_fold_reveals_can_be_scrolled_by_keyboard(visit, name):
    page = visit(name, width=360).page
    # The theme looks at all code once, at load. Chromium tells it how wide folded code is; other browsers say 0, and so
    # what it did is undone here.
    page.evaluate("document.querySelectorAll('pre').forEach(pre => pre.removeAttribute('tabindex'))")
    page.evaluate("window.folded = [...document.querySelectorAll('details:not([open])')]")
    page.evaluate("folded.forEach(d => d.open = true)")
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    wide = "[...document.querySelectorAll('details pre')].filter(pre => pre.scrollWidth > pre.clientWidth)"
    assert page.evaluate(f"{wide}.length") > 0
    assert page.evaluate(f"{wide}.filter(pre => pre.tabIndex != 0).length") == 0
    page.evaluate("folded.forEach(d => d.open = false)")


def picture(control):
    image = control.locator("img")
    return image.get_attribute("src"), image.get_attribute("alt")


def chosen(figure):
    """What the landing page's figure says: (image, map or None, share inside the outline, probability)."""
    sources = [figure.locator(f"[data-part={part}]") for part in ("image", "map")]
    sources = [image.get_attribute("src") if image.is_visible() else None for image in sources]
    return (*sources, *(figure.locator(f"[data-part={part}]").text_content() for part in ("share", "probability")))


@both_ways
@landing_page
def test_the_landing_figure_asks_first_and_shows_what_was_looked_at_by_keyboard(visit, name, disk):
    seen = visit(name, disk=disk)
    figure = seen.page.locator(".cv-look")
    expected = [look.describe(example) for example in look.examples()]
    for button, example in zip(figure.locator("[data-example]").all(), expected, strict=True):
        button.press("Enter")
        assert button.get_attribute("aria-pressed") == "true"
        assert chosen(figure)[1] is None, "no map before an answer"
        answers = figure.locator("[data-part=answers] button")
        assert answers.all_text_contents() == [region for region, _ in example["regions"]]
        for answer in answers.all():
            answer.press("Enter")
            verdict = example["right" if answer.text_content() in example["true"] else "wrong"]
            assert figure.locator("[data-part=verdict]").text_content() == verdict
        maps = set()
        for when in ("before", "after"):
            figure.locator(f"[data-when={when}]").press("Enter")
            figure.locator("[data-part=map]").evaluate("image => image.decode()")
            _, heat, share, probability = chosen(figure)
            maps.add(heat)
            assert (share, probability) == (example[when]["share"], example[when]["probability"])
            assert figure.locator("[data-part=map]").get_attribute("alt") == example[when]["alt"]
        assert len(maps) == 2
    seen.page.wait_for_load_state("networkidle")
    assert sum(weights(seen).values()) <= LANDING, "all frames of the figure are among it"


@landing_page
def test_the_landing_figure_takes_a_click_on_the_image_and_is_sharp_on_a_dense_screen(visit, name):
    page = visit(name, width=360).page
    figure = page.locator(".cv-look")
    figure.locator("[data-example]").first.click()
    image = figure.locator("[data-part=image]")
    assert image.evaluate("image => image.naturalWidth >= 2 * image.clientWidth")
    box = image.bounding_box()
    for x, y, answer in ((0.62, 0.65, "car"), (0.1, 0.9, "floor")):
        page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
        assert figure.locator("[data-part=answers] [aria-pressed=true]").all_text_contents() == [answer]


@landing_page
def test_the_landing_figure_is_a_still_without_javascript(visit, name):
    page = visit(name, disk=True, javascript=False).page
    figure = page.locator(".cv-look")
    assert figure.locator("[data-part=image]").is_visible() and figure.locator("[data-part=map]").is_visible()
    told = figure.locator("[data-part=still]").text_content()
    car = look.describe(look.examples()[0])
    assert car["before"]["share"] in told and car["after"]["share"] in told
    assert not [button for button in figure.locator("button").all() if button.is_visible()]


@landing_page
def test_each_lesson_has_a_card_with_a_small_thumbnail(pages, name):
    cards = soup(pages / name).select(".sd-card")
    led = {card.find("a")["href"]: card.find("img", class_="cv-thumbnail") for card in cards}
    assert set(CHAPTERS) <= set(led)
    for image in led.values():
        assert image["alt"] == "" and image["loading"] == "lazy"
        assert (pages / image["src"]).stat().st_size <= 12_000


@landing_page
def test_the_title_of_the_book_stands_once_in_the_title_of_its_root(pages, name):
    assert soup(pages / name).title.text == soup(pages / "index.html").title.text == "Advanced Computer Vision"


@both_ways
@every_page_to_play_with
def test_each_slider_and_list_moves_the_picture_by_keyboard(visit, name, disk):
    page = visit(name, disk=disk).page
    controls = page.locator(".cv-explore").all()
    assert controls, "a lesson has something to move"
    for control in controls:
        assert picture(control)[1]
        for element in control.locator("input[type=range], select").all():
            assert element.evaluate("e => e.labels.length") == 1
            element.focus()
            slider = element.evaluate("e => e.tagName") == "INPUT"
            element.press("Home")
            seen = [(picture(control), element.get_attribute("aria-valuetext"))]
            count = int(element.get_attribute("max")) + 1 if slider else element.locator("option").count()
            for _ in range(count - 1):
                element.press("ArrowRight" if slider else "ArrowDown")
                control.locator("img").evaluate("image => image.decode()")
                seen.append((picture(control), element.get_attribute("aria-valuetext")))
            alts = [alt for (_, alt), _ in seen]
            assert len(set(alts)) == count, "each choice has an alt text of its own"
            assert len({source for (source, _), _ in seen}) > 1, "the picture follows"
            assert control.locator("[aria-live]").text_content() == alts[-1]
            if slider:
                assert len({text for _, text in seen}) == count, "each choice is read out by name"


@every_chapter
def test_each_control_can_be_moved_by_mouse_and_touch(visit, name):
    page = visit(name, width=360).page
    for control in page.locator(".cv-explore").all():
        for slider in control.locator("input[type=range]").all():
            before = picture(control)
            box = slider.bounding_box()
            last = int(slider.input_value()) == int(slider.get_attribute("max"))
            slider.click(position={"x": 1 if last else box["width"] - 1, "y": box["height"] / 2})
            assert picture(control)[1] != before[1]


@both_ways
@every_chapter
def test_each_control_moved_by_hand_follows_a_key(visit, name, disk):
    page = visit(name, disk=disk).page
    for control in page.locator(".cv-interact").all():
        target, keys = KEYS[control.get_attribute("data-control")]
        before = seen(control)
        control.locator(target).focus()
        page.keyboard.press(keys[0])
        if seen(control) == before:
            page.keyboard.press(keys[1])
        assert seen(control) != before, control.get_attribute("id")


@both_ways
@every_chapter
def test_each_quiz_answers(visit, name, disk):
    page = visit(name, disk=disk).page
    quizzes = page.locator(".cv-quiz").all()
    assert quizzes, "a lesson asks"
    for quiz in quizzes:
        button, status = quiz.get_by_role("button"), quiz.get_by_role("status")
        button.click()
        assert status.text_content() == "Choose an answer first."
        replies = []
        for answer in quiz.get_by_role("radio").all():
            answer.check()
            button.click()
            replies.append(status.text_content())
        assert sum("Right." in reply for reply in replies) == 1
        assert len(set(replies)) == len(replies)


@every_chapter
def test_without_javascript_each_picture_and_each_answer_is_there(visit, name):
    page = visit(name, disk=True, javascript=False).page
    for control in page.locator(".cv-explore").all():
        assert control.locator("img").is_visible()
    for quiz in page.locator(".cv-quiz").all():
        assert quiz.locator("details").is_visible()


@landing_page
def test_a_request_to_another_host_would_be_noticed(visit, name):
    seen = visit(name)
    seen.page.evaluate("new Image().src = 'http://elsewhere.invalid/picture.png'")
    seen.page.wait_for_timeout(300)
    assert seen.elsewhere == ["http://elsewhere.invalid/picture.png"]


@both_ways
@landing_page
def test_search_finds_words(visit, name, disk):
    seen = visit("search.html", disk=disk)
    seen.page.goto(f"{seen.page.url}?q=pooling")
    seen.page.wait_for_function("document.querySelectorAll('#search-results li').length > 2")
    seen.page.wait_for_load_state("networkidle")
    assert seen.complaints == []


@landing_page
def test_the_root_is_the_book_and_what_is_lost_is_said(pages, name):
    assert soup(pages / "index.html").find("article").h1.text == soup(pages / name).find("article").h1.text
    lost = soup(pages / "404.html").find("article")
    assert "does not exist" in lost.h1.text
    assert lost.find("a", href="intro.html")


@every_page
def test_a_shared_link_has_a_title_and_a_description(pages, name):
    page = soup(pages / name)
    for part in ("title", "description", "type", "site_name"):
        assert page.find("meta", property=f"og:{part}")["content"].strip()
