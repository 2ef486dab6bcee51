#!/usr/bin/env python3
"""Checks fleet.html, beside its fleet.json, and report.html in a browser: run.py CHROMIUM DIR.

It leaves pictures of them in the same directory.

Each check has a page of its own. All run, even if one fails. Nothing may be fetched and nothing may be logged during any of them.
"""

import contextlib
import json
import pathlib
import sys
import traceback

import pypdf
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

PROGRAM, DIR = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
SUMMARY = json.loads((DIR / "fleet.json").read_text())
VERDICTS = ("encrypted", "excepted", "unknown", "not_encrypted")
# A4 and letter are at least so wide in landscape, without Chromium's margins
PAPER = {"width": 976, "height": 700}
# milliseconds; virtual machines may run beside the browser
TIMEOUT = 60_000
# the widest table fits, so nothing that axe looks at is out of sight
DESK = {"width": 1800, "height": 1000}
PHONE = {"width": 360, "height": 740}
# texts of the cells of the rows that are shown; of a cell with a menu that opens, only what is always there
ROWS = """body => Array.from(body.rows).filter(row => row.checkVisibility()).map(row => Array.from(row.cells).map(
    cell => (cell.querySelector("summary") ?? cell).innerText.replaceAll("\\u00a0", " ")))"""
SORT_KEYS = "(body, column) => Array.from(body.rows, row => row.cells[column].dataset.sort ?? row.cells[column].textContent)"

checks = []


def check(name, **options):
    """Registers a function as a check of the page NAME.html, which is opened with the options of a browser context."""

    def register(function):
        checks.append((function.__name__ + " of " + name, name, options, function))
        return function

    return register


def same(found, expected, what):
    assert found == expected, f"{what}:\n  found    {found!r}\n  expected {expected!r}"


def table(page, name):
    """The table of a name, as a screen reader finds it."""
    return page.get_by_role("region", name=name, exact=True).get_by_role("table")


def rows(page, name):
    return table(page, name).locator("tbody").evaluate(ROWS)


def column_of(page, name, title):
    headers = table(page, name).locator("thead th").all_inner_texts()
    return [header.strip() for header in headers].index(title)


def column(page, name, title):
    index = column_of(page, name, title)
    return [row[index] for row in rows(page, name)]


def sort_keys(page, name, title):
    return table(page, name).locator("tbody").evaluate(SORT_KEYS, column_of(page, name, title))


def words(verdict):
    return verdict.replace("-", " ")


