"""For tests of probes: a subject made of known numbers, and the promises that every probe keeps.

class TestMyProbe(ProbeContract):
    def probe(self) -> Probe:
        return MyProbe()
"""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moe.config import RunConfig, from_flat
from moe.data.readers import no_progress
from moe.data.store import Images, write_store
from probes.activations import Activations
from probes.probe import Probe, Result
from probes.subject import Subject
from sweeps.runs.store import RunStore

CLASSES = ("bird", "cat", "car", "ship")


def example_subject(
    folder: Path,
    *,
    experts: int = 4,
    images: int = 120,
    size: int = 6,
    seed: int = 0,
    dead: tuple[int, ...] = (),
    duplicates: int = 0,
) -> Subject:
    """A run that was never trained, with activations that depend on the classes and dimensions of its images.

    Args:
        folder: the run and its images are written below it.
        experts: number of experts E.
        images: number of images, of four classes and with three rated dimensions.
        size: of a readout.
        seed: of everything drawn, and of the run.
        dead: experts that answer all images alike.
        duplicates: so many images at the end equal the first ones, activations included.
    """
    rng = np.random.default_rng(seed)
    labels_n = np.arange(images) % len(CLASSES)
    factors_nF = np.stack([labels_n < 2, labels_n % 2, rng.random(images)], axis=1) + 0.1 * rng.random((images, 3))
    pictures = np.clip(rng.normal(60 + 40 * labels_n[:, None, None, None], 20, (images, 16, 16, 3)), 0, 255)
    mixing_Fd = rng.normal(size=(experts, 3, size))
    readouts = factors_nF @ mixing_Fd + 0.5 * rng.normal(size=(experts, images, size))
    readouts[list(dead)] = 1.0
    logits = factors_nF @ rng.normal(size=(3, experts)) + 0.3 * rng.normal(size=(images, experts))
    same = np.arange(images)
    same[images - duplicates :] = np.arange(duplicates)
    store = write_store(
        "example",
        Images(
            pictures.astype(np.uint8)[same], [f"image-{n:03d}" for n in range(images)], "drawn",
            labels_n[same], CLASSES,
            factors_nF[same].astype(np.float32), ("animate", "second", "chance"),
            groups=[f"concept {n // 2}" for n in range(images)],
        ),
        folder / "data",
        replace=True,
    )  # fmt: skip
    run = RunStore(folder / "runs").create(_config(experts, seed))
    return Subject(run, store, _activations(logits[same], readouts[:, same]))


def _config(experts: int, seed: int) -> RunConfig:
    return from_flat({"model.experts": experts, "model.top_k": min(2, experts), "seed": seed, "data.name": "example"})


def _activations(logits_nE: NDArray[np.float64], readouts_EnD: NDArray[np.float64]) -> Activations:
    slots = min(2, logits_nE.shape[1])
    indices_nK = np.argsort(-logits_nE, axis=1, kind="stable")[:, :slots]
    kept = np.exp(np.take_along_axis(logits_nE, indices_nK, axis=1))
    weights_nK = kept / kept.sum(axis=1, keepdims=True)
    return Activations(
        logits_nE.astype(np.float32), indices_nK, weights_nK.astype(np.float32), readouts_EnD.astype(np.float32)
    )


class ProbeContract:
    """The promises that every probe keeps. Subclass it in a test and return the probe from `probe`."""

    def probe(self) -> Probe:
        """The probe under test, with options that make it quick."""
        raise NotImplementedError

    def subject(self, folder: Path, **changes: int | tuple[int, ...]) -> Subject:
        """What it is tested on; another one where the example does not suit the probe."""
        return example_subject(folder, **changes)  # type: ignore[arg-type]

    def test_it_describes_itself_and_its_options(self) -> None:
        """`about` is one line; every option has a default and says what it is."""
        probe = self.probe()
        assert probe.about.strip()
        assert "\n" not in probe.about
        for name, option in type(probe).model_fields.items():
            assert not option.is_required(), name
            assert option.description, name
        assert json.loads(json.dumps(probe.options())) == probe.options()

    def test_it_is_repeatable(self, tmp_path: Path) -> None:
        """Equal options and activations give equal numbers, notes and tables."""
        subject = self.subject(tmp_path)
        folders = [tmp_path / str(time) for time in range(2)]
        results = [self._run(subject, folder) for folder in folders]
        assert results[0] == results[1]
        tables = sorted(file.name for file in folders[0].glob("*.csv"))
        assert tables == sorted(file.name for file in folders[1].glob("*.csv"))
        for table in tables:
            assert (folders[0] / table).read_bytes() == (folders[1] / table).read_bytes(), table

    def test_it_returns_plain_numbers_and_leaves_files(self, tmp_path: Path) -> None:
        """Headline numbers are finite or None, with no `/` in their names; there is a table or figure to look at."""
        result = self._run(self.subject(tmp_path), tmp_path / "results")
        json.dumps(result.numbers, allow_nan=False)
        assert all(isinstance(value, int | float | None) for value in result.numbers.values())
        assert not [name for name in result.numbers if "/" in name], "a figure or table of that name has the key"
        assert {file.suffix for file in (tmp_path / "results").iterdir()} & {".csv", ".png"}

    def test_it_leaves_the_activations_alone(self, tmp_path: Path) -> None:
        """Other probes read the same arrays after it."""
        subject = self.subject(tmp_path)
        before = [np.array(part) for part in _parts(subject)]
        self._run(subject, tmp_path / "results")
        for old, new in zip(before, _parts(subject), strict=True):
            np.testing.assert_array_equal(old, new)

    def test_it_bears_one_expert(self, tmp_path: Path) -> None:
        """E = 1, a plain network."""
        json.dumps(self._run(self.subject(tmp_path, experts=1), tmp_path / "results").numbers, allow_nan=False)

    def test_it_bears_a_dead_expert_and_names_it(self, tmp_path: Path) -> None:
        """An expert with the same readout for all images, as a collapsed one has."""
        result = self._run(self.subject(tmp_path, dead=(2,)), tmp_path / "results")
        json.dumps(result.numbers, allow_nan=False)
        assert any("2" in note for note in result.notes) or not self.names_dead_experts()

    def test_it_bears_duplicate_images(self, tmp_path: Path) -> None:
        """Images that occur twice."""
        json.dumps(self._run(self.subject(tmp_path, duplicates=20), tmp_path / "results").numbers, allow_nan=False)

    def names_dead_experts(self) -> bool:
        """Whether readouts matter to the probe, so that it must say which of them are dead."""
        return True

    def _run(self, subject: Subject, folder: Path) -> Result:
        folder.mkdir(parents=True)
        probe = self.probe()
        reason = probe.skip(subject.store)
        assert reason is None, reason
        return probe.run(subject, folder, no_progress)


def _parts(subject: Subject) -> tuple[NDArray[np.float32] | NDArray[np.int64], ...]:
    found = subject.activations
    return found.logits_nE, found.indices_nK, found.weights_nK, found.readouts_EnD
