"""Label files as people have them: each is understood as its owner meant it, or refused in one sentence."""

from pathlib import Path

import numpy as np
import pytest

from moe.data.label_tables import Labels
from moe.data.labels import alike, array_labels, checked, classify, read_labels
from moe.data.names import Names, natural, without_suffix
from moe.errors import UserError

IDS = ["red/a", "red/b", "blue/c", "blue/d"]
WARM = ["warm", "warm", "cold", "cold"]


def table(folder: Path, text: str | bytes, name: str = "labels.csv") -> Path:
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder / name


class TestTables:
    @pytest.mark.parametrize(
        "text",
        [
            "file,label\nred/a.png,warm\nred/b.png,warm\nblue/c.png,cold\nblue/d.png,cold\n",
            "\ufefffile,label\nred/a.png,warm\nred/b.png,warm\nblue/c.png,cold\nblue/d.png,cold\n",
            "file,label\r\nred/a.png,warm\r\nred/b.png,warm\r\nblue/c.png,cold\r\nblue/d.png,cold\r\n",
            "\n\nfile,label\n\nred/a.png,warm\nred/b.png,warm\nblue/c.png,cold\nblue/d.png,cold\n\n\n",
            "# mine\nfile,label\nred/a.png,warm\n# more\nred/b.png,warm\nblue/c.png,cold\nblue/d.png,cold\n",
            "file, label\nred/a.png , warm\n red/b.png,warm \nblue/c.png,  cold\nblue/d.png,cold\n",
            "file;label\nred/a.png;warm\nred/b.png;warm\nblue/c.png;cold\nblue/d.png;cold\n",
            "file\tlabel\nred/a.png\twarm\nred/b.png\twarm\nblue/c.png\tcold\nblue/d.png\tcold\n",
            "file|label\nred/a.png|warm\nred/b.png|warm\nblue/c.png|cold\nblue/d.png|cold\n",
            "label,file\nwarm,red/a.png\nwarm,red/b.png\ncold,blue/c.png\ncold,blue/d.png\n",
            ",file,label\n0,red/a.png,warm\n1,red/b.png,warm\n2,blue/c.png,cold\n3,blue/d.png,cold\n",
            "file,split,label\na.png,train,warm\nb.png,train,warm\nc.png,test,cold\nd.png,test,cold\n",
            "file,label,\nred/a.png,warm,\nred/b.png,warm,\nblue/c.png,cold,\nblue/d.png,cold,\n",
            "red/a.png,warm\nred/b.png,warm\nblue/c.png,cold\nblue/d.png,cold\n",
            "file,label\n./red/a.png,warm\n./red/b.png,warm\n./blue/c.png,cold\n./blue/d.png,cold\n",
            "file,label\nred\\a.png,warm\nred\\b.png,warm\nblue\\c.png,cold\nblue\\d.png,cold\n",
            "file,label\nC:\\pics\\red\\a.png,warm\nC:\\pics\\red\\b.png,warm\nD:\\blue\\c.png,cold\nD:\\blue\\d.png,cold\n",
            "file,label\n/home/me/red/a.png,warm\n/home/me/red/b.png,warm\n/x/blue/c.png,cold\n/x/blue/d.png,cold\n",
            "file,label\nRED/A.PNG,warm\nRED/B.PNG,warm\nBLUE/C.PNG,cold\nBLUE/D.PNG,cold\n",
            "file,label\na,warm\nb,warm\nc,cold\nd,cold\n",
            'file,label\n"red/a.png","warm"\n"red/b.png", "warm"\n"blue/c.png","cold"\n"blue/d.png",cold\n',
            "image,warm,cold\na.png,1,0\nb.png,1.0,0.0\nc.png,0,1\nd.png,False,True\n",
            "sep=;\nfile;label\nred/a.png;warm\nred/b.png;warm\nblue/c.png;cold\nblue/d.png;cold\n",
            '"file","label"\n"1","a.png","warm"\n"2","b.png","warm"\n"3","c.png","cold"\n"4","d.png","cold"\n',
            "image,mask,label\na.png,a_m.png,warm\nb.png,b_m.png,warm\nc.png,c_m.png,cold\nd.png,d_m.png,cold\n",
        ],
        ids=[
            "plain", "byte order mark", "Windows line ends", "blank lines", "comments", "spaces", "semicolons", "tabs",
            "bars", "swapped", "pandas' index", "named column", "trailing commas", "no header", "dot slash",
            "backslashes", "drives", "absolute", "upper case", "bare names", "quoted", "one-hot",
            "Excel's first line", "R's row names", "files beside",
        ],
    )  # fmt: skip
    def test_that_say_the_same(self, tmp_path: Path, text: str) -> None:
        assert read_labels(table(tmp_path, text), IDS).values == WARM

    @pytest.mark.parametrize("name", ["labels.csv", "LABELS.CSV", "labels.tsv", "labels.TSV"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
    def test_of_any_case_and_known_encoding(self, tmp_path: Path, name: str, encoding: str) -> None:
        delimiter = "\t" if "tsv" in name.lower() else ","
        text = f"file{delimiter}label\na.png{delimiter}wärm\n"
        assert read_labels(table(tmp_path, text.encode(encoding), name), IDS).values == ["wärm", "", "", ""]

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("file,label\na.png,1\nrde/b.png,1\nc.png,0\nd.png,0\nx,1\n",
             "2 of 5 rows of labels.csv without image: rde/b.png, x"),
            ("file,label\na.png,1\nrde/b.png,1\nc.png,0\nd.png,0\n", "1 image without a row in labels.csv: red/b"),
            ("file,label\na.png,1\nc.png,0\nd.png,0\nb,1\nb,1\n", "1 row of labels.csv said twice"),
            ("file,label\na.png,2\nb.png,\nc.png,NaN\nd.png,-1\n", "3 of 4 images without a label"),
            ("file,label\na.png,2\nb.png,#N/A\nc.png,NaT\nd.png,\u22121\n", "3 of 4 images without a label"),
            ("a.png,1\nb.png,1\nc.png,0\nd.png,0\n", "labels.csv has no header; its first row is data"),
            ("file,warm,cold\na,1,0\nb,1,0\nc,0,1\nd,0,1\n", "the columns warm, cold of labels.csv are the classes"),
            ("file,day,label\na,1,0\nb,1,0\nc,3,1\nd,0,1\n", 'the labels are column "label" of labels.csv'),
        ],
        ids=["rows", "images", "twice", "unknown", "unknown elsewhere", "header", "one-hot", "column"],
    )  # fmt: skip
    def test_what_does_not_match_is_counted_and_named(self, tmp_path: Path, text: str, says: str) -> None:
        assert says in read_labels(table(tmp_path, text), IDS).notes

    def test_more_than_five_are_named_by_five_and_a_count(self, tmp_path: Path) -> None:
        rows = "".join(f"no{n}.png,1\n" for n in range(9))
        notes = read_labels(table(tmp_path, f"file,label\na,1\n{rows}"), IDS).notes
        assert (
            "9 of 10 rows of labels.csv without image: no0.png, no1.png, no2.png, no3.png, no4.png and 4 more" in notes
        )

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("file,label\na.png,warm\na.png,cold\n",
             r'lines 2 and 3 of .* contradict each other: red/a is "warm" and "cold"'),
            ("file,label\na.png,warm\nRED/A.PNG,cold\n", "contradict each other"),
            ("file,sex,age\na.png,f,30\nb.png,m,40\n",
             r"has sex, age beside the images' names; keep one.*call .* label"),
            ("file,class,label\na.png,f,30\nb.png,m,40\n", r"has class, label beside the images' names"),
            ("file,warm,cold\na,1,1\nb,1,0\n", r"line 2 of .* marks several classes \(warm, cold\)"),
            ("file,warm,cold\na,0,0\nb,1,0\n", "line 2 of .* marks no class"),
            ("file,label\na.png,wärm\n".encode("latin-1"),
             r"line 2 of .*labels\.csv is not UTF-8 text; save the file as"),
            ("file,label\na.png,warm\n".encode("utf-16-le"), "holds zero bytes.*save it as UTF-8"),
            ('file,label\n"a.png,warm\nb.png,warm\n', r'cannot be read.*a " is missing'),
            ('file,label\n"a.png,warm\nb.png",warm\n', r'runs over several lines; a " is missing'),
            ("file,label\na.png,warm, really\nb.png,cold\n", "line 2 of .* has 3 columns, others 2; quote a label"),
            ("file,label\na.png\nb.png,cold\n", "line 2 of .* has 1 column, others 2"),
            ("file,label\na.png,warm, really\nb.png,cold, really\n",
             "line 2 of .* has 3 columns, its header 2; name the last column, or quote a label"),
            ("one,two,label\na.png,b.png,1\nc.png,d.png,0\n",
             'line 2 of .* names two images, "a.png" and "b.png"; keep one column of names, or call it image'),
            ("file,label\na.png,n/a\nb.png,cold\n", 'the label "n/a"'),
            ("file,label\na.png,?\nb.png,cold\n", r'the label "\?"'),
            ("file,label\na.png,-\nb.png,cold\n", 'the label "-"'),
            ("file,label\na.png,#DIV/0!\nb.png,cold\n", 'the label "#DIV/0!"'),
            ("file,label\na.png,NA\nb.png,cold\n", 'the label "NA", which can be a class or mean that there is none'),
            ("file,label\na.png,None\nb.png,cold\n", 'the label "None"'),
            ("file,label\na.png,-1\nb.png,1\n", "has -1 beside 1: -1 means unknown here; if it is a class, number"),
            ("file,label\na.png,-1\nb.png,-2\n", "has -1 beside -2"),
            ("file,label\na.png,\nb.png,nan\n", "has no label for any image"),
            ("file,label\n", "has a header and no rows"),
            ("", "needs two columns"),
        ],
    )  # fmt: skip
    def test_what_can_be_understood_in_two_ways_is_refused(
        self, tmp_path: Path, text: str | bytes, message: str
    ) -> None:
        with pytest.raises(UserError, match=message):
            read_labels(table(tmp_path, text), IDS)

    def test_a_bare_name_in_two_folders_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r'line 2 of .*: "0\.png" can be red/0, blue/0; write the folder too'):
            read_labels(table(tmp_path, "file,label\n0.png,warm\n"), ["red/0", "blue/0"])

    def test_numbers_that_are_names_and_labels(self, tmp_path: Path) -> None:
        text = "".join(f"{n},{9 - n}\n" for n in range(10))
        with pytest.raises(UserError, match=r'line 1 of .* names two images, "0" and "9"; keep one .*or call it image'):
            read_labels(table(tmp_path, text), list("0123456789"))
        swapped = "label,id\n" + "".join(f"{9 - n},{n}\n" for n in range(10))
        assert read_labels(table(tmp_path, swapped), list("0123456789")).values == list("9876543210")

    def test_a_first_row_whose_image_is_missing_is_no_header(self, tmp_path: Path) -> None:
        read = read_labels(table(tmp_path, "x,1\na,0\nb,1\nc,0\nd,1\n"), IDS)
        assert read.values == ["0", "1", "0", "1"]
        assert "1 of 5 rows of labels.csv without image: x" in read.notes

    @pytest.mark.parametrize("start", [b"PK\x03\x04\x14\0", b"\xd0\xcf\x11\xe0\xa1"], ids=["xlsx", "xls"])
    def test_a_workbook_under_another_name_is_named(self, tmp_path: Path, start: bytes) -> None:
        with pytest.raises(UserError, match=r"labels\.csv is an Excel workbook or another archive; save it as CSV"):
            read_labels(table(tmp_path, start + bytes(50)), IDS)

    def test_unicode_names_match_however_they_are_composed(self, tmp_path: Path) -> None:
        assert read_labels(table(tmp_path, "file,label\nu\u0308ber.png,x\n"), ["\u00fcber"]).values == ["x"]


