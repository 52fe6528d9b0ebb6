"""The report as one HTML page: what stands in it, that results stay text, and that it works in a browser."""

import base64
import io
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from test_report_tables import PAIR, frame, trial

from kdbench.docs.methods import shipped_methods
from kdbench.report import ReportOptions, Sources, compare, write_report
from kdbench.report.formats.bibtex import TITLE, to_bibtex
from kdbench.report.page.sources import NO_SOURCES
from kdbench.spec.report_options import DEFAULT

ROOT = Path(__file__).parent.parent
EVIL = "<script>window.hacked=1</script>"  # each text that a user can give holds it
OTHER = ("wrn_40_2", "wrn_16_2")
SUITES = ("first", "second")
METHODS = {"scratch": 8.2, "kd": 7.6, "at+kd": 8.9, EVIL: 8.6}
SUITE = "title: A suite  # </script><script>window.hacked=1</script>\n"


def results(pairs=(PAIR, OTHER), methods=METHODS, seeds=3) -> pd.DataFrame:
    """Trials of which one failed, and every text that a user can give holds a script."""
    rows = [
        trial(
            method,
            seed,
            error + 0.1 * seed + 0.5 * place,
            pair=pair,
            train_s=10.0 + 3 * place + i,
            suite=SUITES[place % 2],
            dataset=f'"{EVIL}',
        )
        for place, pair in enumerate(pairs)
        for i, (method, error) in enumerate(methods.items())
        for seed in range(seeds)
    ]
    rows[-1] |= {"status": "failed", "reason": f"the loss is nan {EVIL}", "test_error_pct": None}
    return frame(*rows)


def curves(found: pd.DataFrame, epochs: int = 3) -> pd.DataFrame:
    """Errors that fall to those of the frame, with noise of two digits after the point, as tests have it."""
    done = found.dropna(subset="test_error_pct")
    epoch = np.tile(np.arange(1, epochs + 1), len(done))
    noise = np.random.default_rng(0).normal(0, 0.3, (2, len(epoch)))
    test, train = np.repeat(done["test_error_pct"].to_numpy(float), epochs) + 20 / epoch + noise
    columns = {"trial": np.repeat(done["trial"].to_numpy(), epochs), "stage": "main", "epoch": epoch}
    return pd.DataFrame({**columns, "test_error_pct": test.round(2), "train_error_pct": train.round(2)})


def page(found: pd.DataFrame, epochs: int = 3, *, sources: Sources = NO_SOURCES, options: ReportOptions = DEFAULT) -> str:
    pairs = list(dict.fromkeys(found.loc[found["teacher"].notna(), ["teacher", "student"]].itertuples(index=False, name=None)))
    comparison = compare(found, pairs=pairs, options=options)
    with TemporaryDirectory() as folder:
        made = write_report(
            comparison, curves(found, epochs), title=f"A report {EVIL}", directory=Path(folder), formats=["html"], sources=sources
        )
        assert [file.name for file in made] == ["report.html"]
        return made[0].read_text(encoding="utf-8")


FOUND = results()
SOURCES = Sources(
    specs={trial: {"seed": 0, "evil": EVIL} for trial in FOUND["trial"]},
    environments={trial: {"kdbench": "0.1.0", "torch": "2.15.0", "device": EVIL} for trial in FOUND["trial"]},
    suite_pages={"first": "../first/report.html"},
    suite_files={"a.yaml": SUITE},
    commands="kdbench run a.yaml",
)


@pytest.fixture(scope="module")
def text() -> str:
    return page(FOUND, sources=SOURCES)


# What stands in it, without a browser


def test_texts_of_results_stay_text(text):
    assert EVIL not in text and "&lt;script&gt;window.hacked=1" in text
    assert len(re.findall("<script", text)) == 3  # the data, Vega and the page's own


def test_the_policy_names_the_scripts_and_the_style_that_are_there_and_nothing_else(text):
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', text)
    inline = [*re.findall(r"<style>(.*?)</style>", text, re.S), *re.findall(r"<script>(.*?)</script>", text, re.S)]
    hashes = {f"&#39;sha256-{base64.b64encode(sha256(part.encode()).digest()).decode()}&#39;" for part in inline}
    assert len(hashes) == 3 and set(re.findall(r"&#39;sha256-[^&]+&#39;", policy)) == hashes
    assert policy.startswith("default-src &#39;none&#39;") and "unsafe" not in policy and "http" not in policy


