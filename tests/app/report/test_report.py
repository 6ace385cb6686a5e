"""The page of a report: its numbers, anchors and figures, and that it stands in a browser and on paper and runs no script."""

import base64
import datetime as dt
import html
import re
import shutil
import subprocess
from importlib.resources import files

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")
from matplotlib import pyplot as plt
from report_pages import PIXEL, Seen, document, drawn, shown

from bayesens.app.report.page import Figure, Note, Report, Section, Table, render

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return render(document(tmp_path_factory.mktemp("figures")))


# ------------------------------------------------------------------------------------------------------------- the page
class TestPage:
    def test_numbers_titles_and_anchors(self, page):
        seen = Seen(page)
        assert [text.split() for _, text in seen.all("h1", "h2", "h3")][1:] == [
            words.split() for words in ("Summary", "Contents", "1 Data", "2 Scores", "2.1 By network", "3 Posterior",
                                        "3.1 Calibration", "3.2 Through time", "4 Priors and what was assumed")
        ]  # fmt: skip
        captions = [text.split(".")[0] for _, text in seen.all("figcaption")]
        assert captions == ["Table 1", "Table 2", "Table 3", "Table 4", "Figure 1", "Figure 2", "Figure 3", "Table 5"]

    def test_every_anchor_is_there_once_and_every_link_leads_to_one(self, page):
        seen = Seen(page)
        ids = [attrs["id"] for _, attrs in seen.tags if "id" in attrs]
        assert len(ids) == len(set(ids))
        links = [attrs["href"] for attrs, _ in seen.all("a") if attrs["href"].startswith("#")]
        assert {link[1:] for link in links} <= set(ids)
        assert len([attrs for attrs, text in seen.all("a") if attrs["href"] == "#scores" and text == "Table 2"]) == 1

    def test_headings_go_down_one_level_at_a_time(self, page):
        level = [int(tag[1]) for tag, _ in Seen(page).tags if re.fullmatch("h[1-6]", tag)]
        assert level[0] == 1
        assert level.count(1) == 1
        assert (np.diff(level) <= 1).all()

    def test_landmarks_language_and_names(self, page):
        seen = Seen(page)
        assert seen.all("html")[0][0]["lang"] == "en"
        assert [len(seen.all(tag)) for tag in ("header", "nav", "main", "footer")] == [1, 1, 1, 1]
        assert all(attrs["alt"] and int(attrs["width"]) and int(attrs["height"]) for attrs, _ in seen.all("img"))
        assert len(seen.all("caption")) == len(seen.all("table")) == 5
        assert all(attrs["scope"] in ("row", "rowgroup", "col", "colgroup") for attrs, _ in seen.all("th"))
        ids = {attrs["id"] for _, attrs in seen.tags if "id" in attrs}
        named = [
            attrs[key] for _, attrs in seen.tags for key in ("aria-labelledby", "aria-describedby") if key in attrs
        ]
        assert set(named) <= ids

    def test_nothing_is_fetched(self, page):
        seen = Seen(page)
        leads = [
            attrs[key] for _, attrs in seen.tags for key in ("src", "href", "srcset", "data", "action") if key in attrs
        ]
        away = [lead for lead in leads if not lead.startswith(("#", "data:"))]
        assert away == ["tables/stations.csv", "tables/scores.csv"]
        style = seen.all("style")[0][1]
        assert "@import" not in style
        assert "url(" not in style
        assert not seen.all("script", "iframe", "object", "embed", "base")
        policy = next(attrs["content"] for attrs, _ in seen.all("meta") if "http-equiv" in attrs)
        assert policy.startswith("default-src 'none'; img-src data:;")
        assert "script" not in policy

    def test_head_and_date(self):
        seen = shown("Text.", facts={"Rows": 12}, date=dt.date(2026, 3, 1), version="1.2", subtitle="Under it")
        pairs = zip(seen.all("dt"), seen.all("dd"), strict=True)
        assert [(name, value) for (_, name), (_, value) in pairs] == [
            ("Rows", "12"), ("Date", "1 March 2026"), ("Made with", "bayesens 1.2")
        ]  # fmt: skip
        assert ({"class": "subtitle"}, "Under it") in seen.all("p")

    def test_a_report_of_a_title_alone(self):
        seen = Seen(render(Report("Nothing yet")))
        assert not seen.all("nav")
        assert [text for _, text in seen.all("h1", "h2", "h3")] == ["Nothing yet"]

    def test_template_is_found_beside_the_code(self):
        assert files("bayesens.app.report").joinpath("report.html.j2").is_file()