class TestLines:
    @pytest.mark.parametrize(
        "text",
        ["warm\nwarm\ncold\ncold", "\ufeffwarm\r\nwarm\r\ncold\r\ncold\r\n", "warm \nwarm\n cold\ncold\n\n\n"],
        ids=["plain", "Windows", "blank end"],
    )
    def test_in_image_order(self, tmp_path: Path, text: str) -> None:
        assert read_labels(table(tmp_path, text, "labels.TXT"), IDS).values == WARM

    def test_empty_lines_at_the_end_can_be_images_without_label(self, tmp_path: Path) -> None:
        assert read_labels(table(tmp_path, "warm\nwarm\ncold\n\n", "l.txt"), IDS).values == ["warm", "warm", "cold", ""]

    @pytest.mark.parametrize(
        "text", ["a.png warm\nb.png warm\nc.png cold\nd.png cold\n", "d\tcold\na\twarm\nb\twarm\nc\tcold\n"]
    )
    def test_lines_that_name_the_images_are_a_table(self, tmp_path: Path, text: str) -> None:
        assert read_labels(table(tmp_path, text, "labels.txt"), IDS).values == WARM

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("1 5\n2 5\n3 6\n4 6\n", "line 1 of .* has 2 numbers; write one label a line, in the order of the images"),
            ("0.0e+00 1.0e+00\n1.0e+00 0.0e+00\n0.0e+00 1.0e+00\n0.0e+00 1.0e+00\n", "line 1 of .* has 2 numbers"),
            ("0 0 1 1\n", "line 1 of .* has 4 numbers"),
            ("[0, 0, 1, 1]\n", "line 1 of .* has 4 numbers"),
            ("0\n0\n1;\n1;2\n", "line 4 of .* has 2 numbers"),
            ("4\nSmiling Young\na.png  1 -1\nb.png -1  1\nc.png  1  1\nd.png -1 -1\n", "line 1 .* 1 column, others 3"),
            ("warm\ncold\n", "has 2 labels for 4 images; it needs one each"),
        ],
        ids=["CUB-200", "one-hot", "one line", "Python's list", "one of them", "CelebA", "too few"],
    )
    def test_lines_that_are_no_labels_are_refused(self, tmp_path: Path, text: str, says: str) -> None:
        with pytest.raises(UserError, match=says):
            read_labels(table(tmp_path, text, "labels.txt"), IDS)

    @pytest.mark.parametrize("line", ["3,0", "class 1", "1 of 2", "1-2"])
    def test_a_label_with_a_number_in_it_is_one(self, tmp_path: Path, line: str) -> None:
        assert read_labels(table(tmp_path, f"{line}\n" * 4, "labels.txt"), IDS).values == [line] * 4


