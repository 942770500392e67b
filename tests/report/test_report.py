"""The report: what is on the page, in which order, and what it survives."""

import dataclasses
import html.parser
import json
import re

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from simgan_aug.cli.report import report as command
from simgan_aug.errors import ConfigError, DataError
from simgan_aug.report import Report
from simgan_aug.report.charts import nice_ticks
from simgan_aug.report.markup import Markup, element, joined, number
from simgan_aug.report.measures import BY_NAME, MEASURES, Histogram
from simgan_aug.report.overlay import arrow_factor
from simgan_aug.report.pictures import PICTURE_BYTES, Pair, close_up, data_uri, find
from simgan_aug.report.records import Label
from simgan_aug.report.shapes import Shape, outlines, shapes_of

NASTY = "<script>alert(1)</script>&\"'.png"


class Parsed(html.parser.HTMLParser):
    """A page as a browser takes it: elements with their attributes and the text inside."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), [""]))
        if tag not in ("img", "input", "meta", "link"):
            self.open.append(self.elements[-1])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        for each in self.open:
            each[2][0] += data

    def all(self, tag, **attributes):
        wanted = {key.rstrip("_"): value for key, value in attributes.items()}
        return [e for e in self.elements if e[0] == tag and wanted.items() <= e[1].items()]

    def text(self, tag, **attributes):
        return [each[2][0] for each in self.all(tag, **attributes)]


def page(source, out, **options):
    Report(source, **options).write(out)
    return Parsed(out.read_text("utf-8"))


@pytest.fixture(scope="module")
def whole(audited, tmp_path_factory):
    """The page of an audited data set."""
    out = tmp_path_factory.mktemp("page") / "report.html"
    return page(audited.out, out, realism=audited.write_realism())


def test_the_worst_drift_comes_first(whole):
    assert whole.text("h3")[:3] == ["2.png", NASTY, "1.png"]


def test_a_rejected_label_is_listed_with_how_far_it_moved(whole):
    first = whole.text("li", class_="rejected")[0]

    assert first == ("1 hand moved 2.24 px (+2.00, \N{MINUS SIGN}1.00); contour 0.3 (limit 0.5)")


def test_names_from_the_data_stay_text(whole):
    assert len(whole.all("script")) == 1
    assert NASTY in whole.text("h3")
    assert '<b>cup</b> & "co"' in whole.text("button", class_="chip")
    assert "5.png: <em>not</em> a readable image" in whole.text("td")
    assert "</script><i>CC" in whole.text("code")
    assert whole.all("em") == []


def test_the_page_asks_for_nothing(whole):
    addresses = [
        value
        for _, attributes, _ in whole.elements
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "data", "action", "poster", "xlink:href")
    ]
    policy = [each[1] for each in whole.all("meta") if "http-equiv" in each[1]]

    assert len(addresses) > 10
    assert [a for a in addresses if not a.startswith(("data:", "#"))] == []
    assert policy[0]["content"].startswith("default-src 'none'; img-src data:;")
    assert re.findall(r"url\(|@import", "".join(whole.text("style"))) == []


def test_a_filter_can_tell_rejected_cards_and_categories(whole):
    cards = whole.all("article")

    assert ["data-rejected" in card[1] for card in cards] == [True] * 3 + [False] * 3
    chips = {text: e[1]["data-value"] for e in whole.all("button", class_="chip") for text in e[2]}
    assert chips["cup"] in cards[0][1]["data-categories"].split()


def test_plots_table_and_realism_are_there(whole):
    sections = [each[1]["id"] for each in whole.all("section")]

    assert sections == [
        "pictures", "distributions", "categories", "realism", "failed", "provenance",
    ]  # fmt: skip
    assert "Realism alone rewards moved labels" in whole.text("p", class_="warning")[0]
    assert "75% of the gap closed" in whole.text("section", id="realism")[0]
    assert "limit 0.5 px" in whole.text("text", class_="limit-text")


def test_a_bar_says_how_many_labels_are_beyond_the_limit(whole):
    titles = [text for text in whole.text("title") if "beyond the limit" in text]

    assert sum(int(re.search(r"(\d+) beyond", text)[1]) for text in titles) >= 3


def test_outlines_keypoints_arrows_and_what_appeared_are_drawn(whole):
    kinds = [each[1].get("class") for each in whole.elements]

    assert {"outline", "key", "shaft", "appeared"} <= set(kinds)


@pytest.mark.parametrize(("grown", "kind"), [(30, "bad"), (5, "")])
def test_labels_that_look_larger_are_counted_and_many_are_bad(refined, tmp_path, grown, kind):
    path = refined.write_audit()
    whole = json.loads(path.read_text())
    whole["counts"] |= {"grown": grown, "grown_of": 100}
    path.write_text(json.dumps(whole))
    shown = page(refined.out, tmp_path / "report.html")

    tiles = [each for each in shown.all("div") if "look larger than their boxes" in each[2][0]]
    said = "of 100 labels (that can be told) look larger than their boxes"
    assert tiles[-1][2][0].split(said)[0].strip() == str(grown)
    assert tiles[-1][1]["class"].split() == ["tile", *kind.split()]


def test_an_image_that_cannot_be_read_is_a_card_that_says_so(refined, tmp_path):
    refined.write_audit()
    (refined.out / "images" / "2.png").write_bytes(b"not an image")
    (refined.images / "1.png").unlink()

    made = page(refined.out, tmp_path / "r.html")

    problems = made.text("p", class_="problem")
    assert any("2.png" in said and "not a readable image" in said for said in problems)
    assert any("no image '1.png'" in said for said in problems)
    assert len(made.all("article")) == 6


def test_without_an_audit_the_page_names_the_command_that_makes_one(refined, tmp_path):
    made = page(refined.out, tmp_path / "r.html", images=refined.images)

    assert "simgan-aug audit --annotations" in made.text("ul", class_="remarks")[0]
    assert len(made.all("img", class_="before")) == len(made.all("img", class_="after")) == 7
    assert made.text("h2", id="pictures-title") == ["Pictures"]


def test_without_the_originals_the_refined_images_are_shown_alone(refined, tmp_path):
    made = page(refined.out, tmp_path / "r.html")

    assert made.all("img", class_="before") == []
    assert len(made.all("img", class_="after")) == 7
    assert "--images" in made.text("ul", class_="remarks")[0]


def test_an_audit_may_be_given_itself(refined, tmp_path):
    audit = refined.write_audit(tmp_path / "elsewhere.json")

    made = page(audit, tmp_path / "r.html")

    assert made.text("h3")[0] == "2.png"
    assert "cd" * 32 in made.text("section", id="provenance")[0]


@pytest.mark.parametrize("named", [True, False])
def test_an_audit_beside_the_result_is_taken_if_it_is_of_it(refined, tmp_path, named):
    audit = refined.write_audit(tmp_path / "audit.json")
    if not named:
        audit.write_text(json.dumps(json.loads(audit.read_text()) | {"refined": "/other"}))

    facts = Report(refined.out).facts

    assert (facts.audit is not None) == named


def test_damaged_lines_of_an_audit_are_counted_and_left_out(refined):
    refined.write_audit(more_lines=['{"image": "0.png", "lab', "[]"])

    facts = Report(refined.out).facts

    assert any("2 lines" in note and "damaged" in note for note in facts.notes)
    assert len(facts.chosen) == 6


def test_an_image_that_a_gate_refuses_is_shown_with_the_reason(refined, tmp_path):
    line = {"image": "6.png", "labels": [], "gates": ["gate dark: <b>12</b> levels"]}
    refined.write_audit(more_lines=[json.dumps(line)])

    made = page(refined.out, tmp_path / "r.html", count=5)

    (card,) = [each for each in made.all("article") if each[1]["aria-label"] == "6.png"]
    assert "data-rejected" in card[1]
    assert "refused by a gate" in card[2][0]
    assert "gate dark: <b>12</b> levels" in made.text("li", class_="rejected")


def test_without_its_lines_an_audit_still_shows_the_worst(refined, tmp_path):
    audit = refined.write_audit()
    audit.with_suffix(".jsonl").unlink()

    made = page(refined.out, tmp_path / "r.html")

    assert made.text("h3") == ["2.png", NASTY, "1.png", "4.png"]
    assert made.all("section", id="distributions") == []


def test_count_limits_the_cards(audited, tmp_path):
    made = page(audited.out, tmp_path / "r.html", count=2)

    assert made.text("h3") == ["2.png", NASTY]


def test_originals_are_found_when_the_result_has_another_format(refined, tmp_path):
    for path in (refined.out / "images").glob("?.png"):
        path.rename(path.with_suffix(".webp"))
    refined.write_audit()

    made = page(refined.out, tmp_path / "r.html")

    assert made.text("p", class_="problem") == []
    assert find(refined.out, "0.png").name == "0.webp"


def test_images_of_two_sizes_are_shown_and_said_to_differ(refined, tmp_path):
    refined.write_audit()
    refined.save(refined.out / "images" / "2.png", np.zeros((20, 30, 3), np.uint8))

    made = page(refined.out, tmp_path / "r.html", count=1)

    assert made.text("p", class_="problem") == ["before and after differ in size: 96x64 and 30x20"]
    assert len(made.all("img")) == 2


def test_a_label_that_is_nowhere_near_is_said_to_be_gone(refined, tmp_path):
    refined.labels["0.png"][0] |= {"displacement": None, "failures": ["displacement"]}
    refined.labels = {"0.png": refined.labels["0.png"]}
    lines = [json.dumps({"image": name, "labels": each}) for name, each in refined.labels.items()]
    audit = {"counts": {}, "images": str(refined.images), "refined": str(refined.out)}
    (refined.out / "audit.json").write_text(json.dumps(audit))
    (refined.out / "audit.jsonl").write_text("\n".join(lines))

    made = page(refined.out, tmp_path / "r.html")

    assert made.text("li", class_="rejected")[0].startswith("1 hand is gone")


def test_of_thousands_of_entries_the_page_lists_some(refined, tmp_path):
    guard = {"policy": "label", "images": 1000, "blended": 900, "kept": 0}
    guard["decisions"] = {f"{n}.png": {"labels": [n]} for n in range(900)}
    refined.write_job(guard=guard, failed={f"gone-{n}.png": "it is broken" for n in range(500)})

    made = page(refined.out, tmp_path / "r.html", count=1)

    assert "and 700 more" in made.text("section", id="provenance")[0]
    assert "and 300 more" in made.text("section", id="failed")[0]
    assert len(made.text("td")) == 200


def test_what_the_guard_did_is_said(refined, tmp_path):
    guard = {"policy": "label", "images": 7, "blended": 2, "kept": 1}
    refined.write_job(guard=guard, failed={"5.png": "it is broken"})

    made = page(refined.out, tmp_path / "r.html")

    assert "policy label: of 7 images 2 were blended" in made.text("ul", class_="remarks")[0]
    assert made.text("h3") == [f"{n}.png" for n in range(5)] + [NASTY]
    assert "it is broken" in made.text("td")


def test_a_page_of_noise_can_still_be_mailed():
    noise = np.random.default_rng(0).integers(0, 256, (640, 640, 3), dtype=np.uint8)

    assert len(data_uri(noise, 640)) < PICTURE_BYTES * 4 / 3 + 100


def test_small_pictures_are_embedded_without_loss():
    import base64
    import io

    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)

    kind, _, content = data_uri(pixels, 640).partition(";base64,")

    assert kind == "data:image/webp"
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        assert np.array_equal(np.asarray(image.convert("RGB")), pixels)


def test_the_difference_of_equal_pieces_is_grey():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)

    found = close_up(Pair("a", pixels, pixels.copy()), [30, 20, 20, 20])

    assert found.window == (18, 8, 44, 44)
    assert (found.difference == 128).all()


@pytest.mark.parametrize("box", [[200, 200, 5, 5], [float("nan"), 0, 1, 1], [1, 2, 3]])
def test_a_box_outside_of_the_image_has_no_close_up(box):
    pixels = np.zeros((64, 96, 3), np.uint8)

    assert close_up(Pair("a", pixels, pixels), box) is None


def write_run(tmp_path, refined, refiner_file):
    run = tmp_path / "run"
    (run / "samples").mkdir(parents=True)
    refiner_file.rename(run / "refiner.safetensors")
    inputs = {"annotations": str(refined.annotations), "images": str(refined.images), "real": "/r"}
    info = {"config": {"training": {"seed": 3}}, "inputs": inputs, "fingerprints": {}}
    (run / "run.json").write_text(json.dumps(info))
    lines = [
        {"step": n, "phase": "refiner warm-up" if n < 40 else "adversarial", "time": 1.0}
        | {"regularization": 1 / n} | ({"adversarial": 0.7} if n >= 40 else {})
        for n in range(1, 200)
    ]  # fmt: skip
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run / "metrics.jsonl").write_text(text + '{"step": 2')
    alarm = {"step": 120, "name": "labels drift", "message": "<u>0.9 px</u>"}
    (run / "alarms.jsonl").write_text(json.dumps(alarm) + "\n")
    for name in ("step-000200", "last"):
        Image.new("RGB", (300, 90), "green").save(run / "samples" / f"{name}.png")
    return run


def test_a_run_shows_curves_alarms_sheets_and_its_refiner_at_work(refined, refiner_file, tmp_path):
    run = write_run(tmp_path, refined, refiner_file)

    made = page(run, tmp_path / "r.html", device="cpu")

    assert [each[1]["id"] for each in made.all("section")] == [
        "pictures", "training", "samples", "provenance",
    ]  # fmt: skip
    assert made.text("section", id="training")[0].count("step 120: labels drift") == 2
    assert "Alarm at step 120: labels drift. <u>0.9 px</u>" in made.text("li")[0]
    assert len(made.all("img", class_="sheet")) == 2
    before = [each[1]["src"] for each in made.all("img", class_="before")]
    after = [each[1]["src"] for each in made.all("img", class_="after")]
    assert len(before) == len(after) == 7
    assert set(before) & set(after) == set()


def test_a_run_whose_inputs_have_moved_still_has_a_page(refined, refiner_file, tmp_path):
    run = write_run(tmp_path, refined, refiner_file)
    refined.images.rename(tmp_path / "moved")
    refined.annotations.unlink()
    (run / "refiner.safetensors").unlink()

    made = page(run, tmp_path / "r.html", device="cpu")

    remarks = made.text("ul", class_="remarks")[0]
    assert all(said in remarks for said in ("which is gone", "labels.json", "refiner.safetensors"))
    assert len(made.all("section", id="training")) == 1


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"out/run.json": None}, "expected a training run or a refined data set"),
        ({"out/run.json": "{"}, "expected JSON"),
        ({"out/run.json": "[]"}, "expected a JSON object, got a list"),
        ({"out/run.json": "{}"}, "neither of a training run nor of a refine job"),
        ({"out/audit.json": '{"counts"'}, "expected the JSON of an audit"),
        ({"out/audit.json": "{}"}, "missing required field `counts`"),
        ({"out/report.json": "nothing"}, "expected JSON"),
    ],
)
def test_a_damaged_file_is_named_with_what_was_expected(refined, damage, said):
    for name, text in damage.items():
        path = refined.folder / name
        if text is None:
            path.unlink()
        else:
            path.write_text(text)

    with pytest.raises(DataError, match=re.escape(said)) as caught:
        Report(refined.out)

    assert str(refined.out) in str(caught.value)


def test_a_source_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no such folder or file"):
        Report(tmp_path / "nothing")


def test_an_audit_of_a_training_run_is_a_mistake(refined, refiner_file, tmp_path):
    run = write_run(tmp_path, refined, refiner_file)

    with pytest.raises(ConfigError, match="is a training run"):
        Report(run, audit=refined.write_audit())


@pytest.mark.parametrize("options", [{"count": 0}, {"max_side": 4}, {"max_side": 10**6}])
def test_impossible_settings_are_refused(audited, options):
    with pytest.raises(ConfigError, match="must"):
        Report(audited.out, **options)


def test_another_ending_than_html_is_refused(audited, tmp_path):
    with pytest.raises(ConfigError, match=r"\.html file, got"):
        Report(audited.out).write(tmp_path / "report.json")


def test_an_interrupted_page_leaves_no_file(audited, tmp_path):
    def stopping(cards):
        yield next(cards)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Report(audited.out).write(tmp_path / "out" / "r.html", stopping)

    assert list((tmp_path / "out").iterdir()) == []


def test_the_command_writes_the_page_and_says_where(audited, tmp_path):
    out = tmp_path / "r.html"
    options = ["--title", "A & B", "--count", "1", "--max-side", "64", "--out", str(out)]

    ran = CliRunner().invoke(command, [str(audited.out), *options], catch_exceptions=False)

    assert f"report: {out}" in ran.output
    made = Parsed(out.read_text("utf-8"))
    assert made.text("h1") == ["A & B"]
    assert len(made.all("article")) == 1


def test_annotations_that_only_python_reads_are_drawn_too(refined):
    text = refined.annotations.read_text()
    refined.annotations.write_text("\ufeff" + text[:-1] + ', "x": NaN}')

    found, categories = shapes_of(refined.annotations, {"2.png"})

    assert [shape.id for shape in found["2.png"]] == [4, 5]
    assert categories[1] == "hand"


def test_a_run_length_mask_has_an_outline_around_it():
    counts = [8 * 2 + 2, 4, 4, 4, 8 * 3 + 6 + 2 - 0]  # columns of 8: two of them, 4 px each
    counts[-1] = 64 - sum(counts[:-1])
    shape = Shape(image_id=1, segmentation={"size": [8, 8], "counts": counts})

    points = np.array(outlines(shape, 8, 8)[0])

    assert points.min(0).tolist() == [2.5, 2.5]
    assert points.max(0).tolist() == [3.5, 5.5]


@pytest.mark.parametrize("parts", [{"size": [3, 3], "counts": "?"}, "text", [["a"]], 7, None])
def test_a_mask_that_makes_no_sense_has_no_outline(parts):
    assert outlines(Shape(image_id=1, segmentation=parts), 8, 8) == []


@pytest.mark.parametrize("measure", MEASURES)
def test_every_value_is_counted_once_on_its_side_of_the_limit(measure):
    values = np.random.default_rng(0).uniform(0, 3, 200).tolist()
    histogram = Histogram(measure, limit=1.0)

    for value in values:
        label = {"displacement": [value, 0.0], "keypoints": [value]}.get(measure.name, value)
        histogram.add(Label(**{measure.name: label}))

    beyond = sum(value > 1 if measure.high_is_bad else value < 1 for value in values)
    assert (sum(histogram.within), sum(histogram.beyond)) == (200 - beyond, beyond)


@pytest.mark.parametrize("measure", MEASURES)
def test_places_on_an_axis_can_be_read_back(measure):
    for share in (0.0, 0.3, 1.0):
        assert measure.place(measure.value(share)) == pytest.approx(share)


def test_ticks_are_round_and_inside():
    assert nice_ticks(0, 0.9, 4) == pytest.approx([0, 0.5])
    assert nice_ticks(-0.3, 2.4, 4) == pytest.approx([0, 1, 2])


def test_the_longest_arrow_is_at_most_a_fifth_of_the_image():
    labels = [Label(displacement=[3.0, 4.0])]

    assert arrow_factor(labels, (640, 480)) == 10
    assert arrow_factor(labels, (20, 20)) == 1


def test_text_is_escaped_and_markup_is_not():
    made = element("b", "<i>", Markup("<i></i>"), title="\"&'")

    assert made == '<b title="&quot;&amp;&#x27;">&lt;i&gt;<i></i></b>'
    assert "\ud800" not in joined("\ud800")
    assert joined("\x00") == "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0"),
        (0.0, "0"),
        (1234.5, "1,234"),
        (-0.1234, "-0.123"),
        (2e-7, "2e-07"),
        (98.76, "98.8"),
    ],
)
def test_numbers_are_short(value, said):
    assert number(value).replace("\N{MINUS SIGN}", "-") == said


def test_measures_and_labels_have_the_same_names():
    assert set(BY_NAME) <= set(Label.__struct_fields__)
    assert all(dataclasses.is_dataclass(measure) for measure in MEASURES)
