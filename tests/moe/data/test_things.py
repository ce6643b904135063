"""THINGS: photographs joined to their concepts' dimensions and categories by id."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moe.data.datasets import import_images
from moe.data.readers import ReadOptions
from moe.data.store import Images, write_store
from moe.data.things import EMBEDDING, is_things, read_things
from moe.errors import UserError

CONCEPTS = ["zebra", "apple", "drum", "robin"]  # row order of the embedding, not of the alphabet
RATINGS = np.array([[0.5, 0.0, 1.5], [0.25, 2.0, -0.0003], [0.0, 1.0, 0.125], [3.0, 0.75, -0.0001]])
PHOTOS = ("apple/apple_10.png", "apple/apple_9.png", "robin/robin_01.png", "zebra/zebra_01.png", "zebra/zebra_02.png")
CATEGORIES = {"zebra": "animal", "apple": "fruit, food", "drum": "toy", "robin": "animal"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four concepts, three with photographs, three dimensions; the apple has two categories."""
    path = tmp_path / "THINGS"
    for number, photo in enumerate(PHOTOS):
        (path / "images" / photo).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (number, 0, 0)).save(path / "images" / photo)
    (path / "unique_id.txt").write_text("\n".join(CONCEPTS) + "\n")
    np.savetxt(path / EMBEDDING, RATINGS)
    (path / "labels_66.txt").write_text("striped\nedible\nalive \n")
    write_table(path, CATEGORIES)
    return path