def figures(page):
    """Compares every figure of the fleet's page with the JSON."""
    coverage = SUMMARY["coverage"]
    tallies = [[tally[verdict] for verdict in VERDICTS] for tally in (coverage[name] for name in ("nodes", "volumes", "bytes"))]
    tallies = [[*tally, sum(tally)] for tally in tallies]
    nodes, volumes, _ = rows(page, "Coverage")
    same([nodes, volumes], [[name, *map(str, tally)] for name, tally in zip(("Nodes", "Volumes"), tallies)], "coverage")
    cells = table(page, "Coverage").locator("tbody tr").nth(2).locator("td")
    same([int(cell.get_attribute("data-sort")) for cell in cells.all()], tallies[2], "bytes")
    for cell, count in zip(cells.all_inner_texts(), tallies[2]):
        number, unit = cell.split()
        shown = float(number) * 1024 ** ("B", "KiB", "MiB", "GiB", "TiB", "PiB").index(unit)
        assert abs(shown - count) <= count / 20, f"{cell} for {count}"

    found = [[key, seen, failing, nodes, volumes] for key, _, seen, _, failing, nodes, volumes, _ in rows(page, "Keys")]
    keys = SUMMARY["keys"]
    expected = [
        [key["key_arn"], key["state"], str(len(key["failing_nodes"])), str(len(key["nodes"])), str(key["volumes"])] for key in keys
    ]
    same(found, expected, "keys")
    same(sort_keys(page, "Keys", "Bytes"), [str(key["bytes"]) for key in keys], "bytes of keys")
    same(len([key for key in keys if key["failing_nodes"]]) > 0, True, "keys that a node cannot use")

    silent = [
        [node["instance_id"], node["cluster_id"], node["state"], str(node["volumes"]), str(node["unencrypted"])]
        for node in SUMMARY["silent"]
    ]
    same([row[:4] + row[5:] for row in rows(page, "Silent nodes")], silent, "silent nodes")

    sides = SUMMARY["volumes"]
    unencrypted = [[volume["volume_id"], volume["instance_id"]] for volume in sides["unencrypted_by_ec2"]]
    same([row[:2] for row in rows(page, "Volumes that EC2 calls unencrypted")], unencrypted, "volumes that EC2 calls unencrypted")
    results = column(page, "Volumes that EC2 calls unencrypted", "Result")
    counts = [results.count(result) for result in ("encrypted by LUKS", "open")]
    same(counts, [sides["resolved"], sides["open"]], "resolved and open")
    expect(page.get_by_text(f"that LUKS encrypts: {sides['resolved']}.")).to_have_count(1)

    places = [
        [configured["name"], str(configured["nodes"]), *(str(place[name]) for name in ("luks", "ebs", "in_clear", "unknown"))]
        for configured in SUMMARY["configurations"]
        for place in configured["places"]
    ]
    found = [row[:2] + row[4:8] for row in rows(page, "Configuration and reality")]
    same(found, places, "configurations")
    clusters = [[cluster["id"], str(cluster["nodes"])] for cluster in SUMMARY["clusters"]]
    same([[row[0], row[3]] for row in rows(page, "Clusters")], clusters, "clusters")
    excepted = [[e["reason"], e["role"], str(len(e["nodes"])), str(e["volumes"])] for e in SUMMARY["exceptions"]]
    same([row[:4] for row in rows(page, "Exceptions")], excepted, "exceptions")

    found = {row[0].split("\n")[0]: [row[1], row[2], row[5], row[6]] for row in rows(page, "Nodes")}
    expected = {}
    for node in SUMMARY["nodes"]:
        tally = node["coverage"]["volumes"]
        disks = sum(tally[verdict] for verdict in VERDICTS)
        expected[node["node"]] = [words(node["verdict"]), "; ".join(node["reasons"]), str(disks), str(tally["encrypted"])]
    same(found, expected, "nodes")
    same({node["verdict"] for node in SUMMARY["nodes"]}, {verdict.replace("_", "-") for verdict in VERDICTS}, "verdicts")
    for name in ("Keys", "Silent nodes", "Volumes that EC2 calls unencrypted", "Configuration and reality", "Clusters", "Exceptions"):
        assert len(rows(page, name)) > 1, f"the test's own input has no two rows in {name}"


@check("fleet")
def the_figures_are_those_of_the_json(page):
    figures(page)


@check("fleet", java_script_enabled=False)
def without_scripts_it_says_the_same(page):
    figures(page)
    for role in ("button", "searchbox", "combobox"):
        expect(page.get_by_role(role)).to_have_count(0)


@check("fleet")
def a_header_sorts_by_mouse_and_by_keyboard(page):
    for title, kind in (("Disks", int), ("Bytes", int), ("Verdict", int), ("Node", str), ("Report made", str)):
        header = table(page, "Nodes").get_by_role("columnheader").nth(column_of(page, "Nodes", title))
        assert header.get_attribute("aria-sort") is None
        before = sort_keys(page, "Nodes", title)
        # the whole header can be clicked
        header.click(position={"x": 3, "y": 3})
        same(header.get_attribute("aria-sort"), "ascending", title)
        same(sort_keys(page, "Nodes", title), sorted(before, key=kind), f"{title} ascending")
        button = page.get_by_role("button", name=f"Sort by {title}", exact=True).and_(table(page, "Nodes").get_by_role("button"))
        button.focus()
        page.keyboard.press("Enter")
        same(header.get_attribute("aria-sort"), "descending", title)
        same(sort_keys(page, "Nodes", title), sorted(before, key=kind, reverse=True), f"{title} descending")
        page.keyboard.press("Space")
        same(header.get_attribute("aria-sort"), "ascending", title)
        same(len(set(before)) > 2, True, f"different values of {title}")
        same(table(page, "Nodes").locator("[aria-sort]").count(), 1, "headers that say that they sort")