class TestArrays:
    @pytest.mark.parametrize(
        "array",
        [
            np.array([1, 1, 0, 2]), np.array([1.0, 1.0, 0.0, 2.0]), np.array([[1], [1], [0], [2]]),
            np.array(list("1102")), np.array([b"1", b"1", b"0", b"2"]), np.eye(3)[[1, 1, 0, 2]],
            np.eye(3, dtype=bool)[[1, 1, 0, 2]],
        ],
        ids=["int", "float", "column", "text", "bytes", "one-hot", "one-hot bool"],
    )  # fmt: skip
    @pytest.mark.parametrize("name", ["y.npy", "Y.NPY"])
    def test_that_say_the_same(self, tmp_path: Path, array: np.ndarray, name: str) -> None:
        with (tmp_path / name).open("wb") as file:
            np.save(file, array)
        values = read_labels(tmp_path / name, IDS).values
        labels_N, classes = classify(values, None, file="y.csv")
        assert (labels_N.tolist(), classes) == ([1, 1, 0, 2], ("0", "1", "2"))

    @pytest.mark.parametrize("written", ["-1", "-1.0", "-1,0", "-1.000000000000000000e+00"])
    def test_minus_one_is_unknown_however_written(self, tmp_path: Path, written: str) -> None:
        lines = tmp_path / "labels.txt"
        lines.write_text(f"{written}\n0.0\n2.0\n")
        assert read_labels(lines, ["a", "b", "c"]).values == ["", "0.0", "2.0"]

    @pytest.mark.parametrize("text", ["inf", "-inf"])
    def test_infinity_is_refused(self, tmp_path: Path, text: str) -> None:
        np.save(tmp_path / "labels.npy", np.array([float(text), 1.0]))
        with pytest.raises(UserError, match=f'has the label "{text}", which can be a class or mean that there is none'):
            read_labels(tmp_path / "labels.npy", ["a", "b"])

    def test_nan_is_unknown(self) -> None:
        read = checked(Labels(array_labels(np.array([1.0, np.nan]), "y")), 2, "y", "y")
        assert (read.values, read.notes) == (["1.0", ""], ["1 of 2 images without a label"])

    @pytest.mark.parametrize("array", [np.ones((4, 3)), np.zeros((2, 2, 2)), np.array([1 + 2j] * 4), np.zeros((4, 2))])
    def test_other_shapes_and_values_are_refused(self, array: np.ndarray) -> None:
        with pytest.raises(UserError, match="y"):
            array_labels(array, "y")