def write_table(path: Path, categories: dict[str, str]) -> None:
    rows = [f"{concept}\t{concept.title()}\t{name}" for concept, name in categories.items()]
    header = "uniqueID\tWord\tBottom-up Category (Human Raters)"
    (path / "things_concepts.tsv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


def rated(read: Images) -> list[str]:
    assert read.factors_NF is not None
    return [name for name, row in zip(read.ids, read.factors_NF, strict=True) if not np.isnan(row).any()]


class TestJoin:
    def test_the_first_image_of_a_concept_carries_its_ratings(self, folder: Path) -> None:
        read = read_things(folder)
        assert read.ids == [
            "apple/apple_9", "apple/apple_10", "robin/robin_01", "zebra/zebra_01", "zebra/zebra_02"
        ]  # fmt: skip
        assert rated(read) == ["apple/apple_9", "robin/robin_01", "zebra/zebra_01"]
        assert read.factors_NF is not None
        assert np.isnan(read.factors_NF[[1, 4]]).all()
        assert read.factors_NF.dtype == np.float32

    def test_rows_are_found_by_id_not_by_order(self, folder: Path) -> None:
        read = read_things(folder)
        assert read.factors_NF is not None
        expected = [[0.25, 2.0, 0.0], [3.0, 0.75, 0.0], [0.5, 0.0, 1.5]]  # apple, robin, zebra
        np.testing.assert_array_equal(read.factors_NF[[0, 2, 3]], np.array(expected, np.float32))
        assert read.factors == ("striped", "edible", "alive")

    def test_negative_entries_are_set_to_0_and_noted(self, folder: Path) -> None:
        read = read_things(folder)
        assert np.nanmin(read.factors_NF) == 0
        assert read.notes == (
            "2 negative embedding entries (lowest -3.0e-04) set to 0",
            "in no category or in several, and so without a class: 1 concept (apple)",
            "3 of 4 concepts have images",
        )

    def test_nothing_negative_nothing_noted(self, folder: Path) -> None:
        np.savetxt(folder / EMBEDDING, np.abs(RATINGS))
        assert not any("negative" in note for note in read_things(folder).notes)

    def test_groups_are_concepts(self, folder: Path) -> None:
        read = read_things(folder)
        assert read.groups == ["apple", "apple", "robin", "zebra", "zebra"]
        assert read.source == "THINGS, 3 concepts"

    def test_pixels_travel_with_their_names(self, folder: Path) -> None:
        read = read_things(folder)
        assert [int(image[0, 0, 0]) for image in read.images_NHWC] == [1, 0, 2, 3, 4]
        assert read.images_NHWC.shape == (5, 20, 20, 3)
        assert read_things(folder, ReadOptions(size=16)).images_NHWC.shape == (5, 16, 16, 3)

    def test_survives_a_store(self, folder: Path) -> None:
        read = read_things(folder)
        kept = write_store("things", read)
        np.testing.assert_array_equal(kept.factors_NF, read.factors_NF)
        assert (kept.ids, kept.groups, tuple(kept.manifest.notes)) == (read.ids, read.groups, read.notes)

    def test_the_other_names_of_folder_and_labels(self, folder: Path) -> None:
        (folder / "images").rename(folder / "object_images")
        (folder / "labels_66.txt").rename(folder / "labels_short.txt")
        read = read_things(folder)
        assert len(read.ids) == 5
        assert read.factors == ("striped", "edible", "alive")

    def test_dimensions_without_names_are_numbered(self, folder: Path) -> None:
        (folder / "labels_66.txt").unlink()
        read = read_things(folder)
        assert read.factors == ("dimension 0", "dimension 1", "dimension 2")
        assert "no list of the dimensions' names, which are numbered" in read.notes

    def test_layout_is_recognised(self, folder: Path) -> None:
        assert is_things(folder)
        assert not is_things(folder / "images")


class TestCategories:
    @pytest.mark.parametrize(
        ("change", "classes", "labels"),
        [
            ({}, ("animal", "toy"), [-1, -1, 0, 0, 0]),  # two categories: none
            ({"robin": ""}, ("animal", "toy"), [-1, -1, -1, 0, 0]),
            ({"apple": "fruit"}, ("animal", "fruit", "toy"), [1, 1, 0, 0, 0]),
            ({"zebra": " animal "}, ("animal", "toy"), [-1, -1, 0, 0, 0]),
        ],
        ids=["two", "empty", "one", "spaces"],
    )
    def test_one_each_or_unknown(
        self, folder: Path, change: dict[str, str], classes: tuple[str, ...], labels: list[int]
    ) -> None:
        write_table(folder, CATEGORIES | change)
        read = read_things(folder)
        assert read.classes == classes
        assert read.labels_N is not None
        assert read.labels_N.tolist() == labels

    def test_a_concept_missing_from_the_table_is_unknown(self, folder: Path) -> None:
        write_table(folder, {"zebra": "animal"})
        read = read_things(folder)
        assert read.labels_N is not None
        assert read.labels_N.tolist() == [-1, -1, -1, 0, 0]

    def test_no_table_no_labels(self, folder: Path) -> None:
        (folder / "things_concepts.tsv").unlink()
        read = read_things(folder)
        assert read.labels_N is None
        assert read.classes == ()
        assert "no table of concepts (things_concepts.tsv), and so no classes" in read.notes


class TestMessages:
    @pytest.mark.parametrize("ids", ["0 zebra\n1 apple\n2 drum\n3 robin\n", "Zebra\nApple\nDrum\nRobin\n"])
    def test_a_list_of_other_names(self, folder: Path, ids: str) -> None:
        (folder / "unique_id.txt").write_text(ids)
        first = ids.partition("\n")[0]
        for unknown in (False, True):
            with pytest.raises(
                UserError,
                match=rf'unique_id\.txt lists concepts like "{first}", but the photographs show .*"apple"; mend',
            ):
                read_things(folder, allow_unknown=unknown)

    def test_a_zip_of_it(self, folder: Path, tmp_path: Path) -> None:
        archive = Path(shutil.make_archive(str(tmp_path / "things"), "zip", folder))
        with pytest.raises(UserError, match=r"things\.zip holds THINGS' tables; unpack it and import the folder"):
            import_images("mine", archive)

    def test_labels_of_ones_own_leave_its_tables_out_with_a_word(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "l.csv").write_text("image,label\napple_9.png,a\n")
        store = import_images("mine", folder, labels=tmp_path / "l.csv")
        assert "THINGS' dimensions and categories left out: --labels gives others" in store.manifest.notes

    def test_a_concept_folder_without_a_row(self, folder: Path) -> None:
        (folder / "images" / "robin").rename(folder / "images" / "unicorn")
        with pytest.raises(UserError, match=r"not in unique_id\.txt: 1 concept folder, first: unicorn"):
            read_things(folder)

    def test_no_image_folder(self, folder: Path) -> None:
        (folder / "images").rename(folder / "photos")
        with pytest.raises(UserError, match=r"no folder images/ or object_images/"):
            read_things(folder)

    def test_no_ids(self, folder: Path) -> None:
        (folder / "unique_id.txt").unlink()
        with pytest.raises(UserError, match=r"unique_id\.txt is missing"):
            read_things(folder)

    @pytest.mark.parametrize(
        ("file", "text"), [("unique_id.txt", "zebra\napple\ndrum\n"), ("labels_66.txt", "striped\nedible\n")]
    )
    def test_lengths_that_contradict_each_other(self, folder: Path, file: str, text: str) -> None:
        (folder / file).write_text(text)
        with pytest.raises(
            UserError, match=rf"{EMBEDDING} has 4 rows of 3 numbers, but unique_id.txt lists \d concepts? and .* get"
        ):
            read_things(folder)

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("0.5 0.1 0\n0.2 1\n", "line 2: 2 numbers, but 3 in line 1; mend it or get it anew"),
            ("a,b,c\n\n0.5,0.1,0\n1\n", "line 4: 1 number, but 3 in line 3"),
            ("0.5 0.1 0\n0.2 1 1,5a\n", 'line 2: "5a" is not a number'),
            ("metal food animal\n", "holds no numbers"),
        ],
    )
    def test_a_ragged_table_is_named_by_its_line(self, folder: Path, text: str, says: str) -> None:
        (folder / EMBEDDING).write_text(text)
        with pytest.raises(UserError, match=f"{EMBEDDING}.*{says}"):
            read_things(folder)

    @pytest.mark.parametrize(
        ("file", "text"),
        [(EMBEDDING, "0.5 0.1 many\n"), ("things_concepts.tsv", "uniqueID\tCategory\nzebra\tanimal\n")],
        ids=["words for numbers", "no category column"],
    )
    def test_a_damaged_file_is_named(self, folder: Path, file: str, text: str) -> None:
        (folder / file).write_text(text)
        with pytest.raises(UserError, match=file):
            read_things(folder)


