"""Dissimilarities that a user brings: every way to write them, every way to get them wrong."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from moe.errors import UserError
from probes.suite.rdm_files import match_rdm, read_rdm
from tests.probes.suite.made import store_of


def matrix(n=6, seed=0):
    return squareform(pdist(np.random.default_rng(seed).normal(size=(n, 3))))


def saved(folder, array, name="fmri.npy"):
    np.save(folder / name, array)
    return folder / name


def written(folder, rows, name="fmri.csv"):
    (folder / name).write_text("\n".join(",".join(map(str, row)) for row in rows))
    return folder / name


def table(names, values, *, titled=True):
    rows = [["", *names]] if titled else [list(names)]
    return rows + [[name, *row] if titled else list(row) for name, row in zip(names, values.tolist(), strict=True)]


class TestReading:
    @pytest.mark.parametrize("shape", ["square", "condensed", "stack", "condensed stack", "integers", "no diagonal"])
    def test_arrays_of_every_shape(self, tmp_path, shape):
        one, other = matrix(), matrix(seed=1)
        array = {
            "square": one, "condensed": squareform(one), "stack": np.stack([one, other]),
            "condensed stack": np.stack([squareform(one), squareform(other)]), "integers": (10 * one).astype(int),
            "no diagonal": one + np.diag([np.nan] * 6),
        }[shape]  # fmt: skip
        rdm = read_rdm(saved(tmp_path, array))
        assert (rdm.name, rdm.n, len(rdm.rdms)) == ("fmri", 6, 2 if "stack" in shape else 1)
        expected = squareform((10 * one).astype(int) if shape == "integers" else one)
        np.testing.assert_allclose(rdm.vector(0, np.arange(6)), expected)
        kept = np.array([4, 0, 2, 5])
        np.testing.assert_allclose(
            rdm.vector(0, kept), squareform(squareform(expected)[np.ix_(kept, kept)], checks=False)
        )

    @pytest.mark.parametrize("titled", [True, False])
    def test_tables_with_and_without_a_column_of_names(self, tmp_path, titled):
        names = list("abcdef")
        rdm = read_rdm(written(tmp_path, table(names, matrix(), titled=titled)))
        assert rdm.images == tuple(names)
        np.testing.assert_allclose(rdm.vector(0, np.arange(6)), squareform(matrix()))

    def test_a_table_in_another_style(self, tmp_path):
        path = tmp_path / "My RDM (1).tsv"
        path.write_text("\t".join("abcd") + "\n" + "\n".join("\t".join(map(str, row)) for row in matrix(4)))
        assert read_rdm(path).name == "My_RDM_1"

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda m: m + np.eye(6, k=5), "is not symmetric: .* in row 1, column 6, and"),
            (lambda m: np.where(m == m[1, 2], np.nan, m), "has 2 numbers that are not finite"),
            (lambda m: 1e200 * m, r"dissimilarities up to \d+e\+\d+, too large to be squared; divide them all"),
            (lambda m: -m, "negative entries, least -"),
            (lambda m: 1 / (1 + m), "is not 0 on its diagonal; of similarities r give 1 - r"),
            (lambda m: 0 * m, "the same dissimilarity for all images"),
            (lambda m: m[:, :5], r"has shape \(6, 5\); a matrix is \(n, n\)"),
            (lambda m: m[:3, :3], "has 3 images; 4 are needed"),
            (lambda m: squareform(m)[:-1], r"has shape \(14,\)"),
            (lambda m: np.stack([m, m - 2 * m[1, 2]]), "subject 1 is not 0 on its diagonal|subject 1 has negative"),
            (lambda m: m.astype(str), "holds <U.*; dissimilarities are numbers"),
        ],
    )
    def test_what_is_no_dissimilarity_matrix_is_refused_in_a_sentence(self, tmp_path, change, said):
        with pytest.raises(UserError, match=said) as caught:
            read_rdm(saved(tmp_path, change(matrix())))
        assert "fmri.npy" in str(caught.value)

    @pytest.mark.parametrize(
        ("rows", "said"),
        [
            ([["a", "b", "c", "d"]], "has no rows"),
            (table(list("abcd"), matrix(4))[:-1], "names 5 images in its header and has 3 rows|names 4 images"),
            (table(list("abca"), matrix(4)), 'has the name "a" twice'),
            ([["", *"abcd"], *(["x", 0, 1, 1, 1] for _ in range(4))], 'row 1 of .* is "x", column 1 "a"; order them'),
            ([list("abcd"), *([0, "?", 1, 1] for _ in range(4))], 'row 1 of .* has "\\?", which is no number'),
            ([list("abcd"), [0, 1, 1, 1], *([0, 1] for _ in range(3))], "row 2 of .* has 2 numbers, the header 4"),
        ],
    )
    def test_tables_that_are_none(self, tmp_path, rows, said):
        with pytest.raises(UserError, match=said):
            read_rdm(written(tmp_path, rows))

    def test_files_that_are_none(self, tmp_path):
        with pytest.raises(UserError, match="does not exist"):
            read_rdm(tmp_path / "none.npy")
        (tmp_path / "rdm.mat").write_bytes(b"x")
        with pytest.raises(UserError, match=r'dissimilarities come as \.npy or \.csv, not "\.mat"'):
            read_rdm(tmp_path / "rdm.mat")
        (tmp_path / "bad.npy").write_bytes(b"x" * 100)
        with pytest.raises(UserError, match="is not a plain array"):
            read_rdm(tmp_path / "bad.npy")

    def test_a_file_that_changed_is_read_anew(self, tmp_path):
        assert read_rdm(saved(tmp_path, matrix())).n == 6
        assert read_rdm(saved(tmp_path, matrix(7))).n == 7


class TestFindingImages:
    def store(self, tmp_path, n=8, groups=None, rated=None):
        factors = None
        if rated is not None:
            factors = np.full((n, 1), np.nan, np.float32)
            factors[rated, 0] = np.arange(len(rated))
        more = {} if factors is None else {"factors_NF": factors, "factors": ("one",)}
        return store_of(tmp_path, np.zeros(n, int), ["thing"], groups=groups, **more)

    def test_by_name_in_any_order_with_what_does_not_match_named(self, tmp_path):
        store = self.store(tmp_path)
        names = ["i0003.png", "pics/i0001", "x1", "i0000", "i0007", "x2", "x3", "x4", "x5", "x6"]
        rdm = read_rdm(written(tmp_path, table(names, matrix(10))))
        found = match_rdm(rdm, store, 100)
        assert found.rows.tolist() == [3, 1, 0, 7]
        assert found.kept.tolist() == [0, 1, 3, 4]
        assert found.notes == ("fmri: 6 names left out, no image of made: x1, x2, x3, x4, x5 and 1 more",)

    def test_a_concept_stands_for_its_rated_image_else_its_first(self, tmp_path):
        groups = ["cat", "cat", "dog", "dog", "owl", "owl", "emu", "emu"]
        store = self.store(tmp_path, groups=groups, rated=[1, 6])
        found = match_rdm(read_rdm(written(tmp_path, table(["owl", "cat", "emu", "dog"], matrix(4)))), store, 100)
        assert found.rows.tolist() == [4, 1, 6, 2]

    def test_an_image_named_twice_is_left_out_and_said(self, tmp_path):
        names = ["i0000", "i0001", "i0002", "i0003", "i0003.jpg"]
        found = match_rdm(read_rdm(written(tmp_path, table(names, matrix(5)))), self.store(tmp_path), 100)
        assert found.rows.tolist() == [0, 1, 2, 3]
        assert "1 name left out, of several images, or an image twice: i0003.jpg" in found.notes[0]

    def test_without_names_by_number_all_images_or_the_rated(self, tmp_path):
        store = self.store(tmp_path, n=8, rated=[1, 2, 3, 5, 7])
        assert match_rdm(read_rdm(saved(tmp_path, matrix(8))), store, 100).rows.tolist() == list(range(8))
        assert match_rdm(read_rdm(saved(tmp_path, matrix(5))), store, 100).rows.tolist() == [1, 2, 3, 5, 7]
        with pytest.raises(UserError, match="has 6 rows and made has 8 images, 5 of them rated; a CSV with"):
            match_rdm(read_rdm(saved(tmp_path, matrix(6))), store, 100)

    def test_too_few_and_too_many(self, tmp_path):
        store = self.store(tmp_path)
        with pytest.raises(UserError, match="is about 3 images of made; 4 are needed"):
            match_rdm(read_rdm(written(tmp_path, table(["i0000", "i0001", "i0002", "x"], matrix(4)))), store, 100)
        found = match_rdm(read_rdm(saved(tmp_path, matrix(8))), store, 5)
        assert (found.rows.tolist(), len(found.notes)) == ([0, 2, 4, 5, 7], 1)
