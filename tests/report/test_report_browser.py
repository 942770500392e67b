"""The page in a real browser, by mouse, keyboard and finger; it asks nobody for anything."""

import shutil

import pytest

from simgan_aug.report import Report

playwright = pytest.importorskip(
    "playwright.sync_api", reason="needs the Python package playwright"
)
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a chromium on PATH")

QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def address(audited, tmp_path_factory):
    """Where the page of an audited data set lies."""
    out = tmp_path_factory.mktemp("page") / "report.html"
    Report(audited.out, realism=audited.write_realism()).write(out)
    return out.as_uri()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield started
        started.close()


@pytest.fixture
def visit(browser, address):
    """Open the page; at the end, nothing may have been asked for, and nothing complained of."""
    requests, complaints, contexts = [], [], []

    def opened(**options):
        context = browser.new_context(**options)
        context.set_default_timeout(5000)
        contexts.append(context)
        tab = context.new_page()
        tab.on("request", lambda request: requests.append(request.url))
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("dialog", lambda dialog: complaints.append(dialog.message))
        tab.goto(address)
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert [url for url in requests if url != address and not url.startswith("data:")] == []
    assert address in requests
    assert complaints == []


@pytest.fixture
def tab(visit):
    return visit(viewport={"width": 1280, "height": 900})


def clip(tab, card=0):
    """What of the picture after is cut off from the left, in percent."""
    image = tab.locator(".card").nth(card).locator("img.after")
    shape = image.evaluate("image => getComputedStyle(image).clipPath")
    return float(shape.removeprefix("inset(").removesuffix(")").split()[-1].rstrip("px%"))


def focused(tab, code):
    return tab.evaluate(f"(() => {{ const e = document.activeElement; return {code}; }})()")


def shown(tab):
    return tab.locator(".card:visible h3").all_inner_texts()


def test_every_picture_is_decoded(tab):
    widths = tab.evaluate("[...document.images].map(image => image.naturalWidth)")

    assert len(widths) >= 12 + 3
    assert min(widths) > 0


def test_the_browser_itself_forbids_requests(browser, address):
    context = browser.new_context()
    tab = context.new_page()
    tab.goto(address)

    refused = tab.evaluate("fetch('http://localhost:9/').then(() => 'sent', e => e.name)")
    blocked = tab.evaluate(
        "new Promise(done => { document.addEventListener('securitypolicyviolation',"
        " e => done(e.effectiveDirective)); new Image().src = 'http://localhost:9/a.png'; })"
    )

    context.close()
    assert refused == "TypeError"
    assert blocked == "img-src"


def test_the_mouse_moves_the_divider(tab):
    stage = tab.locator(".stage").first
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    assert clip(tab) == 50

    tab.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 30)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 30)
    tab.mouse.up()
    tab.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 30)

    assert clip(tab) == pytest.approx(25, abs=1)


def test_arrow_keys_move_the_divider_and_say_where_it_is(tab):
    slider = tab.locator(".slider").first
    slider.focus()

    for _ in range(5):
        tab.keyboard.press("ArrowRight")

    assert clip(tab) == 55
    assert slider.get_attribute("aria-valuetext") == "55 % before"
    assert "2.png" in slider.get_attribute("aria-label")


@pytest.mark.parametrize("key", ["f", " "])
def test_a_key_flips_before_and_after(tab, key):
    tab.locator(".slider").first.focus()

    seen = []
    for _ in range(3):
        tab.keyboard.press(key)
        seen.append(clip(tab))

    assert seen == [0, 100, 0]


def test_space_on_a_button_presses_that_button_only(tab):
    tab.locator(".flip").first.focus()

    tab.keyboard.press(" ")

    assert clip(tab) == 0


def test_j_and_k_go_from_picture_to_picture_and_their_focus_is_seen(tab):
    tab.keyboard.press("j")
    tab.keyboard.press("j")
    tab.keyboard.press("ArrowDown")
    third = focused(tab, "e.closest('.card').id")
    tab.keyboard.press("k")

    assert third == "picture-2"
    assert focused(tab, "e.closest('.card').id") == "picture-1"
    outline = focused(tab, "getComputedStyle(e.closest('.stage')).outlineStyle")
    assert outline == "solid"


def test_filters_leave_what_they_name(tab):
    tab.get_by_role("button", name="rejected 3").click()
    rejected = shown(tab)
    count = tab.locator("#count").inner_text()
    tab.get_by_role("button", name="cup", exact=True).click()
    cups = shown(tab)
    tab.keyboard.press("j")
    tab.keyboard.press("j")
    last = focused(tab, "e.closest('.card').id")
    tab.get_by_role("button", name="all 6").click()
    tab.get_by_role("button", name="every category").click()

    assert len(rejected) == 3
    assert rejected[0] == "2.png"
    assert count == "3 of 6 pictures"
    assert cups == ["2.png", "1.png"]
    assert last == "picture-2"
    assert len(shown(tab)) == 6


def test_labels_can_be_hidden(tab):
    overlay = tab.locator(".overlay").first
    assert overlay.is_visible()

    tab.keyboard.press("l")

    assert not overlay.is_visible()
    assert tab.locator("#toggle-labels").get_attribute("aria-pressed") == "false"


