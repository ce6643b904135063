"""The page in a browser: it fetches nothing, says no error, and what can be used works."""

import shutil

import pytest

from sweeps.views.compare import Gap, compare
from sweeps.views.report.page import to_html
from sweeps.views.report.plates import Plate, Rows
from tests.conftest import at_home
from tests.sweeps.views.made import EPOCHS, made_sweep

playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright (pip install playwright)")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe (pip install axe-playwright-python)")

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium here (Debian: apt install chromium)"),
]
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
THREE = "  loss.temperature: {values: [0.2, 0.5]}\n  gate.noisy: {values: [true, false]}\n"
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
PLATES = [
    Plate("figure_4", "Figure 4", "Gate against readout.", PIXEL, [Rows("E4", ["a", "b"], [("", [["1", "2"]])])]),
    Plate("table_1", "Table 1", "Tuning.", "", [Rows("", list("abcdefghij"), [("E = 4: Gating", [["words"] * 10])])],
          [Gap("tuning is missing", "moe probe --sweep made --probe tuning")]),
]  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=BROWSER, args=QUIET)
        yield started
        started.close()


def written(sweep):
    """Its page, written once."""
    file = sweep.root / "page.html"
    if not file.exists():
        file.write_text(to_html(compare(sweep), PLATES), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """A sweep whose page several tests open."""
    root = tmp_path_factory.mktemp("usual")
    with at_home(root):
        sweep = made_sweep(root)
        written(sweep)
        return sweep


@pytest.fixture
def open_page(browser):
    """Opens a sweep's page; at the end nothing was fetched and no error was said."""
    contexts, said, asked = [], [], []

    def open_one(sweep, width=1280, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        context.set_default_timeout(180_000)  # on a busy machine too
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(written(sweep).as_uri())
        page.wait_for_selector("html[data-ready=yes]", state="attached")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def column(page, number):
    return page.locator(f"#comparison-table tbody tr td:nth-child({number})").all_inner_texts()


def test_tables_sort_and_filter_and_columns_can_be_left_out(open_page, tmp_path):
    page = open_page(made_sweep(tmp_path, experts=(2, 4, 8)))
    assert column(page, 1) == ["2", "4", "8"]
    heading = page.get_by_role("button", name="model.experts")
    heading.click()
    heading.click()
    assert column(page, 1) == ["8", "4", "2"]
    assert page.locator("#comparison-table th[aria-sort=descending]").count() == 1
    page.get_by_label("Filter").fill("experts=4")
    assert column(page, 1) == ["4"]
    page.get_by_label("Filter").fill("experts>2 loss<3")
    assert column(page, 1) == ["8", "4"]
    page.get_by_label("Filter").fill("experts=4")
    page.get_by_text("Columns", exact=True).click()
    page.get_by_role("checkbox", name="model.experts").uncheck()
    assert "model.experts" not in page.locator("#comparison-table thead").inner_text()


def test_the_slider_goes_through_the_epochs(open_page, usual):
    page = open_page(usual)
    slider = page.get_by_role("slider", name="Epoch")
    assert page.locator("#epoch-shown").inner_text() == f"epoch {EPOCHS}"
    shown = page.evaluate("document.getElementById('heatmap').data[0].z")
    slider.focus()
    page.keyboard.press("Home")
    assert page.locator("#epoch-shown").inner_text() == "epoch 0"
    assert page.evaluate("document.getElementById('heatmap').data[0].z") != shown


def test_another_metric_is_drawn_with_its_chance(open_page, usual):
    page = open_page(usual)
    page.get_by_role("combobox", name="Metric").select_option("agreement/top_k")
    names = page.evaluate("document.getElementById('curves').data.map((trace) => trace.name)")
    assert "experts=2, chance" in names


def test_the_map_leads_to_the_card(open_page, usual):
    page = open_page(usual)
    run = usual.cells[2].run_id
    page.evaluate(f"show('{run}', 3)")
    card = page.locator(f"#expert-{run}-3")
    assert "chosen" in card.get_attribute("class")
    assert card.locator("img").count() == 6
    assert "Animacy: gate +.5 (p .02), readout -.3" in card.inner_text()
    assert "Gate and readout: r .2 [.1, .3]" in card.inner_text()
    assert page.evaluate("document.activeElement.id") == f"expert-{run}-3"


def test_three_swept_parameters_are_drawn_as_parallel_axes(open_page, tmp_path):
    page = open_page(made_sweep(tmp_path, further=THREE))
    assert page.locator("#parallel .parcoords").count() > 0
    page.get_by_label("Coloured by").select_option(label="view agreement")
    names = page.evaluate("document.getElementById('parallel').data[0].dimensions.map((one) => one.label)")
    assert names[-1] == "view agreement"
    assert page.evaluate("document.getElementById('importance-plot').data.length") > 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_and_can_be_read_by_everyone(open_page, usual, width, scheme):
    page = open_page(usual, width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = axe.Axe().run(page).response["violations"]
    assert [
        f"{one['id']}: {one['nodes'][0]['html']}" for one in found if one["impact"] in ("serious", "critical")
    ] == []


def test_the_page_can_be_made_dark_by_hand(open_page, usual):
    page = open_page(usual)
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Dark page").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    assert page.get_by_role("button", name="Light page").count() == 1


@pytest.mark.parametrize("made", [{"finished": 0}, {"experts": (1,), "seeds": 1}, {"probed": False}], ids=str)
def test_sweeps_with_gaps_open_without_an_error(open_page, tmp_path, made):
    assert open_page(made_sweep(tmp_path, **made)).get_by_role("heading", name="Comparison").count() == 1
