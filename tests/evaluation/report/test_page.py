"""The page as a file: its content, what it skips, and what it refuses."""

import html
import io
import json
import re
import shlex
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from c2c_jax.config import flat_fields
from c2c_jax.errors import BundleError, ReportError
from c2c_jax.evaluation.report.page import _bars, write_report
from c2c_jax.evaluation.results import Row
from tests.evaluation.report.conftest import HURT


class Outline(HTMLParser):
    """Tags, attributes and text of a page. Fails if tags are not closed in order."""

    EMPTY = ("meta", "link", "img", "br")

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += f"{data} "

    def all(self, attribute: str) -> list[str]:
        return [attributes[attribute] or "" for _, attributes in self.tags if attribute in attributes]

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture(scope="module")
def outline(page) -> Outline:
    return Outline(page.read_text(encoding="utf-8"))


def test_the_page_needs_no_other_file(outline, page):
    addresses = [*outline.all("src"), *outline.all("href"), *outline.all("xlink:href")]
    assert {address[:1] if address.startswith("#") else address.partition(":")[0] for address in addresses} == {
        "#", "data",
    }  # fmt: skip
    assert "url(http" not in page.read_text() and "@import" not in page.read_text()
    ids = outline.all("id")
    assert len(ids) == len({*ids})
    assert {address[1:] for address in addresses if address.startswith("#")} <= {*ids}


def test_the_page_shows_all_inputs(outline):
    text = flat(outline.text)
    assert outline.count("audio") == 5 and outline.count("script") == 1
    expected = (
        "recall@1 0.300",
        "recall@10 0.900",
        "median rank 4",
        "mean cosine −0.250",
        "1,000 held-out captions",
    )
    assert all(words in text for words in expected)
    assert "“a dog barks”" in text and f"“{flat(HURT)}”" in text
    assert text.count("translator: mlp, mlp") == 3
    labels = " ".join(outline.all("aria-label"))
    assert "Training loss over 10 steps, from 10 to 1." in labels
    assert "at the last validation recall@10 0.900, recall@5 0.600, recall@1 0.300, noisy MRR 0.375" in labels
    assert "translator recall@10 0.750" in labels and "chance recall@1 0.010" in labels
    # Each scoring has bars and a table, chance in both.
    assert "Bars of recall: translator recall@1 0.312; chance recall@1 0.010" in labels
    assert "captions, source text → target text, centred cosine, n = 60" in text
    assert "Selected: 50% trained + 50% rotation, with the caption memory. It scored best of 3 candidates." in text
    assert "perturbed to a cosine of 0.325" in text and "0.5 trained + rotation, memory 0.375" in text
    # Translations that are the targets themselves: all ones on the diagonal.
    assert re.search(r"Cosines, 32 by 32: 1\.00 on average on the diagonal, -?0\.0\d off it", labels)
    assert "60 captions, CLIP, 60 captions, CLAP" in labels and "60 captions, translated" in labels
    assert f"Evaluated with captions: 60 of txt:{flat(HURT)}; seed: 7." in text and text.count("60 queries.") == 3
    assert "0.830" in text and f"oracle: no pairs {flat(HURT)}" in text and f"collapsed {flat(HURT)}" in text


def test_methods_with_other_numbers_of_queries_are_named():
    rows = [
        Row(task="captions", method=method, metric=f"recall@{k}", value=0.5, n=n)
        for method, n in (("translator", 1200), ("caption", 60), ("nearest_caption", 1200))
        for k in (1, 5)
    ]
    ((_, _, queries),) = _bars(rows)
    assert queries == "Queries: 1,200 of translator, nearest caption; 60 of caption."


def test_all_settings_are_shown_without_folders(outline, run):
    fields = json.loads((run / "config.json").read_text())
    text = flat(outline.text)
    assert f"All {len([*flat_fields(fields)])} settings" in text
    assert "batch_size 40" in text and "optimizer.learning_rate 0.001" in text
    changed = [a for tag, a in outline.tags if tag == "tr" and a.get("class") == "changed"]
    assert len(changed) == 4  # source, batch_size, log_every, data.captions
    assert "/home/me" not in text and str(run.parent) not in outline.text