class TestFigures:
    def test_figures_are_inside_at_their_own_size(self, tmp_path):
        drawing = drawn(tmp_path)
        seen = shown(*(Figure(path, name, name) for name, path in drawing.items()))
        size = {"weights": (6.2, 2.8), "pit": (5.2, 3.0), "intervals": (10.0, 3.4)}
        for name, (attrs, _) in zip(drawing, seen.all("img"), strict=True):
            head, _, content = attrs["src"].partition(",")
            assert head == f"data:image/{'png' if name == 'pit' else 'svg+xml'};base64"
            assert base64.b64decode(content) == drawing[name].read_bytes()
            assert (int(attrs["width"]), int(attrs["height"])) == pytest.approx(np.multiply(size[name], 96), abs=1)

    @pytest.mark.parametrize(
        ("attributes", "size"),
        [('width="72pt" height="1in"', (96, 96)), ('width="300" height="20px"', (300, 20)),
         ('width="100%" viewBox="0 0 400 300"', (400, 300)), ('viewBox="0,0,40,30"', (40, 30))],
    )  # fmt: skip
    def test_size_of_an_svg(self, tmp_path, attributes, size):
        path = tmp_path / "a.svg"
        path.write_text(f'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" {attributes}/>')
        attrs = shown(Figure(path, "c", "a")).all("img")[0][0]
        assert (int(attrs["width"]), int(attrs["height"])) == size

    @pytest.mark.parametrize(
        ("name", "content", "text"),
        [
            ("a.svg", b"<html/>", r"a\.svg is no SVG file .*<html>.* draw it again"),
            ("a.svg", b"<svg", "a\\.svg is no SVG file"),
            ("a.svg", b"", "a\\.svg is no SVG file"),
            ("a.png", b"GIF89a", "a\\.png is no PNG file .*does not begin"),
            ("a.png", PIXEL[:12], "a\\.png is no PNG file"),
        ],
    )
    def test_other_files_are_refused(self, tmp_path, name, content, text):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=text):
            shown(Figure(tmp_path / name, "c", "a"))

    def test_refusals(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"nothing\.png is not there; draw it first"):
            shown(Figure(tmp_path / "nothing.png", "c", "a"))
        with pytest.raises(ValueError, match=r"\.svg or \.png file; got 'a\.pdf'"):
            Figure("a.pdf", "c", "a")
        with pytest.raises(ValueError, match="no alt text; say in a sentence"):
            Figure("a.png", "c", "  ")