class TestClasses:
    @pytest.mark.parametrize(
        ("values", "classes"),
        [
            ([f"{n}.0" for n in range(12)], tuple(str(n) for n in range(12))),
            ([str(n) for n in range(12)], tuple(str(n) for n in range(12))),
            (["10", "9.0", "2"], ("2", "9", "10")),
            (["0.5", "0.25", "10.0"], ("0.25", "0.5", "10.0")),
            (["-2", "-10", "3"], ("-10", "-2", "3")),
            (["03", "01", "02"], ("01", "02", "03")),
            (["²", "2", "\u0661"], ("2", "²", "\u0661")),
            (["9" * 5000, "1"], ("1", "9" * 5000)),
            (["b", "a", "10"], ("10", "a", "b")),
            (["2", "--1"], ("--1", "2")),
            (["1e5", "2e3"], ("1e5", "2e3")),
        ],
    )
    def test_numbers_sort_as_numbers(self, values: list[str], classes: tuple[str, ...]) -> None:
        labels_N, names = classify(values, None, file="y.csv")
        assert names == classes
        called = [names[label] for label in labels_N]
        assert all(value in (name, f"{name}.0") for value, name in zip(values, called, strict=True))

    def test_float_labels_are_given_the_right_names(self, tmp_path: Path) -> None:
        """Image 2 is "two", not "four"."""
        words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"]
        (tmp_path / "names.txt").write_text("\n".join(words))
        labels_N, names = classify([f"{n}.0" for n in range(12)], tmp_path / "names.txt", file="y.csv")
        assert [names[label] for label in labels_N] == words

    @pytest.mark.parametrize(
        "written", ["{}.", "{}.000", "{:.18e}", "{:.1E}", "{},0", "{},00"], ids=lambda written: written.format(10)
    )
    def test_whole_numbers_in_every_notation(self, written: str) -> None:
        """As NumPy's savetxt and a spreadsheet with a comma for decimals write them."""
        labels_N, names = classify([written.format(n) for n in (10, 2, -3, 100)], None, file="y.csv")
        assert names == ("-3", "2", "10", "100")
        assert labels_N.tolist() == [2, 1, 0, 3]

    def test_digits_of_another_script_are_numbers(self) -> None:
        labels_N, names = classify(["\u0661\u0660", "\u0662"], None, file="y.csv")
        assert (labels_N.tolist(), names) == ([1, 0], ("\u0662", "\u0661\u0660"))

    def test_a_comma_that_can_be_two_things_is_refused(self) -> None:
        with pytest.raises(UserError, match='the label "1,000" can be a thousand or a fraction; write it without'):
            classify(["1,000", "2,5"], None, file="y.csv")

    def test_spellings_that_are_refused_name_the_file(self) -> None:
        for values in (["1,000", "2,5"], ["1", "01"]):
            with pytest.raises(UserError, match=r"^y\.csv: the label"):
                classify(values, None, file="y.csv")

    @pytest.mark.parametrize("values", [["1", "01"], ["1.0", "01.0"], ["1", "+1"], ["0", "-0"], ["1.5", "1.50e+00"]])
    def test_two_spellings_of_a_number_are_refused_in_files_and_kept_apart_as_folders(self, values: list[str]) -> None:
        with pytest.raises(UserError, match="are the same number; write it in one way"):
            classify(values, None, file="y.csv")
        assert len(classify(values, None, file=None)[1]) == 2

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-8"])
    def test_class_files(self, tmp_path: Path, encoding: str) -> None:
        (tmp_path / "names.txt").write_bytes("kält \r\nwarm\r\n\r\n".encode(encoding))
        assert classify(["0", "1"], tmp_path / "names.txt", file="y.csv")[1] == ("kält", "warm")

    @pytest.mark.parametrize(
        ("values", "text", "named"),
        [
            (["0", "1", "2"], "2 ten\n0: two\n1,three, four\n", ["two", "three, four", "ten"]),
            (["n02", "n01"], "n02 a dog\nn01\tcat, tabby\n", ["a dog", "cat, tabby"]),
            (["warm", "cold"], "warm\ncold\n", ["warm", "cold"]),
            (["Warm", "cold"], "cold\nwarm\n", ["warm", "cold"]),
            (["1", "2"], "2\n1\n", ["1", "2"]),
            (["1", "2"], "1 a\n3 b\n", ["1 a", "3 b"]),
            (["1", "01"], "a\nb\n", ["b", "a"]),
        ],
        ids=["numbered", "ImageNet", "labels", "another case", "numbers", "other numbers", "alike"],
    )
    def test_class_files_that_say_the_labels_too(
        self, tmp_path: Path, values: list[str], text: str, named: list[str]
    ) -> None:
        (tmp_path / "names.txt").write_text(text)
        labels_N, names = classify(values, tmp_path / "names.txt", file="y.csv" if values != ["1", "01"] else None)
        assert [names[label] for label in labels_N] == named

    def test_the_labels_themselves_give_the_order(self, tmp_path: Path) -> None:
        (tmp_path / "names.txt").write_text("warm\ncold\n")
        assert classify(["cold", "warm"], tmp_path / "names.txt", file="y.csv")[1] == ("warm", "cold")

    def test_some_of_the_labels_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "names.txt").write_text("warm\nhot\n")
        with pytest.raises(UserError, match='names "warm", which is a label, but not every label'):
            classify(["cold", "warm"], tmp_path / "names.txt", file="y.csv")

    def test_plus_and_minus_are_classes(self) -> None:
        assert checked(Labels(["+", "-"]), 2, "y", "y").values == ["+", "-"]

    def test_a_class_name_twice_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "names.txt").write_text("warm\nwarm\n")
        with pytest.raises(UserError, match=r'names\.txt has the class name "warm" twice'):
            classify(["0", "1"], tmp_path / "names.txt", file="y.csv")

    @pytest.mark.parametrize(
        ("names", "found"),
        [
            (["cat", "Cat", "dog"], "cat, Cat"), (["big cat", "big  cat", "bigcat"], "big cat, big  cat, bigcat"),
            (["\u00e9", "e\u0301"], "\u00e9, e\u0301"), (["cat", "c\u200bat"], "cat, c\\u200bat"),
            (["2", "\u00b2"], "2, \u00b2"),
        ],
    )  # fmt: skip
    def test_classes_that_may_be_one_are_noted(self, names: list[str], found: str) -> None:
        assert alike(names) == [f"classes that differ in case, spaces or look-alikes alone: {found}"]
        assert alike(["cat", "cats", "dog", "1", "-1"]) == []

    def test_labels_that_all_differ_are_noted(self, tmp_path: Path) -> None:
        ids = [str(n) for n in range(30)]
        path = table(tmp_path, "id,label\n" + "".join(f"{n},{n / 7}\n" for n in range(30)))
        assert "every label of labels.csv occurs once: no class has two images" in read_labels(path, ids).notes


