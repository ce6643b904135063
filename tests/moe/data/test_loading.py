"""From stores to batches: pixels, statistics, order."""

from collections.abc import Iterable
from itertools import chain

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from moe.config import RunConfig, from_flat
from moe.data.loading import Batch, EpochBatches, InOrder, Pixels, RunData, Share, load_pixels, load_run_data, resized
from moe.data.store import Images, ImageStore, write_store
from moe.errors import UserError


def store(
    name: str, images: np.ndarray, labels: list[int] | None = None, classes: tuple[str, ...] = ("cat", "dog")
) -> ImageStore:
    ids = [str(number) for number in range(len(images))]
    labels_N = None if labels is None else np.array(labels)
    return write_store(name, Images(images, ids, "test", labels_N, classes if labels else ()))


def noise(count: int, size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def pixels(count: int, size: int = 16) -> Pixels:
    images = torch.from_numpy(noise(count, size)).permute(0, 3, 1, 2)
    return Pixels(images, torch.arange(count) % 3, (0.5,) * 3, (0.2,) * 3, "", ("a", "b", "c"))


def config(**changes: object) -> RunConfig:
    flat = {"data.name": "a", "data.image_size": 16, "train.batch_size": 4}
    return from_flat(flat | {path.replace("__", "."): value for path, value in changes.items()})


def one_epoch(count: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    batches = EpochBatches(count, batch_size, seed)
    batches.set_epoch(epoch)
    return lists(batches)


def lists(batches: Iterable[torch.Tensor]) -> list[list[int]]:
    return [batch.tolist() for batch in batches]


CPU = torch.device("cpu")


class TestEpochBatches:
    @pytest.mark.parametrize(("count", "size", "batches"), [(40, 8, 5), (43, 8, 5), (47, 8, 5), (8, 8, 1), (7, 8, 0)])
    def test_every_image_once_and_the_last_smaller_batch_left_out(self, count: int, size: int, batches: int) -> None:
        order = one_epoch(count, size, 0, 0)
        assert len(order) == len(EpochBatches(count, size, 0)) == batches
        assert all(len(batch) == size for batch in order)
        places = [place for batch in order for place in batch]
        assert len(set(places)) == len(places) == batches * size
        assert set(places) <= set(range(count))

    def test_order_depends_on_seed_and_epoch_alone(self) -> None:
        used = EpochBatches(50, 5, 3)
        for epoch in (0, 1, 2):
            used.set_epoch(epoch)
            list(used)
        torch.manual_seed(99)
        used.set_epoch(1)  # as when a run resumes
        assert lists(used) == one_epoch(50, 5, 3, 1)
        assert lists(used) == lists(used)

    @pytest.mark.parametrize("skip", [0, 1, 9])
    def test_batches_done_before_a_checkpoint_are_skipped_once(self, skip: int) -> None:
        used = EpochBatches(50, 5, 3, skip=skip)
        used.set_epoch(2)
        assert len(used) == 10
        assert lists(used) == one_epoch(50, 5, 3, 2)[skip:]
        used.set_epoch(3)
        assert lists(used) == one_epoch(50, 5, 3, 3)

    @pytest.mark.parametrize("of", [2, 3, 6])
    def test_processes_share_each_batch(self, of: int) -> None:
        parts = [lists(EpochBatches(40, 6, 0, Share(rank, of))) for rank in range(of)]
        assert [[*chain(*batch)] for batch in zip(*parts, strict=True)] == one_epoch(40, 6, 0, 0)
        assert {len(batch) for part in parts for batch in part} == {6 // of}

    def test_seeds_and_epochs_differ_also_crosswise(self) -> None:
        orders = {str(one_epoch(50, 5, seed, epoch)) for seed in range(4) for epoch in range(4)}
        assert len(orders) == 16

    def test_iterating_leaves_torchs_generator_alone(self) -> None:
        before = torch.get_rng_state()
        one_epoch(50, 5, 0, 0)
        assert torch.equal(torch.get_rng_state(), before)

    def test_which_images_are_left_out_changes(self) -> None:
        left_out = [set(range(11)) - {p for batch in one_epoch(11, 5, 0, epoch) for p in batch} for epoch in range(30)]
        assert len(set.union(*left_out)) > 6


class TestInOrder:
    @pytest.mark.parametrize(
        ("count", "size", "parts"), [(40, 8, 5), (43, 8, 5), (44, 8, 6), (9, 8, 1), (3, 8, 1), (1000, 256, 4)]
    )
    def test_all_in_order_in_nearly_equal_batches(self, count: int, size: int, parts: int) -> None:
        batches = lists(InOrder(count, size))
        assert [place for batch in batches for place in batch] == list(range(count))
        assert len(batches) == len(InOrder(count, size)) == parts
        sizes = [len(batch) for batch in batches]
        assert max(sizes) - min(sizes) <= 1
        assert max(sizes) <= 1.5 * size

    def test_processes_share_each_batch(self) -> None:
        parts = [lists(InOrder(23, 8, Share(rank, 3))) for rank in range(3)]
        assert [[*chain(*batch)] for batch in zip(*parts, strict=True)] == lists(InOrder(23, 8))
        sizes = [len(batch) for part in parts for batch in part]
        assert max(sizes) - min(sizes) <= 1

    def test_many_shapes(self) -> None:
        for count in range(1, 60):
            for size in range(1, 20):
                sizes = [len(batch) for batch in InOrder(count, size)]
                assert sum(sizes) == count
                assert max(sizes) - min(sizes) <= 1
                assert min(sizes) > 0


class TestResized:
    def test_native_size_is_unchanged(self) -> None:
        images = noise(5, 16)
        x = resized([store("a", images)], 16)
        assert x.dtype == torch.uint8
        np.testing.assert_array_equal(x.permute(0, 2, 3, 1).numpy(), images)

    @pytest.mark.parametrize(("native", "size"), [(40, 16), (33, 17), (16, 24), (64, 63)])
    def test_equals_pil_within_one_grey_level(self, native: int, size: int) -> None:
        images = noise(4, native)
        x = resized([store("a", images)], size)
        assert x.shape == (4, 3, size, size)
        for image, ours in zip(images, x, strict=True):
            expected = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
            assert np.abs(ours.permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1

    def test_equals_torch_over_several_pieces(self) -> None:
        images = noise(1100, 20)
        x = resized([store("a", images)], 16)
        whole = torch.from_numpy(images).permute(0, 3, 1, 2).double()
        expected = F.interpolate(whole, (16, 16), mode="bilinear", antialias=True, align_corners=False)
        assert (x.double() - expected).abs().max() <= 0.5 + 1e-3  # rounded, not cut off

    @pytest.mark.parametrize("value", [0, 200, 255])
    def test_a_uniform_image_stays_so(self, value: int) -> None:
        assert (resized([store("a", np.full((2, 40, 40, 3), value, np.uint8))], 16) == value).all()


class TestLoadPixels:
    def test_pooled_statistics_are_those_of_all_pixels(self) -> None:
        first, second = noise(30, 20), noise(7, 20, seed=1) // 3
        read = load_pixels([store("a", first), store("b", second)], 16)
        whole = np.concatenate([first, second]).reshape(-1, 3) / 255
        np.testing.assert_allclose(read.mean, whole.mean(axis=0), rtol=1e-10)
        np.testing.assert_allclose(read.sd, whole.std(axis=0), rtol=1e-10)

    @pytest.mark.parametrize("count", [1, 7])
    def test_a_constant_channel_has_sd_0(self, count: int) -> None:
        for value in range(0, 256, 5):
            images = noise(count, 4)
            images[..., 1] = value
            read = load_pixels([write_store("a", Images(images, list("abcdefg")[:count], "t"), replace=True)], 4)
            assert read.sd[1] == pytest.approx(0, abs=1e-7), value
            assert read.sd[0] > 0.1

    def test_images_are_joined_in_order(self) -> None:
        first, second = noise(3, 16), noise(2, 16, seed=1)
        a, b = store("a", first, [0, 1, -1]), store("b", second, [1, 0])
        read = load_pixels([a, b], 16)
        joined = np.concatenate([first, second]).transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(read.images_NCSS.numpy(), joined)
        assert read.labels_N.tolist() == [0, 1, -1, 1, 0]
        assert read.labels_N.dtype == torch.int64
        assert read.classes == ("cat", "dog")
        assert read.digest == f"{a.digest()}+{b.digest()}"

    def test_stores_of_different_native_sizes(self) -> None:
        read = load_pixels([store("a", noise(2, 16)), store("b", noise(3, 40))], 24)
        assert read.images_NCSS.shape == (5, 3, 24, 24)

    @pytest.mark.parametrize(
        ("labels", "classes"), [([0, 1], ("cat", "cow")), ([0, 1], ("dog", "cat")), (None, ())], ids=str
    )
    def test_labels_are_dropped_where_classes_differ(self, labels: list[int] | None, classes: tuple[str, ...]) -> None:
        a, b = store("a", noise(2, 16), [0, 1]), store("b", noise(2, 16), labels, classes)
        read = load_pixels([a, b], 16)
        assert read.labels_N.tolist() == [-1] * 4
        assert read.classes == ()


class TestLoaders:
    def test_batches_are_uint8_images_with_labels_and_places(self) -> None:
        data = RunData(pixels(18), pixels(10))
        train, validation = data.loaders(config(), CPU)
        for loader, expected, count in ((train, data.train, 16), (validation, data.validation, 10)):
            seen = 0
            for batch in loader:
                assert isinstance(batch, Batch)
                assert batch.images.dtype == torch.uint8
                assert batch.images.shape[1:] == (3, 16, 16)
                assert batch.labels.dtype == batch.places.dtype == torch.int64
                assert torch.equal(batch.images, expected.images_NCSS[batch.places])
                assert torch.equal(batch.labels, expected.labels_N[batch.places])
                seen += len(batch.places)
            assert seen == count

    def test_training_is_shuffled_by_the_runs_seed_and_validation_is_not(self) -> None:
        data = RunData(pixels(16), pixels(10))
        places = []
        for seed in (0, 0, 1):
            train, validation = data.loaders(config(seed=seed), CPU)
            places.append(torch.cat([batch.places for batch in train]).tolist())
            assert torch.cat([batch.places for batch in validation]).tolist() == list(range(10))
        assert places[0] == places[1] != places[2]
        assert places[0] != sorted(places[0])

    def test_set_epoch_reaches_the_order(self) -> None:
        train, _ = RunData(pixels(16), pixels(4)).loaders(config(), CPU)
        train.sampler.set_epoch(1)
        assert [batch.places.tolist() for batch in train] == one_epoch(16, 4, 0, 1)

    def test_more_images_a_batch_than_there_are(self) -> None:
        store("a", noise(5, 16), [0, 1, 0, 1, 0])
        with pytest.raises(UserError, match=r"train\.batch_size=6 exceeds the 5 images of a"):
            load_run_data(config(train__batch_size=6))
        assert len(load_run_data(config(train__batch_size=5)).loaders(config(train__batch_size=5), CPU)[0]) == 1

    def test_images_may_stay_on_the_device(self) -> None:
        device = torch.device("meta")  # a device that is not the CPU, without its arithmetic
        train, _ = RunData(pixels(16), pixels(4)).loaders(config(machine__images="device"), device)
        assert train.dataset.images_NCSS.device == device
        batch = next(iter(train))
        assert batch.images.device == device
        assert batch.places.device == CPU
        train, _ = RunData(pixels(16), pixels(4)).loaders(config(), CPU)
        assert train.dataset.images_NCSS.device == CPU

    def test_run_data_is_read_at_the_runs_size(self) -> None:
        store("a", noise(6, 24), [0, 1] * 3)
        store("b", noise(2, 20), [0, 1])
        data = load_run_data(config(data__name="a+b", data__validation="b"))
        assert data.train.images_NCSS.shape == (8, 3, 16, 16)
        assert data.validation.images_NCSS.shape == (2, 3, 16, 16)
        assert data.train.classes == ("cat", "dog")
