"""How many images keep their set of experts."""

import csv

import numpy as np
import pytest

from callbacks.files import RoutingFolder
from callbacks.saturation import RoutingSaturation, saturation, write_saturation
from tests.callbacks.foreign import COUNT, Foreign, chosen, loader, logged, run, trainer_of


class Moving(Foreign):
    """Routes the clean images by another table in every epoch; the order within a row changes too."""

    def __init__(self, tables):
        super().__init__([tables[0]] * 3)
        self.tables = tables

    def on_validation_epoch_start(self):
        epoch = 0 if self.trainer.state.fn == "validate" else self.current_epoch + 1
        self.validation = [chosen(1), chosen(2), self.tables[epoch][:, :: -1 if epoch % 2 else 1].copy()]


TABLES = [chosen(seed) for seed in (10, 20, 30)]


def slow_share(one, other):
    return sum(set(a) == set(b) for a, b in zip(one.tolist(), other.tolist(), strict=True)) / COUNT


def trained(tmp_path, callback, module):
    trainer = trainer_of([callback], tmp_path)
    trainer.validate(module, loader(), verbose=False)
    assert "routing/saturation" not in logged(trainer)
    trainer.fit(module, loader(), loader())
    return trainer


def test_sets_of_an_epoch_are_compared_with_those_before_and_of_the_end(tmp_path):
    folder = RoutingFolder(tmp_path / "routing")
    trainer = trained(tmp_path, RoutingSaturation(folder), Moving(TABLES))
    before, end = slow_share(TABLES[1], TABLES[2]), slow_share(TABLES[0], TABLES[2])
    assert logged(trainer)["routing/saturation"] == pytest.approx(before)
    write_saturation(folder, 2)
    header, *rows = csv.reader(folder.saturation.read_text().splitlines())
    assert header == ["epoch", "before", "end"]
    assert [row[0] for row in rows] == ["0", "1", "2"]
    assert rows[0][1] == ""
    assert [float(row[2]) for row in rows] == pytest.approx([end, before, 1.0])
    assert float(rows[2][1]) == pytest.approx(before)


def test_a_resumed_run_knows_the_epoch_before(tmp_path):
    first, second = (RoutingSaturation(RoutingFolder(tmp_path / name)) for name in "ab")
    trained(tmp_path, first, Moving(TABLES))
    second.load_state_dict(first.state_dict())
    module = Moving(TABLES[2:])
    assert logged(run(module, [second], tmp_path))["routing/saturation"] == 1
    assert RoutingSaturation(RoutingFolder(tmp_path)).state_dict() == {}


def test_images_are_compared_by_their_places(tmp_path):
    order = np.random.default_rng(0).permutation(COUNT)

    class Shuffled(Moving):
        """Has its images in another order once it trains."""

        def validation_step(self, batch, batch_idx):
            rows = batch if self.trainer.state.fn == "validate" else batch.new_tensor(order[batch.long()])
            record = super().validation_step(rows, batch_idx)["routing"]
            return {"routing": type(record)(**(vars(record) | {"places_B": rows.long()}))}

    trainer = trained(tmp_path, RoutingSaturation(RoutingFolder(tmp_path)), Shuffled([TABLES[0]] * 3))
    assert logged(trainer)["routing/saturation"] == 1


def test_what_is_missing_or_damaged_is_left_out(tmp_path, caplog):
    folder = RoutingFolder(tmp_path)
    write_saturation(folder, 3)
    assert not folder.saturation.exists()
    for epoch in (0, 2, 3):
        np.save(folder.sets(epoch), np.sort(TABLES[0], axis=1))
    folder.sets(2).write_bytes(b"")
    assert saturation(folder, 3) == [(0, None, 1.0), (1, None, None), (2, None, None), (3, None, 1.0)]
    assert "sets_0002.npy cannot be read" in caplog.text
    for header in (b"{'shape': (2,", b"{'shape': \0}"):
        folder.sets(2).write_bytes(b"\x93NUMPY\x01\x00\x20\x00" + header.ljust(31) + b"\n" + bytes(64))
        assert saturation(folder, 3)[2] == (2, None, None)


@pytest.mark.parametrize(
    "sets", [np.full((COUNT, 2), -2), np.zeros(COUNT, int), np.zeros((COUNT, 2))], ids=["below", "a list", "floats"]
)
def test_files_of_something_else_are_damaged_too(tmp_path, caplog, sets):
    folder = RoutingFolder(tmp_path)
    np.save(folder.sets(0), sets)
    np.save(folder.sets(1), np.sort(TABLES[0], axis=1))
    assert saturation(folder, 1) == [(0, None, None), (1, None, 1.0)]
    assert "sets_0000.npy cannot be read (it holds other things than sets of experts)" in caplog.text