@pytest.mark.slow
def test_real_files(shared_data: Path) -> None:
    things = shared_data / "things"
    read = read_things(things, ReadOptions(size=16))
    assert len(read.ids) == 1372
    assert read.images_NHWC.shape == (1372, 16, 16, 3)
    assert read.groups is not None
    assert len(set(read.groups)) == len(rated(read)) == 586
    assert len(read.classes) == 27
    assert len(read.factors) == 66
    assert read.factors[0] == (things / "labels_66.txt").read_text().splitlines()[0].strip()
    assert read.notes[0].startswith("46 negative embedding entries (lowest -")
    assert "586 of 1854 concepts have images" in read.notes

    raw = (things / EMBEDDING).read_text().splitlines()
    concepts = (things / "unique_id.txt").read_text().split()
    assert read.factors_NF is not None
    for concept in ("abacus", "acorn", read.groups[-1]):
        numbers = [max(float(text), 0) for text in raw[concepts.index(concept)].split()]
        np.testing.assert_allclose(read.factors_NF[read.groups.index(concept)], numbers, rtol=1e-6)

    header, *rows = [line.split("\t") for line in (things / "things_concepts.tsv").read_text("utf-8").splitlines()]
    column = header.index("Bottom-up Category (Human Raters)")
    category = {row[header.index("uniqueID")]: row[column] for row in rows}
    assert read.labels_N is not None
    for concept, label in zip(read.groups, read.labels_N, strict=True):
        assert label == (read.classes.index(category[concept]) if category[concept] in read.classes else -1)
    assert set(np.unique(read.labels_N)) <= set(range(-1, 27))


class TestConceptsThatThingsDoesNotHave:
    @pytest.fixture
    def more(self, folder: Path) -> Path:
        (folder / "images" / "unicorn").mkdir()
        Image.new("RGB", (20, 20)).save(folder / "images" / "unicorn" / "unicorn_01.png")
        return folder

    def test_are_refused_with_the_way_out(self, more: Path) -> None:
        with pytest.raises(
            UserError, match=r"not in unique_id.txt: 1 concept folder, first: unicorn;.*--allow-unknown"
        ):
            read_things(more)

    def test_are_kept_without_ratings_if_allowed(self, more: Path) -> None:
        read = read_things(more, allow_unknown=True)
        place = read.ids.index("unicorn/unicorn_01")
        assert read.factors_NF is not None
        assert read.labels_N is not None
        assert np.isnan(read.factors_NF[place]).all()
        assert read.labels_N[place] == -1
        assert rated(read) == ["apple/apple_9", "robin/robin_01", "zebra/zebra_01"]  # as without it
        assert "not in unique_id.txt, and so without dimensions: 1 concept, first: unicorn" in read.notes