@pytest.mark.parametrize(
    "words",
    [
        "KD has the lowest mean test error of",
        "n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}2 to 3 seeds.",
        "(1 - alpha) CE(z_s, y) + alpha T^2 KL(softmax(z_t / T) || softmax(z_s / T))",
        "https://arxiv.org/abs/1503.02531",
        "the loss is nan",
        "kdbench run a.yaml",
        "title: A suite",
        "<dt>torch</dt><dd>2.15.0</dd>",
        "prefers-color-scheme: dark",
    ],
)
def test_the_page_says_it_without_a_script(text, words):
    assert words in text


def test_the_page_shows_what_the_options_of_the_report_ask_for():
    options = ReportOptions(
        metric="accuracy", decimals=1, second_best=True, groups={"logits": ("kd",)}, names={"kd": "Hinton KD"}, rows="pairs"
    )
    told = page(FOUND, options=options)
    assert "Test accuracy of the last epoch by method" in told and "Test error during" not in told
    assert re.search(r'<th scope="colgroup" colspan="1">logits</th>', told) and re.search(r"<u>91\.\d ± \d\.\d</u>", told)
    assert re.search(r'<h3 id="method-\d">Hinton KD</h3>', told)
    turned = page(FOUND, options=options.model_copy(update={"rows": "methods"}))
    assert re.search(r'<th scope="rowgroup" colspan="3">logits</th>', turned) and "<table" in turned


def test_the_page_depends_on_nothing_but_the_results(text):
    assert page(FOUND, sources=SOURCES) == text


def test_a_frame_alone_makes_a_page_without_the_parts_it_lacks():
    images = {"data": "3 test images", "data_notes": "named by the key `hooks`"}
    alone = page(results(methods={"scratch": 8.2, "kd": 7.6}).assign(**images), epochs=0)
    assert ": named by the key <code>hooks</code>.</li>" in alone
    assert "Test error of the last epoch by method" in alone
    assert "Test error during training" not in alone and "The suite file" not in alone and "Commands" not in alone
    assert "against the time of training" in alone
    stacked = page(results(methods={"scratch": 8.2, "kd": 7.6}).assign(precision="fp32, stacked"))
    assert "against the time of training" not in stacked and "Test error during training" in stacked


def test_thousands_of_trials_fit_into_five_megabytes():
    """A fifth of 1,755 trials of 240 epochs, five times, beside what every page has."""
    pairs = [(f"teacher{i}", f"student{i}") for i in range(3)]
    found = results(pairs, {"scratch": 9.0, "kd": 8.9} | {f"method{i}": 8 + i / 10 for i in range(7)}, seeds=13)
    found["data_notes"], found["data"] = "", "50,000 training images and 10,000 test images in 100 classes (500 a class)"
    found["weights_sha256"] = [sha256(trial.encode()).hexdigest()[:16] for trial in found["trial"]]
    specs = {trial: {"seed": 0, "text": 30 * f"{i}: a value of a recipe; "} for i, trial in enumerate(found["trial"])}
    assert len(found) == 1755 / 5
    of_every_page = (ROOT / "kdbench/report/page/vega.js").stat().st_size
    assert of_every_page + 5 * (len(page(found, 240, sources=Sources(specs=specs))) - of_every_page) < 5e6


# What to cite


def methods_alone(*names: str) -> pd.DataFrame:
    return pd.DataFrame({"method": names, "kdbench_version": "0.1.0"})


def test_bibtex_has_what_the_docstrings_have():
    text = to_bibtex(methods_alone("at+kd", "scratch", "no_such_method"))
    assert text.count("@") == 3 and "% no_such_method" in text and "% scratch: none" in text
    assert "@misc{kd," in text and "eprint = {1503.02531}" in text and "author = {Hinton and Vinyals and Dean}" in text
    assert "@inproceedings{at," in text and "booktitle = {ICLR}" in text and "year = {2017}" in text


