"""Thumbnails, the gallery made of them, and that the pages in the repository are made of it."""

import gzip
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from paper_figures.__main__ import main
from paper_figures.catalogue import FIGURES
from paper_figures.claims_page import write_page
from paper_figures.figure import Figure
from paper_figures.gallery import write_gallery
from paper_figures.thumbnail import LARGEST, thumbnail
from tests.paper_figures.test_produce import LINE

DOCS = Path(__file__).parents[2] / "docs"
PLANNED = Figure("fake/later", "Fakes", "a plan")
ELSEWHERE = Figure("fake/costly", "Fakes", "not kept", "tests.paper_figures.fakes:draw_line", 1)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("paper_figures.keep.STUDIES", {})
        assert main(["--out", str(folder / "out"), "--keep", str(folder)], (LINE,)) == 0
    return folder


@pytest.mark.slow
def test_a_thumbnail_is_small_and_still_the_picture(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (700, 1400, 1), np.uint8)
    noise = np.repeat(grey, 3, axis=2)  # few colours, as a plot has, and yet
    noise[:350] = (0, 114, 178)  # what is plain above, nothing compresses below
    Image.fromarray(noise).save(tmp_path / "noise.png")
    assert (tmp_path / "noise.png").stat().st_size > 8 * LARGEST
    found = thumbnail(tmp_path / "noise.png")
    assert len(found) <= LARGEST
    with Image.open(io.BytesIO(found)) as small:
        assert small.width / small.height == pytest.approx(2, rel=0.02)
        above = np.asarray(small.convert("RGB"))[: small.height // 3]
    assert np.abs(above.astype(int) - (0, 114, 178)).max() < 8
    assert thumbnail(tmp_path / "noise.png") == found
    with pytest.raises(ValueError, match="too intricate"):
        thumbnail(tmp_path / "noise.png", 1000)


def test_what_is_clear_becomes_white(tmp_path):
    Image.new("RGBA", (300, 200), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    with Image.open(io.BytesIO(thumbnail(tmp_path / "clear.png"))) as small:
        assert small.convert("RGB").getcolors() == [(300 * 200, (255, 255, 255))]


def test_many_numbers_are_kept_to_five_digits(tmp_path, monkeypatch, kept):
    monkeypatch.setattr("paper_figures.keep.STUDIES", {})
    monkeypatch.setattr("paper_figures.keep._LARGEST", 10)
    main(["--out", str(tmp_path / "out"), "--keep", str(tmp_path)], (LINE,))
    assert not (tmp_path / "quick/fake/line.csv").exists()
    packed = gzip.decompress((tmp_path / "quick/fake/line.csv.gz").read_bytes()).decode()
    whole = pd.read_csv(kept / "quick/fake/line.csv")
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(packed)), whole, check_dtype=False)


def test_a_paper_has_its_pictures_verdicts_and_what_is_missing(tmp_path, kept):
    figures = (LINE, PLANNED, ELSEWHERE)
    assert write_gallery(tmp_path / "pages", kept, figures) == 1
    page = (tmp_path / "pages/fake.md").read_text()
    [(text, image, numbers)] = re.findall(r"\[!\[(.*?)\]\((.*?)\).*?\]\((.*?)\)", page)
    assert text == "fake/line: a line"
    for target in (image, numbers):
        assert (tmp_path / "pages" / target).resolve().is_file()
    assert '<span class="verdict holds">holds</span> the line rises. The paper: 4.' in page
    assert '<span class="verdict untested">' in page
    assert "`fake/later`: a plan (planned)" in page
    assert "`fake/costly`: not kept (can be drawn, its results are not kept)" in page
    index = (tmp_path / "pages/index.md").read_text()
    assert "1 of the 3 figures" in index
    assert "[Fakes](fake.md)" in index


def test_a_gallery_of_nothing_is_an_error(tmp_path, capsys):
    assert main(["--gallery", str(tmp_path / "p"), "--from", str(tmp_path)], (LINE,)) == 2
    assert "has no pictures" in capsys.readouterr().err
    assert main(["--gallery", str(tmp_path / "p")], (LINE,)) == 2
    assert "--gallery needs --from" in capsys.readouterr().err


def test_pages_of_the_repository_are_made_of_its_results(tmp_path):
    """Not edited by hand, and not of yesterday's numbers."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/results").symlink_to(DOCS / "results")
    write_gallery(tmp_path / "docs/papers", tmp_path / "docs/results", FIGURES)
    made, there = (
        {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}
        for folder in (tmp_path / "docs/papers", DOCS / "papers")
    )
    assert made == there
    write_page(tmp_path / "claims.md", DOCS / "results", FIGURES)
    assert (tmp_path / "claims.md").read_text() == (DOCS / "claims.md").read_text()


def test_pictures_of_the_repository_are_small():
    pictures = list((DOCS / "results").rglob("*.png"))
    assert pictures
    assert max(path.stat().st_size for path in pictures) <= LARGEST