class TestManualCategories:
    def test_a_concept_in_exactly_one_category_has_it(self, folder: Path) -> None:
        rows = ["animal\tfood\ttoy", "1\t0\t0", "1\t1\t0", "0\t0\t1", "0\t0\t0"]  # zebra, apple, drum, robin
        (folder / "category_mat_manual.tsv").write_text("\n".join(rows) + "\n")
        read = read_things(folder)
        assert read.labelings is not None
        labels_N, classes = read.labelings["manual"]
        assert classes == ("animal", "food", "toy")
        assert labels_N.tolist() == [-1, -1, -1, 0, 0]  # apple has two, robin none
        store = write_store("t", read, folder.parent / "stores")
        assert store.labelings["manual"][0].tolist() == labels_N.tolist()
        assert store.labelings["manual"][1] == list(classes)

    @pytest.mark.parametrize("text", ["animal\n1\n0\n", "animal\tfood\n1\n0\t1\n0\t0\n0\t0\n"])
    def test_a_table_that_does_not_fit_is_named(self, folder: Path, text: str) -> None:
        (folder / "category_mat_manual.tsv").write_text(text)
        with pytest.raises(UserError, match=r"category_mat_manual.tsv"):
            read_things(folder)

    def test_without_the_table_there_is_no_such_labeling(self, folder: Path) -> None:
        read = read_things(folder)
        assert read.labelings is None
        assert write_store("t", read, folder.parent / "stores").labelings == {}


class TestAsDownloaded:
    """Names, folders and spellings of the copies that lie on OSF, and what editors add."""

    @pytest.mark.parametrize(
        "places",
        [("data", "variables", "variables/data", "."), ("a/b/c", "Metadata/Concept-specific", "x y", "Images")],
    )
    def test_tables_and_photographs_in_folders(self, folder: Path, places: tuple[str, ...]) -> None:
        before = read_things(folder)
        for name, place in zip((EMBEDDING, "unique_id.txt", "labels_66.txt", "images"), places, strict=True):
            (folder / place).mkdir(exist_ok=True, parents=True)
            (folder / name).rename(folder / place / ("_images_THINGS" if place == "Images" else name))
        read = read_things(folder)
        assert is_things(folder)
        np.testing.assert_array_equal(read.factors_NF, before.factors_NF)
        assert (read.factors, read.classes) == (before.factors, before.classes)

    @pytest.mark.parametrize(
        "name", ["labels.txt", "labels_short.txt", "labels_short3.txt", "labels3.txt", "LABELS.TXT", "labels_66.csv"]
    )
    def test_names_of_dimensions(self, folder: Path, name: str) -> None:
        (folder / "labels_66.txt").rename(folder / name)
        assert read_things(folder).factors == ("striped", "edible", "alive")

    @pytest.mark.parametrize("delimiter", ["\t", ",", ", ", " "])
    @pytest.mark.parametrize(
        "name", ["spose_embedding_49d_sorted.txt", "spose_embedding_66d_sorted.tsv", "SPOSE_embedding_49d.csv"]
    )
    @pytest.mark.parametrize("header", ["", "dim_a dim_b dim_c\n"])
    def test_embeddings(self, folder: Path, name: str, delimiter: str, header: str) -> None:
        before = read_things(folder)
        (folder / EMBEDDING).unlink()
        np.savetxt(
            folder / name, RATINGS, delimiter=delimiter, header=header.replace(" ", delimiter).strip(), comments=""
        )
        np.testing.assert_array_equal(read_things(folder).factors_NF, before.factors_NF)

    def test_of_two_embeddings_the_larger_is_read_and_said(self, folder: Path) -> None:
        np.savetxt(folder / "spose_embedding_49d_sorted.txt", RATINGS[:, :2])
        read = read_things(folder)
        assert len(read.factors) == 3
        assert f"dimensions of {EMBEDDING}, not of spose_embedding_49d_sorted.txt" in read.notes

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
    def test_byte_order_marks(self, folder: Path, encoding: str) -> None:
        before = read_things(folder)
        for name in ("unique_id.txt", "labels_66.txt", "things_concepts.tsv", EMBEDDING):
            (folder / name).write_bytes((folder / name).read_text("utf-8").replace("\n", "\r\n").encode(encoding))
        read = read_things(folder)
        np.testing.assert_array_equal(read.factors_NF, before.factors_NF)
        assert (read.factors, read.classes, read.notes) == (before.factors, before.classes, before.notes)

    @pytest.mark.parametrize(
        "name", ["_concepts-metadata_things.tsv", "concepts-metadata_things.tsv", "THINGS_concepts.tsv"]
    )
    def test_the_table_of_concepts_under_its_other_names(self, folder: Path, name: str) -> None:
        (folder / "things_concepts.tsv").rename(folder / name)
        assert read_things(folder).classes == ("animal", "toy")

    def test_the_table_of_concepts_with_commas(self, folder: Path) -> None:
        text = (folder / "things_concepts.tsv").read_text().replace("fruit, food", '"fruit, food"').replace("\t", ",")
        (folder / "things_concepts.tsv").unlink()
        (folder / "things_concepts.csv").write_text(text)
        assert read_things(folder).classes == ("animal", "toy")

    def test_a_list_of_concepts_in_quotes(self, folder: Path) -> None:
        before = read_things(folder)
        (folder / "unique_id.txt").write_text("".join(f'"{concept}"\n' for concept in CONCEPTS))
        assert read_things(folder).groups == before.groups

    def test_quotes_inside_of_cells(self, folder: Path) -> None:
        rows = [
            "Word\tuniqueID\tDefinition\tBottom-up Category (Human Raters)",
            'a "striped" one\tzebra\t"a ""striped"" horse\tanimal',
            '"robin"\t"robin"\t"sings, at dawn"\t"animal"',
            'drum\tdrum\t6" wide\ttoy',
        ]
        (folder / "things_concepts.tsv").write_text("\n".join(rows))
        read = read_things(folder)
        assert read.classes == ("animal", "toy")
        assert read.labels_N is not None
        assert read.labels_N.tolist() == [-1, -1, 0, 0, 0]
        assert "1 concept without a row in things_concepts.tsv: apple" in read.notes

    def test_inside_a_folder_of_its_own(self, folder: Path, tmp_path: Path) -> None:
        before = read_things(folder)
        outer = tmp_path / "THINGS-main" / "THINGS"
        outer.parent.mkdir()
        folder.rename(outer)
        assert is_things(tmp_path / "THINGS-main")
        read = read_things(tmp_path / "THINGS-main")
        assert (read.ids, read.factors, read.classes) == (before.ids, before.factors, before.classes)

    def test_dimensions_of_one_name_are_noted(self, folder: Path) -> None:
        (folder / "labels_66.txt").write_text("striped\nalive\nalive\n")
        assert "several dimensions have one name: alive" in read_things(folder).notes

    def test_numbered_folders(self, folder: Path) -> None:
        before = read_things(folder)
        for number, concept in enumerate(("apple", "robin", "zebra"), 1):
            (folder / "images" / concept).rename(folder / "images" / f"{number:05}_{concept}")
        read = read_things(folder)
        assert read.groups == before.groups
        np.testing.assert_array_equal(read.factors_NF, before.factors_NF)

    def test_folders_in_parts(self, folder: Path) -> None:
        before = read_things(folder)
        for part, concept in (("A-C", "apple"), ("R-S", "robin"), ("T-Z", "zebra")):
            (folder / f"object_images_{part}").mkdir()
            (folder / "images" / concept).rename(folder / f"object_images_{part}" / concept)
        (folder / "images").rmdir()
        read = read_things(folder)
        assert read.groups == before.groups
        np.testing.assert_array_equal(read.factors_NF, before.factors_NF)

    def test_photographs_without_folders(self, folder: Path) -> None:
        before = read_things(folder)
        for photo in PHOTOS:
            (folder / "images" / photo).rename(folder / "images" / photo.split("/")[1])
        assert read_things(folder).groups == before.groups

    def test_zips_not_yet_unpacked_are_named(self, folder: Path) -> None:
        (folder / "images").rename(folder / "photos")
        (folder / "object_images_A-C.zip").touch()
        with pytest.raises(UserError, match=r"unpack object_images_a-c\.zip first|unpack object_images_A-C\.zip first"):
            read_things(folder)