def test_the_table_sorts_by_click_and_by_key(tab):
    head = tab.locator("thead th")
    names = tab.locator("#categories tbody th")
    labels = head.all_inner_texts().index("labels")
    counts = tab.locator(f"#categories tbody tr > :nth-child({labels + 1})")

    head.nth(labels).locator("button").click()
    by_click = [head.nth(labels).get_attribute("aria-sort"), counts.all_inner_texts()]
    head.nth(0).locator("button").focus()
    tab.keyboard.press("Enter")
    by_key = [head.nth(0).get_attribute("aria-sort"), names.all_inner_texts()]
    tab.keyboard.press(" ")

    assert by_click == ["descending", ["5", "2", "1"]]
    assert by_key == ["ascending", ['<b>cup</b> & "co"', "cup", "hand"]]
    assert head.nth(labels).get_attribute("aria-sort") == "none"
    assert names.first.inner_text() == "hand"


def test_a_picture_is_enlarged_and_left_with_the_keyboard_alone(tab):
    tab.keyboard.press("j")
    tab.keyboard.press("Enter")
    assert tab.locator("dialog").is_visible()
    first = tab.locator("#enlarged-name").inner_text()
    assert focused(tab, "e.matches('dialog .slider')")

    tab.keyboard.press("j")
    second = tab.locator("#enlarged-name").inner_text()
    tab.keyboard.press("f")
    value = tab.locator("dialog .slider").input_value()
    tab.keyboard.press("+")
    zoomed = tab.locator("dialog .stage").bounding_box()["width"]
    tab.keyboard.press("-")
    fitting = tab.locator("dialog .stage").bounding_box()["width"]
    tab.keyboard.press("Escape")

    assert (first, second, value) == ("2.png", "<script>alert(1)</script>&\"'.png", "0")
    assert zoomed == pytest.approx(2 * fitting, rel=0.02)
    assert not tab.locator("dialog").is_visible()
    # A dialog tells that it was closed a moment after it is: then the focus moves.
    for _ in range(100):  # not `wait_for_function`, which the page's own policy forbids
        if tab.evaluate("document.activeElement.closest('.card')?.id === 'picture-1'"):
            break
        tab.wait_for_timeout(50)
    assert tab.evaluate("document.activeElement.closest('.card')?.id") == "picture-1"


def test_the_focus_stays_in_the_enlarged_picture_and_is_seen(tab):
    tab.locator(".enlarge").first.click()

    seen = []
    for _ in range(16):
        tab.keyboard.press("Tab")
        place = "e === document.body ? 'body' : e.closest('dialog') ? 'dialog' : 'page'"
        style = "getComputedStyle(e.matches('.slider') ? e.parentElement : e).outlineStyle"
        seen.append((focused(tab, place), focused(tab, style)))

    assert {place for place, _ in seen} <= {"dialog", "body"}
    assert {style for place, style in seen if place == "dialog"} - {"solid", "auto"} == set()


def test_the_page_fits_a_phone_and_a_finger_moves_the_divider(visit):
    tab = visit(**PHONE)
    width = "[document.scrollingElement.scrollWidth, innerWidth]"
    wide, room = tab.evaluate(width)
    stage = tab.locator(".stage").first
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()

    tab.touchscreen.tap(box["x"] + box["width"] * 0.8, box["y"] + 40)
    tapped = clip(tab)
    tab.locator(".enlarge").first.tap()
    in_dialog = tab.evaluate("document.querySelector('#enlarged-view .stage').clientWidth")
    tab.get_by_role("button", name="close").tap()

    assert wide <= room == 390
    assert tapped == pytest.approx(80, abs=2)
    assert 300 < in_dialog <= 390
    small = tab.evaluate(
        "[...document.querySelectorAll('button')].filter(b => b.offsetHeight > 0"
        " && b.offsetHeight < 36).map(b => b.textContent)"
    )
    assert small == []


def test_a_dark_screen_gets_a_dark_page(visit):
    brightness = {}
    for scheme in ("light", "dark"):
        tab = visit(color_scheme=scheme)
        colour = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness[scheme] = sum(map(int, colour.removeprefix("rgb(").rstrip(")").split(",")))

    assert brightness["dark"] < 150 < 600 < brightness["light"]


def test_without_scripts_both_pictures_are_side_by_side(visit):
    tab = visit(java_script_enabled=False)
    card = tab.locator(".card").first

    before, after = (card.locator(f"img.{side}").bounding_box() for side in ("before", "after"))

    assert before["x"] + before["width"] <= after["x"]
    assert min(before["width"], after["width"]) > 80
    assert not tab.locator(".toolbar").is_visible()


def test_on_paper_both_pictures_are_side_by_side(tab):
    tab.emulate_media(media="print")
    card = tab.locator(".card").first

    before, after = (card.locator(f"img.{side}").bounding_box() for side in ("before", "after"))

    assert before["x"] + before["width"] <= after["x"]
    assert not tab.locator(".toolbar").is_visible()