def test_agreement_and_scores_come_from_the_records(generated, outline):
    """The cosine of two recorded vectors. Without a ranker there is no CLAP score."""
    ours, text = (json.loads((generated / f"a{kind}.sound.json").read_text()) for kind in ("", ".control"))
    cosine = float(np.dot(ours["clap_vector"], text["clap_vector"]))  # both are unit vectors
    shown = flat(outline.text)
    assert f"cosine of the image’s and the text’s vectors {cosine:.3f}".replace("-", "−") in shown
    assert shown.count("CLAP score not measured") == 5


def test_the_same_files_give_the_same_page(page, run, evaluated, generated, tmp_path):
    write_report(run, tmp_path / "again.html", evaluation=evaluated, generated=generated)
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again.html"]


def test_the_page_of_a_bundle_names_commands(run, tmp_path):
    assert write_report(run / "bundle", tmp_path / "report.html") == []
    page = html.unescape((tmp_path / "report.html").read_text(encoding="utf-8"))
    for command in ("c2c infer IMAGES --translator", "c2c evaluate bundle --out DIR", "c2c report RUN"):
        assert command in page
    outline = Outline((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert outline.count("audio") == outline.count("svg") == 0
    assert "<h1>mlp</h1>" in page and "recall@1" in outline.text and "batch_size" in outline.text


def test_commands_can_be_copied_from_the_page(run, tmp_path, monkeypatch):
    """Names are quoted for the shell, and a folder's name cannot end the title."""
    monkeypatch.chdir(tmp_path)
    name = "a'; rm -rf x <b>\u202e"
    shutil.copytree(run, name)
    write_report(Path(name), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    outline = Outline(page)
    quoted = shlex.quote("a'; rm -rf x <b>\\u202e")
    assert f"c2c evaluate {quoted} --out DIR" in html.unescape(page) and outline.count("b") == 0
    assert f"--translator {quoted[:-1]}/bundle' --audioldm" in html.unescape(page)
    assert "\u202e" not in page and "without image–audio pairs" in page


@pytest.fixture
def copy(generated, tmp_path) -> Path:
    return Path(shutil.copytree(generated, tmp_path / "sounds"))


def test_damaged_inputs_are_named_and_the_rest_is_shown(run, copy, tmp_path):
    (copy / "a.wav").write_bytes(b"no sound")
    (copy / "c.sound.json").write_text("{")
    odd = next(path for path in copy.glob("b*.sound.json") if "control" not in path.name)
    record = json.loads(odd.read_text())
    record["pictures"][0]["sha256"] = "0" * 64
    record["translator"]["sha256"] = "0" * 64
    picture = {"path": "/x/y.png", "sha256": "0" * 64}
    record["mixed_in"] = [{"what": "heavy rain", "weight": 0.25}, {"what": picture, "weight": 0.5}]
    odd.write_text(json.dumps(record))
    (copy / "d.control.sound.json").write_text((copy / "a.control.sound.json").read_text())
    messages = [str(error) for error in write_report(run, tmp_path / "report.html", generated=copy)]
    for name, why in (
        ("c.sound.json", "cannot be read as JSON"),
        ("a.wav", "is not the sound that a.sound.json describes"),
        ("<img src=x onerror=window.hurt=1>.png", "not the image that"),
        ("d.control.sound.json", "the sound that this control belongs to is missing"),
    ):
        assert any(name in line and why in line for line in messages), name
    assert len(messages) == 4
    outline = Outline((tmp_path / "report.html").read_text(encoding="utf-8"))
    text = flat(outline.text)
    assert outline.count("audio") == 2 and "could not be read" in text and "Left out: 4" in text
    assert "mixed in: 0.25 × “heavy rain”, 0.5 × y.png" in text
    assert "translator: mlp, not the translator of this page" in text


def test_the_first_of_many(run, generated, tmp_path):
    write_report(run, tmp_path / "report.html", generated=generated, max_rows=1)
    outline = Outline((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert outline.count("audio") == 2 and "1 of 3 are shown" in flat(outline.text)


def test_one_sound_of_several_pictures(run, generated, copy, tmp_path):
    """As infer.py --average makes it: four images are shown, all are counted."""
    record = json.loads((copy / "c.sound.json").read_text())
    record |= {"pictures": record["pictures"] * 6, "averaged": True}
    record["sounds"] = [{**record["sounds"][0], "defects": ["silent: its peak is 0 of full scale"]}] * 3
    (copy / "c.sound.json").write_text(json.dumps(record))
    write_report(run, tmp_path / "report.html", generated=copy)
    outline = Outline((tmp_path / "report.html").read_text(encoding="utf-8"))
    text = flat(outline.text)
    assert sum("image c.png" in alt for alt in outline.all("alt")) == 4
    assert "c.png and 5 more" in text and "the mean of 6 images" in text
    assert "silent: its peak is 0" in text and "the first of 3 candidates" in text


def broken(folder: Path, name: str, content: str | bytes | None) -> Path:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, source_text=np.eye(4, dtype=np.float16))
    return file.getvalue()


def changed(evaluated: Path, **fields) -> str:
    """The evaluation's metrics.json with the first row, or, by its name, the bundle, changed."""
    content = json.loads((evaluated / "metrics.json").read_text())
    content["bundle"] |= fields.pop("bundle", {})
    content["rows"][0] |= fields
    return json.dumps(content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.json", None, "metrics.json, found no file"),
        ("metrics.json", "{", "metrics.json cannot be read as JSON"),
        ("metrics.json", b"\xff\xfe", "metrics.json cannot be read as JSON"),
        ("metrics.json", "[]", "Expected `object`, got `array`"),
        ("metrics.json", "{}", "missing required field `bundle`"),
        ("metrics.json", "[" * 100_000, "Expected `object`, got `array`"),
        ("metrics.json", {"value": int("9" * 400)}, "metrics.json cannot be read as JSON"),
        ("metrics.json", {"value": float("nan")}, "metrics.json cannot be read as JSON"),
        ("metrics.json", {"value": "high"}, "`$.rows[0].value`"),
        ("metrics.json", {"n": None}, "`$.rows[0].n`"),
        ("metrics.json", {"reference": ["x"]}, "`$.rows[0].reference`"),
        ("metrics.json", {"metric": "recall@" + "9" * 5000}, "is not a row of c2c evaluate"),
        ("metrics.json", {"metric": "nnn_recall@x"}, "is not a row of c2c evaluate"),
        ("metrics.json", {"task": "smells"}, "is not a row of c2c evaluate"),
        ("metrics.json", {"bundle": {"metrics": "x"}}, "is the evaluation of another translator"),
        ("metrics.json", {"bundle": {"metrics": {"step": 3}}}, "is the evaluation of another translator"),
        ("vectors.npz", None, "vectors.npz, found no file"),
        ("vectors.npz", "no vectors", "vectors.npz is not an .npz file"),
        ("vectors.npz", npz(), "vectors.npz of one evaluation and metrics.json of another: evaluate again"),
    ],
)
def test_damaged_evaluations_are_refused(run, evaluated, tmp_path, name, content, message):
    content = changed(evaluated, **content) if isinstance(content, dict) else content
    folder = broken(Path(shutil.copytree(evaluated, tmp_path / "evaluated")), name, content)
    with pytest.raises(ReportError, match=re.escape(message)) as caught:
        write_report(run, tmp_path / "report.html", evaluation=folder)
    assert "\n" not in str(caught.value) and not (tmp_path / "report.html").exists()


def test_a_missing_bundle_or_no_sounds(run, tmp_path):
    with pytest.raises(BundleError, match="contains no translator bundle"):
        write_report(tmp_path, tmp_path / "report.html")
    for folder, message in ((tmp_path, "contains no .sound.json record"), (tmp_path / "nowhere", "found no file")):
        with pytest.raises(ReportError, match=message):
            write_report(run, tmp_path / "report.html", generated=folder)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change",
    [
        {"sounds": []},
        {"sounds": [{"file": "../../etc/passwd", "seed": 0, "clap_score": None, "defects": []}]},
        {"sounds": [{"file": "/dev/zero", "seed": 0, "clap_score": None, "defects": []}]},
        {"sounds": [{"file": "file:..%2F..%2Fetc%2Fpasswd", "seed": 0, "clap_score": None, "defects": []}]},
        {"sounds": [{"file": "c.wav", "seed": 0, "clap_score": "high", "defects": []}]},
        {"sounds": [{"file": "c.wav", "seed": 0, "clap_score": None, "defects": 5}]},
        {"clap_vector": [0.0] * 64},
        {"clap_vector": [[1]]},
        {"mixed_in": [{"what": {"path": 5}, "weight": 1}]},
        {"pictures": [{"path": "c.png", "sha256": None}]},
        {"sample_rate": 10**12},
        {"clap_vector": "loud"},
        {"translator": "mlp"},
        {"pictures": []},
        {"sample_rate": "fast"},
        {"clap_vector": [0.5] * 65},
        {"clap": 0},
        {"clip": {"name": 0, "dim": 64, "fingerprint": ""}},
        {"averaged": 0},
        {"caption_memory": 0},
        {"audioldm": {"name": 0, "fingerprint": "", "device": "cpu"}},
        {"offload": 1},
        {"sampling": 7},
        {"versions": {"jax": 1}},
        {"gap_ststics": []},
    ],
)
def test_malformed_records_are_skipped(run, copy, tmp_path, change):
    record = json.loads((copy / "c.sound.json").read_text())
    (copy / "c.sound.json").write_text(json.dumps({**record, **change}))
    (error,) = write_report(run, tmp_path / "report.html", generated=copy)
    assert str(error).startswith(str(copy / "c.sound.json")) and str(error).endswith("; generate the sound again")
    assert "\n" not in str(error)


def test_a_record_that_lacks_fields_is_reported(run, copy, tmp_path, caplog):
    record = json.loads((copy / "c.sound.json").read_text())
    del record["caption_memory"], record["sampling"]["guidance"], record["sounds"][0]["peak"]
    (copy / "c.sound.json").write_text(json.dumps({**record, "versions": None}))
    (error,) = write_report(run, tmp_path / "report.html", generated=copy)
    assert "Expected `object`, got `null`" in str(error)
    caplog.clear()
    (copy / "c.sound.json").write_text(json.dumps({**record, "versions": {}}))
    assert write_report(run, tmp_path / "report.html", generated=copy) == []
    (line,) = [line for line in caplog.messages if "c.sound.json" in line]
    for name in ("caption_memory", "sampling.guidance", "sounds.peak", "versions.c2c_jax"):
        assert name in line


def test_a_folder_in_place_of_a_record_is_reported(run, copy, tmp_path):
    (copy / "c.sound.json").unlink()
    (copy / "c.sound.json").mkdir()
    (error,) = write_report(run, tmp_path / "report.html", generated=copy)
    assert str(error).startswith(f"expected a JSON file at {copy / 'c.sound.json'}, found a folder")


def test_pictures_next_to_the_sounds(run, generated, copy, tmp_path):
    """A folder copied from another machine together with its images."""
    for name in ("a", "c"):
        record = json.loads((copy / f"{name}.sound.json").read_text())
        shutil.copy(record["pictures"][0]["path"], copy)
        record["pictures"][0]["path"] = f"/elsewhere/{name}.png"
        (copy / f"{name}.sound.json").write_text(json.dumps(record))
    assert write_report(run, tmp_path / "report.html", generated=copy) == []
    Image.new("RGB", (4, 4)).save(copy / "a.png")
    (error,) = write_report(run, tmp_path / "report.html", generated=copy)
    assert "a.png is not the image that" in str(error)