# ----------------------------------------------------------------------------------------------------------- how it looks
def luminance(color):
    """Relative luminance of WCAG 2."""
    share = np.array([int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast_of_text_is_that_of_wcag_aa(page, theme):
    blocks = re.findall(r":root \{(.*?)\n *\}", page, flags=re.S)
    assert len(blocks) == 2
    color = dict(re.findall(r"--([\w-]+): (#\w{6});", blocks[theme == "dark"]))
    on = {"paper": ("ink", "muted", "link"), "soft": ("ink", "muted", "link"), "finding-soft": ("ink", "finding", "link"),
          "caution-soft": ("ink", "caution", "link")}  # fmt: skip
    for back, fronts in on.items():
        for front in fronts:
            dark, light = sorted([luminance(color[back]), luminance(color[front])])
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (front, back)


@pytest.fixture(scope="module")
def browse(tmp_path_factory):
    """Run Chromium on a page; returns what it wrote to stdout and stderr."""
    if not CHROMIUM:
        pytest.skip("there is no chromium, chromium-browser or google-chrome here")
    home = tmp_path_factory.mktemp("browser")

    def run(page, *options):
        (home / "page.html").write_text(page, encoding="utf-8")
        switches = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                    "--disable-background-networking", "--hide-scrollbars", "--virtual-time-budget=3000",
                    "--enable-logging=stderr", f"--user-data-dir={home / 'profile'}"]  # fmt: skip
        command = [CHROMIUM, *switches, *options, (home / "page.html").as_uri()]
        done = subprocess.run(command, capture_output=True, timeout=120, check=True, cwd=home)
        return done.stdout.decode(), done.stderr.decode(errors="replace")

    run.home = home
    return run


def complaints(log):
    return [line for line in log.splitlines() if "CONSOLE" in line]


def widths(browse, page, viewport):
    """Width of all there is on a page, and of the viewport, measured in the browser [CSS pixels]."""
    ask = "<script>document.title = [document.documentElement.scrollWidth, innerWidth, document.images.length, " \
          "[...document.images].filter(one => one.complete && one.naturalWidth).length].join()</script>"  # fmt: skip
    free = re.sub(r'<meta http-equiv="Content-Security-Policy".*?>', "", page)  # this copy has a script
    inner = free.replace("</body>", f"{ask}</body>")
    frame = f'<iframe id="f" style="border:0;width:{viewport}px;height:800px" srcdoc="{html.escape(inner)}"></iframe>'
    tell = "<script>onload = () => { document.title = document.getElementById('f').contentDocument.title }</script>"
    dom, _ = browse(f"<!DOCTYPE html><title>none</title><body>{frame}{tell}</body>", "--dump-dom")
    return [int(number) for number in re.search("<title>([0-9,]+)</title>", dom)[1].split(",")]


class TestBrowser:
    def test_page_shows_without_a_complaint(self, browse, page):
        dom, log = browse(page, "--dump-dom")
        assert not complaints(log)
        assert "Table 5" in Seen(dom).all("main")[0][1]

    def test_no_script_of_a_page_or_a_figure_runs(self, browse, tmp_path):
        """What a figure or a slip in the template might bring is refused, and the console says so."""
        (tmp_path / "a.svg").write_text(
            '<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10" onload="parent.document.title=\'broken\'">'
            "<script>top.document.title='broken'; document.title='broken'</script></svg>"
        )
        page = render(Report("Whole", sections=[Section("S", [Figure(tmp_path / "a.svg", "c", "a")])]))
        dom, log = browse(page, "--dump-dom")
        assert "<title>Whole</title>" in dom
        assert not complaints(log)
        dom, log = browse(page.replace("</body>", "<script>document.title='broken'</script></body>"), "--dump-dom")
        assert "<title>Whole</title>" in dom
        assert "Content Security Policy" in " ".join(complaints(log))

    @pytest.mark.slow
    @pytest.mark.parametrize("viewport", [375, 1280])
    def test_nothing_is_wider_than_the_page(self, browse, page, viewport):
        wide = Section("W" * 300, ["w" * 400, Table(pd.DataFrame([[1.5] * 60]), "w" * 300),
                                   Table(pd.DataFrame({"n" * 90: ["v" * 300]}), "c", "w" * 300), Note("w" * 300)])  # fmt: skip
        hostile = render(Report("W" * 300, ["w" * 300], [wide], {"f" * 90: "w" * 300}, subtitle="w" * 300))
        for each in (page, hostile):
            width, inner, images, loaded = widths(browse, each, viewport)
            assert inner == viewport
            assert width == viewport
            assert images == loaded
        if viewport == 375:  # the measure itself sees what is too wide
            assert widths(browse, page.replace("overflow-x: auto", "overflow-x: visible"), viewport)[0] > viewport

    def test_folded_tables_are_open_on_paper(self, browse):
        frame = pd.DataFrame({"station": [f"st{k}" for k in range(200)], "x": np.arange(200) / 7})
        pages = {}
        for rows in (3, 200):
            page = render(Report("T", sections=[Section("S", [Table(frame.head(rows), "Stations.", fold=True)])]))
            browse(page, f"--print-to-pdf={browse.home / 'page.pdf'}")
            content = (browse.home / "page.pdf").read_bytes()
            assert content.startswith(b"%PDF")
            pages[rows] = len(re.findall(rb"/Type /Page\b", content))
        assert pages[3] == 1
        assert 3 <= pages[200] <= 8