@check("fleet")
def the_keyboard_reaches_every_control_and_shows_where_it_is(page):
    reached = []
    for _ in range(400):
        page.keyboard.press("Tab")
        name, outline = page.evaluate(
            """() => { const it = document.activeElement; const after = getComputedStyle(it, it.matches("thead button") ? "::after" : null);
            return [it === document.body ? null : it.ariaLabel ?? it.labels?.[0]?.firstChild.data ?? it.textContent, after.outlineStyle]; }"""
        )
        if name is None:
            break
        assert outline != "none", f"{name} has the focus and does not show it"
        reached.append(name.strip())
    for name in ("Nodes", "Filter Nodes", "Verdict", "Sort by Verdict", "Filter Clusters", "Result", "Sort by Reason"):
        assert name in reached, f"{name} is not among {reached}"


def filtered(page, name, title, act):
    """The values of a column and the status, once the page has filtered because of what `act` does."""
    controls = page.locator(".tools").filter(has=page.get_by_label(f"Filter {name}", exact=True))
    status = controls.get_by_role("status")
    status.evaluate("status => { status.textContent = ''; }")
    act()
    expect(status).not_to_be_empty()
    return column(page, name, title), status.inner_text()


@check("fleet")
def the_filter_shows_the_rows_with_all_words_and_says_how_many(page):
    field = page.get_by_role("searchbox", name="Filter Nodes")
    every = rows(page, "Nodes")
    for text in ("J-1", "j-1 us-east-1", "encrypt j-3", "i-00000000000000007", "no such text", ""):
        expected = [row[0] for row in every if all(word in " ".join(row).lower() for word in text.lower().split())]
        found = filtered(page, "Nodes", "Node", lambda: field.fill(text))
        same(found, (expected, f"{len(expected)} of {len(every)} rows are shown"), text)


@check("fleet")
def a_whole_verdict_means_only_that_verdict(page):
    field, menu = page.get_by_role("searchbox", name="Filter Nodes"), page.get_by_role("combobox", name="Verdict")
    verdicts = [words(node["verdict"]) for node in SUMMARY["nodes"]]
    same(sorted(menu.locator("option").all_inner_texts()), sorted({"any", *verdicts}), "the menu")
    for verdict in sorted(set(verdicts)):
        count = verdicts.count(verdict)
        expected = ([verdict] * count, f"{count} of {len(verdicts)} rows are shown")
        found = filtered(page, "Nodes", "Verdict", lambda: field.fill(f" {verdict.capitalize()} "))
        same(found, expected, f"{verdict} in the field")
        filtered(page, "Nodes", "Verdict", lambda: field.fill(""))
        same(filtered(page, "Nodes", "Verdict", lambda: menu.select_option(verdict)), expected, f"{verdict} in the menu")
        filtered(page, "Nodes", "Verdict", lambda: menu.select_option("any"))
    # both together, the menu by keyboard
    menu.focus()
    filtered(page, "Nodes", "Verdict", lambda: page.keyboard.type("encrypted"))
    found, _ = filtered(page, "Nodes", "Verdict", lambda: field.fill("j-1"))
    in_cluster = [node for node in SUMMARY["nodes"] if (node["cluster_id"] or "").startswith("j-1")]
    expected = ["encrypted" for node in in_cluster if node["verdict"] == "encrypted"]
    assert 0 < len(expected) < len(in_cluster), "the test's own input has nothing to tell apart in j-1"
    same(found, expected, "encrypted in j-1")
    # a sort does not show what the filter hides
    page.get_by_role("button", name="Sort by Node", exact=True).click()
    same(column(page, "Nodes", "Verdict"), found, "after a sort")

    name = "Volumes that EC2 calls unencrypted"
    field = page.get_by_role("searchbox", name=f"Filter {name}")
    found, _ = filtered(page, name, "Report", lambda: field.fill("encrypted"))
    same(found, ["encrypted"] * SUMMARY["volumes"]["resolved"], "encrypted beside EC2's unencrypted")