def test_every_shipped_method_with_a_paper_of_its_own_has_an_entry():
    text = to_bibtex(methods_alone(*shipped_methods()))
    without = re.findall(r"^% (\w+): (\w+)", text, re.M)
    assert {word for _, word in without} == {"none"} and "et al" not in re.sub("%.*", "", text)


def test_a_method_without_a_paper_cites_the_method_that_it_is_a_form_of():
    assert to_bibtex(methods_alone("fitnets_hint")).count("@inproceedings{fitnets,") == 1
    assert to_bibtex(methods_alone("fitnets_hint", "fitnets")).count("@inproceedings{fitnets,") == 1


def test_kdbench_is_cited_as_its_own_file_says():
    assert f'title: "{TITLE}"' in (ROOT / "CITATION.cff").read_text()


# In a browser

selenium = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install 'kdbench[test]'")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
in_a_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs Chromium and its driver: apt-get install chromium chromium-driver"
)
READY = "return document.documentElement.dataset.ready"


@dataclass
class Browser:
    """A headless Chromium in which the page is open."""

    driver: "selenium.Chrome"
    downloads: Path
    url: str

    def open(self, *, dark: bool = False, width: int = 1200, media: str = "") -> None:
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get(self.url)
        self.until(READY)

    def run(self, script: str, *arguments: object) -> object:
        return self.driver.execute_script(script, *arguments)

    def until(self, script: str, *arguments: object) -> object:
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, 10, poll_frequency=0.02).until(lambda driver: driver.execute_script(script, *arguments))

    def find(self, selector: str):
        return self.driver.find_element("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        return self.run(
            "return [...document.querySelectorAll(arguments[0])].filter(e => e.checkVisibility()).map(e => e.textContent)", selector
        )

    def press(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def serious(self, within: str = "body", **options: object) -> list[str]:
        """What axe-core finds that is serious or critical, and where."""
        run = "axe.run(document.querySelector(arguments[0]), arguments[1]).then(arguments[2])"
        found = self.driver.execute_async_script(run, within, {"resultTypes": ["violations"], **options})
        return [
            f"{violation['id']}: {node['html'][:120]}"
            for violation in found["violations"]
            if violation["impact"] in ("serious", "critical")
            for node in violation["nodes"]
        ]


@pytest.fixture(scope="module")
def opened(text, tmp_path_factory) -> Iterator[Browser]:
    from selenium.webdriver.chrome.service import Service

    folder = tmp_path_factory.mktemp("page")
    (folder / "report.html").write_text(text, encoding="utf-8")
    options = selenium.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = selenium.Chrome(options=options, service=Service(DRIVER))
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
    yield Browser(driver, folder, (folder / "report.html").as_uri())
    driver.quit()


@pytest.fixture
def browser(opened) -> Iterator[Browser]:
    """The page, newly opened. Nothing of the results may have run, and the console must be empty."""
    opened.open()
    yield opened
    assert opened.run("return window.hacked") is None
    assert [entry["message"] for entry in opened.driver.get_log("browser")] == []


def column(browser: Browser, table: str, place: int) -> list[str]:
    return browser.texts(f"#table-{table} tbody tr > :nth-child({place})")


@in_a_browser
def test_tables_are_sorted_by_the_numbers_behind_the_cells(browser):
    head = browser.find("#table-gain thead th:nth-child(3) button")
    before = column(browser, "gain", 3)
    head.click()
    rising = [float(gain.replace("\N{MINUS SIGN}", "-")) for gain in column(browser, "gain", 3)]
    assert rising == sorted(rising) and before != column(browser, "gain", 3)
    assert browser.texts("#table-gain th[aria-sort=ascending]") == ["Gain (points)"]
    assert all(column(browser, "gain", 1))  # each row names its pair, which only the first of a group did
    head.click()
    assert column(browser, "gain", 3)[0].startswith("+") and browser.texts("#table-gain th[aria-sort=descending]")
    head.click()
    assert column(browser, "gain", 3) == before and not browser.texts("#table-gain th[aria-sort]")


@in_a_browser
def test_tables_are_filtered_by_words(browser):
    field = browser.find("[data-filter=table-trials]")
    field.send_keys("kd wrn_16_2 at")
    assert column(browser, "trials", 5) == ["AT+KD"] * 3
    assert browser.texts("[data-count=table-trials]") == ["3 of 24 rows"]
    field.clear()
    field.send_keys("x")
    field.send_keys("\ue003")
    assert len(column(browser, "trials", 5)) == 24


@in_a_browser
def test_pointing_at_a_seed_shows_method_seed_value_and_interval(browser):
    from selenium.webdriver.common.action_chains import ActionChains

    point = browser.driver.find_elements("css selector", "#figure-results .mark-symbol path")[0]
    ActionChains(browser.driver).move_to_element(point).perform()
    browser.until("return !document.getElementById('tooltip').hidden")
    shown = dict(zip(browser.texts("#tooltip dt"), browser.texts("#tooltip dd"), strict=True))
    assert shown == {"Method": "scratch", "Seed": "0", "Value": "8.20", "Mean": "8.30, n = 3"}
    of_kd = browser.driver.find_elements("css selector", "#figure-gains .mark-symbol path")[0]
    ActionChains(browser.driver).move_to_element(of_kd).perform()
    browser.until("return document.querySelector('#tooltip dd').textContent === 'KD'")
    shown = dict(zip(browser.texts("#tooltip dt"), browser.texts("#tooltip dd"), strict=True))
    assert set(shown) == {"Method", "Gain", "New seeds"}
    assert re.fullmatch(r"[+−]\d\.\d\d to [+−]\d\.\d\d", shown["New seeds"])


@in_a_browser
def test_methods_are_switched_off_and_on_and_pairs_chosen(browser):
    def lines() -> int:
        return browser.run("return document.querySelectorAll('#figure-curves .mark-line path').length")

    assert lines() == 4
    front = "return document.querySelectorAll('#figure-cost .mark-line path').length"
    assert browser.run(front) == 1
    browser.find("#method-switches input[value=KD]").click()
    browser.until("return document.querySelectorAll('#figure-curves .mark-line path').length === 3")
    assert "KD" not in browser.texts("#figure-results svg text") and "scratch" in browser.texts("#figure-results svg text")
    browser.until(front + " === 0")  # KD is on it
    browser.driver.find_elements("css selector", "#method-switches button")[1].click()
    browser.until("return document.querySelectorAll('#figure-curves .mark-line path').length === 0")
    browser.driver.find_elements("css selector", "#method-switches button")[0].click()
    browser.until("return document.querySelectorAll('#figure-curves .mark-line path').length === 4")
    browser.find("#pair").send_keys("b")
    browser.run(
        "const pair = document.getElementById('pair'); pair.value = 1; pair.dispatchEvent(new Event('change', {bubbles: true}))"
    )
    browser.until("return document.querySelector('#figure-curves svg').getAttribute('aria-label').includes('wrn_16_2')")
    assert browser.find("#figure-cost svg").get_attribute("role") == "img"


@in_a_browser
def test_names_beside_the_costs_of_many_methods_do_not_overlap_and_those_of_the_front_come_first(opened):
    others = [f"a_method_of_a_long_name_{i}" for i in range(60)]
    level = dict.fromkeys(["scratch", *others[:30], "best", *others[30:]], 8.2)
    found = results(pairs=(PAIR,), methods=level | {"best": 8.199})
    file = opened.downloads / "many.html"
    file.write_text(page(found), encoding="utf-8")
    opened.driver.get(file.as_uri())
    opened.until(READY)
    shown = "[...document.querySelectorAll('#figure-cost .mark-text.role-mark text')].filter(e => getComputedStyle(e).opacity > 0)"
    names = opened.run(f"return {shown}.map(e => e.textContent)")
    assert {"scratch", "best"} < {*names} and len(names) < len(others)
    overlapping = """return NAMES.flatMap((one, i, all) => all.slice(i + 1).filter(other => {
        const [a, b] = [one.getBoundingClientRect(), other.getBoundingClientRect()];
        return a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 3 && b.top < a.bottom - 3;
    }).map(other => [one.textContent, other.textContent]))"""
    assert opened.run(overlapping.replace("NAMES", shown)) == []


@in_a_browser
def test_the_values_of_a_figure_stand_in_a_table(browser):
    browser.find("#figure-results summary").click()
    assert browser.texts("#figure-results td")[:5] == ["8.30", "3", "8.20", "8.30", "8.40"]


@in_a_browser
def test_a_trial_shows_its_reason_and_its_specification_and_the_keyboard_is_enough(browser):
    failed = FOUND["trial"].iloc[-1]
    browser.run("document.querySelector(`[data-trial='${arguments[0]}']`).focus()", json.loads(json.dumps(failed)))
    browser.press("\ue007")
    browser.until("return document.getElementById('trial').open")
    record = dict(zip(browser.texts("#trial dt"), browser.texts("#trial dd"), strict=True))
    assert (record["trial"], record["reason"]) == (failed, f"the loss is nan {EVIL}")
    assert json.loads(browser.texts("#trial pre")[0]) == {"seed": 0, "evil": EVIL}
    browser.press("\ue00c")
    browser.until("return !document.getElementById('trial').open")
    assert browser.run("return document.activeElement.dataset.trial") == failed
    browser.run("document.querySelector('#table-gain thead th:nth-child(3) button').focus()")
    browser.press("\ue007")
    assert browser.texts("#table-gain th[aria-sort=ascending]")


@in_a_browser
def test_few_epochs_have_whole_ticks(browser):
    browser.until("return document.querySelector('#figure-curves svg')")
    axes = "return [...document.querySelectorAll('#figure-curves svg .role-axis-label')].map(axis => axis.textContent)"
    assert "123" in browser.run(axes)


@in_a_browser
def test_a_trial_shows_its_curves(browser):
    browser.find("[data-trial]").click()
    browser.until("return document.querySelectorAll('#trial .mark-line path').length === 2")


@in_a_browser
@pytest.mark.parametrize("name", ["results.csv", "gain.tex", "methods.bib", "a.yaml"])
def test_files_are_downloaded(browser, name):
    file = browser.downloads / name
    browser.run("document.querySelector(`#downloads [data-file='${arguments[0]}']`).click()", name)
    for _ in range(200):
        if file.exists():
            break
        browser.run("return 0")
    if name == "results.csv":
        assert pd.read_csv(io.StringIO(file.read_text()))["trial"].tolist() == FOUND["trial"].tolist()
    assert {"results.csv": EVIL, "gain.tex": r"\toprule", "methods.bib": "@misc{kd", "a.yaml": SUITE}[name] in file.read_text()


@in_a_browser
def test_axe_finds_nothing_serious(browser):
    axe = Path(find_spec("selenium_axe_python").origin).parent.joinpath("axe-core", "axe.min.js").read_text()
    browser.run(axe)
    assert browser.serious() == []
    browser.find("[data-trial]").click()
    browser.until("return document.querySelectorAll('#trial .mark-line path').length")
    assert browser.serious("#trial") == []
    browser.open(dark=True)
    browser.run(axe)
    assert browser.serious(runOnly=["color-contrast"]) == []


@in_a_browser
def test_dark_mode_and_print_have_their_own_paper(browser):
    paper = "return getComputedStyle(document.body).backgroundColor"
    light = browser.run(paper)
    browser.open(dark=True)
    assert browser.run(paper) != light
    browser.open(dark=True, media="print")
    assert browser.run(paper) == "rgb(255, 255, 255)"
    assert browser.texts(".tools") == [] and browser.texts("nav") == [] and browser.texts("#method-switches label")
    printed = base64.b64decode(browser.driver.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert printed.startswith(b"%PDF")


@in_a_browser
def test_suites_are_named_and_linked(browser):
    assert browser.texts("#results a[href='../first/report.html']") == ["first"] and "second" in browser.texts("#results p")[0]
    assert set(column(browser, "trials", 3)) == {"first", "second"}


@in_a_browser
def test_a_phone_needs_no_scrolling_to_the_side(browser):
    browser.open(width=360)
    assert browser.run("return document.documentElement.scrollWidth") <= 360


@in_a_browser
def test_the_browser_runs_no_other_script_and_loads_nothing(opened):
    opened.open()
    opened.run("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.hacked = 1'}))")
    opened.run("document.body.append(Object.assign(document.createElement('img'), {src: 'x.png'}))")
    refused = [entry["message"] for entry in opened.driver.get_log("browser")]
    assert opened.run("return window.hacked") is None
    assert any("script-src" in message for message in refused) and any("x.png" in message for message in refused)