class TestNames:
    @pytest.mark.parametrize(
        ("name", "places"),
        [
            ("red/a", [0]), ("a", [0]), ("RED/A.JPG", [0]), ("pics/red/a.png", [0]), ("pics\\red\\a.png", [0]),
            ("0", [2, 3]), ("red/0.png", [2]), ("x/0.png", []), ("green/a", []),
            ("", []), ("a.b", [4]), ("a.b.jpeg", [4]), ("..", []),
            ("c.jpg.png", [5]), ("c.jpg", [5]), ("c", [6]), ("c.png", [6]), ("/home/x/C.JPG.PNG", [5]),
        ],
    )  # fmt: skip
    def test_are_found(self, name: str, places: list[int]) -> None:
        assert Names(["red/a", "red/b", "red/0", "blue/0", "x/a.b", "x/c.jpg", "x/c"]).find(name) == places

    def test_natural_order_whatever_the_digits(self) -> None:
        names = ["a10", "a9", "a²", "a\u0661", "a1", "10", "9", "007", "a" + "9" * 5000]
        assert sorted(names, key=natural) == ["007", "9", "10", "a1", "a9", "a10", "a" + "9" * 5000, "a²", "a\u0661"]

    @pytest.mark.parametrize(
        ("name", "stem"),
        [
            ("a.png", "a"),
            ("a.PNG", "a"),
            ("a.b", "a.b"),
            (".png", ".png"),
            ("d/.png", "d/.png"),
            ("a.tar.jpeg", "a.tar"),
        ],
    )
    def test_suffix(self, name: str, stem: str) -> None:
        assert without_suffix(name) == stem