class TestContradictions:
    @pytest.mark.parametrize(
        ("value", "what"),
        [(np.nan, "nan, not a number"), (np.inf, "inf, not a number"), (-np.inf, "-inf, not a number"),
         (1e100, r"1e\+100, too large"), (-1e39, r"-1e\+39, too large")],
    )  # fmt: skip
    def test_ratings_that_are_no_numbers(self, folder: Path, value: float, what: str) -> None:
        ratings = RATINGS.copy()
        ratings[1, 2] = value
        np.savetxt(folder / EMBEDDING, ratings)
        with pytest.raises(UserError, match=rf'{EMBEDDING}: "alive" of apple is {what}; mend'):
            read_things(folder)

    def test_a_concept_twice(self, folder: Path) -> None:
        (folder / "unique_id.txt").write_text("zebra\napple\ndrum\napple\n")
        with pytest.raises(UserError, match=r'unique_id\.txt lists "apple" twice'):
            read_things(folder)

    def test_two_categories_in_two_rows(self, folder: Path) -> None:
        with (folder / "things_concepts.tsv").open("a") as file:
            file.write("zebra\tZebra\ttoy\n")
        with pytest.raises(UserError, match='puts zebra into "animal" and into "toy"; remove one row'):
            read_things(folder)

    def test_concepts_without_dimensions(self, folder: Path) -> None:
        (folder / EMBEDDING).unlink()
        with pytest.raises(
            UserError, match=rf"{EMBEDDING} \(or 49d, \.tsv, \.csv\) is missing; add it, or import the folder"
        ):
            read_things(folder)
