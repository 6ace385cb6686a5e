"""Text of a report: its marks, hostile text that stays text, what is refused, and that a page is written whole or not."""

import re

import pandas as pd
import pytest
from report_pages import PIXEL, Seen, rows_of

from bayesens.app.report.page import (
    Figure,
    Listing,
    Note,
    Paragraph,
    Report,
    Section,
    Table,
    literal,
    render,
    write,
)

HOSTILE = "<script>document.title='broken'</script>\"'><img src=http://x.example/ onerror=alert(1)> & *a* {{ 7*7 }} \0"


class TestText:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("*emphasis* and `code`", "<em>emphasis</em> and <code>code</code>"),
            ("2*3*4 and * alone *", "2*3*4 and * alone *"),
            ("a < b & c", "a &lt; b &amp; c"),
            ("`<b>` *<i>*", "<code>&lt;b&gt;</code> <em>&lt;i&gt;</em>"),
            ("`*not*`", "<code>*not*</code>"),
            (r"\*plain\* \`too\`", "*plain* `too`"),
            ("see [#part]", 'see <a href="#part">Section 1</a>'),
            ("see [1]", "see [1]"),
        ],
    )
    def test_marks(self, text, expected):
        for part in (text, Paragraph(text)):
            assert f"<p>{expected}</p>" in render(Report("T", sections=[Section("Part", [part])]))
        assert f"<li>{expected}</li>" in render(Report("T", sections=[Section("Part", [Listing([text])])]))

    def test_literal_takes_every_meaning(self):
        text = r"*a* `b` [#nowhere] \*c\* st_*1*"
        page = render(Report("T", sections=[Section("Part", [literal(text)])]))
        assert f"<p>{text}</p>" in page

    def test_hostile_text_is_text_in_every_field(self, tmp_path):
        (tmp_path / "a.png").write_bytes(PIXEL)
        bad = literal(HOSTILE)
        frame = pd.DataFrame({HOSTILE: [HOSTILE, "b"], "x": [1.0, 2.0]}, index=pd.Index([HOSTILE, "c"], name=HOSTILE))
        frame.columns = pd.MultiIndex.from_tuples([(HOSTILE, HOSTILE), (HOSTILE, "x")])
        parts = [bad, Paragraph(bad), Listing([bad]), Note(bad, "caution"), Section(HOSTILE, [bad]),
                 Figure(tmp_path / "a.png", bad, HOSTILE),
                 Table(frame, bad, bad, source="tables/" + re.sub(r"[/:\0]", "", HOSTILE))]  # fmt: skip
        report = Report(HOSTILE, [bad], [Section(HOSTILE, parts)], {HOSTILE: HOSTILE}, HOSTILE, HOSTILE, HOSTILE)
        page = render(report)
        seen = Seen(page)
        assert not seen.all("script")
        assert [set(attrs) for attrs, _ in seen.all("img")] == [{"src", "alt", "width", "height"}]
        assert seen.all("img")[0][0]["src"].startswith("data:image/png;base64,")
        assert not [name for _, attrs in seen.tags for name in attrs if name.startswith("on")]
        text = HOSTILE.replace("\0", "\N{REPLACEMENT CHARACTER}")
        assert seen.all("h1")[0][1] == seen.all("title")[0][1] == text
        assert seen.all("img")[0][0]["alt"] == text
        assert [t for _, t in seen.all("li")][-1] == text
        assert rows_of(seen)[-2][:2] == [text, text]
        assert "\0" not in page

    def test_what_utf8_cannot_hold_is_replaced(self, tmp_path):
        write(Report("a\ud800b\x1bc"), tmp_path / "r.html")
        assert "<h1>a\ufffdb\ufffdc</h1>" in (tmp_path / "r.html").read_text(encoding="utf-8")


# --------------------------------------------------------------------------------------------------- refusals and writing
class TestValues:
    def test_one_part_needs_no_list(self):
        assert Section("S", "text").parts == ("text",)
        assert Report("T", "text").summary == ("text",)
        assert Listing(["a"]).items == ("a",)

    def test_refusals(self):
        with pytest.raises(TypeError, match="section 'S' holds int \\('3'\\); wanted str, Paragraph"):
            Section("S", [3])
        with pytest.raises(TypeError, match="the report holds str"):
            Report("T", sections=["text"])
        with pytest.raises(ValueError, match="a note is 'finding' or 'caution'; got kind='tip'"):
            Note("x", "tip")
        deep = Section("A", [Section("B", [Section("C", [])])])
        with pytest.raises(ValueError, match="section 'C' is three deep"):
            render(Report("T", sections=[deep]))
        with pytest.raises(ValueError, match="the id 'a' is used more than once, or is the page's own; give each"):
            render(Report("T", sections=[Section("A", [], "a"), Section("B", [], "a")]))
        with pytest.raises(ValueError, match="the id 'main'"):
            render(Report("T", sections=[Section("A", [], "main")]))
        with pytest.raises(ValueError, match="got 'a b'"):
            render(Report("T", sections=[Section("A", [], "a b")]))
        with pytest.raises(ValueError, match=r"'\[#scores\]' leads nowhere: the report has 'a'; .* literal"):
            render(Report("T", sections=[Section("A", ["see [#scores]"])]))

    def test_titles_that_are_alike_have_anchors_of_their_own(self):
        seen = Seen(render(Report("T", sections=[Section("Où?", []), Section("Ou", []), Section("土壤", []), Section("2 b", []),
                                                  Section("Main", []), Section("x", [], "ou-2")])))  # fmt: skip
        anchors = [attrs["id"] for attrs, _ in seen.all("h2") if attrs["id"] != "contents"]
        assert anchors == ["ou", "ou-3", "section", "section-2-b", "main-2", "ou-2"]


class TestWrite:
    def test_written_whole(self, tmp_path):
        report = Report("Été, 土壤", ["text"])
        write(report, tmp_path / "report.html")
        assert (tmp_path / "report.html").read_bytes() == render(report).encode()
        assert [path.name for path in tmp_path.iterdir()] == ["report.html"]

    def test_what_was_there_stays_where_the_new_one_fails(self, tmp_path):
        (tmp_path / "report.html").write_text("old")
        with pytest.raises(FileNotFoundError, match="draw it first"):
            write(
                Report("T", sections=[Section("S", [Figure(tmp_path / "a.svg", "c", "a")])]), tmp_path / "report.html"
            )
        assert (tmp_path / "report.html").read_text() == "old"
        assert len(list(tmp_path.iterdir())) == 1

    def test_refusals(self, tmp_path):
        with pytest.raises(ValueError, match=r"an \.html file; got"):
            write(Report("T"), tmp_path / "report.pdf")
        with pytest.raises(FileNotFoundError, match="does not exist; create it first"):
            write(Report("T"), tmp_path / "no" / "report.html")