def accessible(page, name):
    """Checks axe's rules in light and dark, also while rows are sorted and filtered, and takes pictures."""
    for scheme, channel in (("light", "255"), ("dark", "20")):
        page.emulate_media(color_scheme=scheme)
        background = page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
        assert background.startswith(f"rgb({channel}, "), f"{scheme} has the background {background}"
        page.screenshot(path=DIR / f"{name}-{scheme}.png", full_page=True)
        found = Axe().run(page, options={"resultTypes": ["violations", "incomplete", "passes"]})
        assert found.violations_count == 0, f"{scheme}:\n{found.generate_report()}"
        # a rule that axe could not decide counts as one that is broken
        undecided = [(rule["id"], node["html"][:200], node["failureSummary"]) for rule in found.response["incomplete"] for node in rule["nodes"]]
        same(undecided, [], f"undecided in {scheme}")
        assert "color-contrast" in {rule["id"] for rule in found.response["passes"]}, "axe did not look at the contrast"


@check("report", viewport=DESK)
@check("fleet", viewport=DESK)
def it_is_accessible_in_light_and_dark(page):
    name = pathlib.Path(page.url).stem
    if name == "fleet":
        page.get_by_role("button", name="Sort by Verdict").click()
        page.get_by_role("combobox", name="Result").select_option(index=1)
        table(page, "Keys").locator("summary").first.click()
    accessible(page, name)


@check("report", viewport=PHONE)
@check("fleet", viewport=PHONE)
def a_narrow_screen_does_not_scroll_sideways(page):
    page.screenshot(path=DIR / f"{pathlib.Path(page.url).stem}-narrow.png", full_page=True)
    same(page.evaluate("document.documentElement.scrollWidth"), PHONE["width"], "width")


@check("report", viewport=PAPER)
@check("fleet", viewport=PAPER)
def paper_has_everything_and_no_controls(page):
    name = pathlib.Path(page.url).stem
    if name == "fleet":
        every = rows(page, "Nodes")
        field = page.get_by_role("searchbox", name="Filter Nodes")
        same(filtered(page, "Nodes", "Node", lambda: field.fill("no such text"))[0], [], "filtered")
    page.emulate_media(media="print")
    same(page.evaluate("document.documentElement.scrollWidth"), PAPER["width"], "width")
    for control in page.locator("button, input, select, nav, .tools").all():
        assert not control.is_visible(), f"{control} is on paper"
    file = DIR / f"{name}.pdf"
    page.pdf(path=file, format="Letter", landscape=True, margin=dict.fromkeys(("top", "right", "bottom", "left"), "1cm"))
    paper = "".join("".join(sheet.extract_text() for sheet in pypdf.PdfReader(file).pages).split())
    if name == "fleet":
        same(rows(page, "Nodes"), every, "rows on paper")
        for key in SUMMARY["keys"]:
            # the names that a menu hides on the screen
            assert "".join(", ".join(key["nodes"]).split()) in paper, f"the nodes of {key['key_arn']} are not on paper"
    for cell in page.locator("tbody th").all_inner_texts():
        assert "".join(cell.split()) in paper, f"{cell} is not on paper"


@contextlib.contextmanager
def opened(browser, name, options):
    """A page, closed at the end; then nothing but the page may have been loaded, and nothing logged."""
    context = browser.new_context(offline=True, **options)
    page = context.new_page()
    loaded, logged = [], []
    page.on("request", lambda request: loaded.append(request.url))
    page.on("console", lambda message: logged.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: logged.append(str(error)))
    url = (DIR / f"{name}.html").as_uri()
    page.goto(url)
    yield page
    context.close()
    same(loaded, [url], "loaded")
    same(logged, [], "logged")


def main():
    failed = []
    expect.set_options(timeout=TIMEOUT)
    with sync_playwright() as playwright:
        # Chromium does not sandbox itself for root; it opens nothing but these pages
        browser = playwright.chromium.launch(executable_path=PROGRAM, chromium_sandbox=False, args=["--disable-gpu", "--disable-quic"])
        print("Chromium", browser.version)
        for name, file, options, function in checks:
            try:
                with opened(browser, file, options) as page:
                    page.set_default_timeout(TIMEOUT)
                    function(page)
                print("passed", name)
            except Exception:  # every check is to run
                failed.append(name)
                print("FAILED", name)
                traceback.print_exc(file=sys.stdout, limit=3)
        browser.close()
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


main()
