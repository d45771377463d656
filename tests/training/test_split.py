import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.training
pytest.importorskip("sklearn")

from facemask.errors import InputError  # noqa: E402
from facemask.training.crops import Crop, FacePatch  # noqa: E402
from facemask.training.report import accuracy_report, accuracy_with_interval, one_crop_per_face, split_report  # noqa: E402
from facemask.training.split import Split, group_near_duplicates, shared_groups, split_by_group, split_crops  # noqa: E402

PATCH = FacePatch(np.zeros((8, 8, 3), np.uint8), (0, 0, 8, 8))


def crops_of(labels: str) -> list[Crop]:
    """Return one crop per letter, each of a photo of its own."""
    return [Crop(PATCH, label, Path(f"{number}.jpg"), number) for number, label in enumerate(labels)]


def test_group_near_duplicates():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(6, 64))
    features[4] = features[1] * 3 + rng.normal(0, 0.01, 64)
    groups = group_near_duplicates(features, ["a", "b", "c", "a", "d", "e"])
    same = {(i, j) for i in range(6) for j in range(i) if groups[i] == groups[j]}
    assert same == {(3, 0), (4, 1)}


def test_split_by_group_keeps_groups_together():
    labels = np.tile([0, 1, 1], 100)
    groups = np.arange(300) // 3
    split = split_by_group(labels, groups, seed=1)
    splits = list(asdict(split).values())
    assert sorted(np.concatenate(splits)) == list(range(300))
    assert [len(indices) for indices in splits] == [240, 30, 30]
    for indices in splits:
        others = np.setdiff1d(np.arange(300), indices)
        assert not set(groups[indices]) & set(groups[others])
        assert labels[indices].mean() == pytest.approx(2 / 3)
    names = np.array(split.names(300))
    assert all((names[indices] == name).all() for name, indices in asdict(split).items())


def test_split_by_group_is_repeatable():
    labels, groups = np.tile([0, 1], 50), np.arange(100)
    np.testing.assert_array_equal(split_by_group(labels, groups, 3).test, split_by_group(labels, groups, 3).test)
    assert not np.array_equal(split_by_group(labels, groups, 3).test, split_by_group(labels, groups, 4).test)


def test_split_crops_uses_the_lowest_threshold_that_leaves_enough_groups():
    rng = np.random.default_rng(0)
    crops = crops_of("ab" * 40)
    features = rng.normal(size=(80, 64))
    assert split_crops(features, crops, "ab", 0)[2] == 0.86
    similar = features * 0.4 + 1  # as photos of one person from one camera: cosines about 0.86
    split, _, threshold = split_crops(similar, crops, "ab", 0)
    assert threshold > 0.86
    assert all({crops[index].label for index in indices} == {"a", "b"} for indices in asdict(split).values())


@pytest.mark.parametrize(
    ("labels", "classes", "found"),
    [
        pytest.param("m" * 30 + "f" * 6, "mf", "m 30, f 6", id="few"),
        pytest.param("m" * 30 + "f" * 30, "mfn", "m 30, f 30, n 0", id="none of a class could be read"),
    ],
)
def test_split_crops_of_too_few(labels, classes, found):
    features = np.random.default_rng(0).normal(size=(len(labels), 64))
    with pytest.raises(InputError) as error:
        split_crops(features, crops_of(labels), classes, 0)
    expected = f"dataset: too few photos that differ ({found}; near-duplicates count once); give 10 or more, better hundreds, of each class"
    assert str(error.value) == expected


def test_one_crop_per_face_is_the_last():
    crops = [Crop(PATCH, "a", Path("a.jpg"), face_id) for face_id in (0, 0, 1, 2, 2)]
    assert one_crop_per_face(crops, np.array([0, 1, 2, 4])).tolist() == [1, 2, 4]


def test_split_report_counts_faces_of_the_test_split_once():
    crops = [Crop(PATCH, label, Path("a.jpg"), face_id) for label, face_id in (("a", 0), ("a", 0), ("b", 1), ("b", 1), ("b", 2))]
    split = Split(np.array([0, 1]), np.array([2]), np.array([3, 4]))
    lines = split_report(crops, split, np.array([0, 0, 1, 1, 1]), ["a", "b"]).splitlines()
    assert [line.split() for line in lines[:3]] == [["train", "validation", "test"], ["a", "2", "0", "0"], ["b", "0", "1", "2"]]
    assert "2 groups of near-duplicates" in lines[-1]


def test_accuracy_report_of_three_classes_one_of_them_background():
    crops = [
        Crop(PATCH, label, Path(folder, "a.jpg"), number)
        for number, (label, folder) in enumerate(
            [("background", "x"), ("with_mask", "x"), ("with_mask", "y"), ("without_mask", "y")]
        )
    ]
    classes = ["background", "with_mask", "without_mask"]
    text, confusion = accuracy_report(crops, np.array([0, 0, 1, 1]), classes, [Path("x"), Path("y"), Path("z")])
    assert confusion.tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert text.splitlines()[-2:] == ["  x: accuracy 0.5000 on 2 faces", "  y: accuracy 0.5000 on 2 faces"]
    text, _ = accuracy_report(crops, np.array([0, 0, 1, 1]), classes, [Path("x"), Path("y")], before=np.array([0, 1, 1, 2]))
    assert text.splitlines()[-2:] == [
        "  x: accuracy 0.5000 on 2 faces, 1.0000 before this training",
        "  y: accuracy 0.5000 on 2 faces, 1.0000 before this training",
    ]


def test_one_huge_group_is_learnt_from():
    labels = np.repeat([0, 1], 100)
    groups = np.concatenate([np.zeros(80), np.arange(1, 21), np.arange(101, 201)]).astype(int)
    split = split_by_group(labels, groups, seed=1)
    assert set(range(80)) <= set(split.train.tolist())
    assert min(len(split.validation), len(split.test)) >= 10


def test_no_class_loses_a_split_to_groups_of_very_different_sizes():
    labels = np.tile([0, 1], 94)
    groups = np.concatenate([np.repeat(np.arange(8), 22), np.arange(100, 112)])  # two of ten folds have few crops
    split = split_by_group(labels, groups, seed=2)
    for indices, least in ((split.train, 0.7), (split.validation, 0.05), (split.test, 0.05)):
        for label in (0, 1):
            assert np.sum(labels[indices] == label) / np.sum(labels == label) >= least


@pytest.mark.parametrize("seed", range(5))
def test_twenty_photos_of_a_class_are_spread(seed):
    """One class had 8 / 2 / 10 photos in the splits: ten near-duplicates were the test."""
    labels = np.repeat([0, 1], 20)
    groups = np.concatenate([np.zeros(10), np.arange(1, 11), np.arange(20, 40)]).astype(int)
    split = split_by_group(labels, groups, seed)
    counts = [[int(np.sum(labels[indices] == label)) for indices in asdict(split).values()] for label in (0, 1)]
    assert all(train >= 14 and 1 <= validation <= 4 and 1 <= test <= 4 for train, validation, test in counts), counts


def with_splits(labels: str, splits: list[str]) -> list[Crop]:
    return [replace(crop, split=split) for crop, split in zip(crops_of(labels), splits, strict=True)]


def test_given_splits_are_kept():
    splits = ["train"] * 20 + ["validation"] * 4 + ["test"] * 4
    crops = with_splits("ab" * 14, splits)
    features = np.tile(np.eye(28), 1)
    features[26] = features[0]  # a test face that is learnt from
    split, groups, _ = split_crops(features, crops, "ab", 0)
    assert split.names(28) == splits
    assert shared_groups(split, groups) == 1
    assert "1 of them in two splits" in split_report(crops, split, groups, "ab")


def test_what_given_splits_lack_is_taken_from_training():
    crops = with_splits("ab" * 60, ["train"] * 100 + ["test"] * 20)
    split, _, _ = split_crops(np.eye(120), crops, "ab", 0)
    assert set(split.test.tolist()) == set(range(100, 120))
    assert set(split.train.tolist()) | set(split.validation.tolist()) == set(range(100))
    assert 8 <= len(split.validation) <= 12


def test_a_data_set_without_splits_beside_one_with_them():
    crops = with_splits("ab" * 70, [""] * 100 + ["train"] * 20 + ["validation"] * 10 + ["test"] * 10)
    split, _, _ = split_crops(np.eye(140), crops, "ab", 0)
    names = split.names(140)
    assert names[100:] == [crop.split for crop in crops[100:]]
    assert {name: names[:100].count(name) for name in ("train", "validation", "test")} == {
        "train": 80, "validation": 10, "test": 10,
    }  # fmt: skip


def test_accuracy_of_few_faces_has_an_interval(caplog):
    assert accuracy_with_interval(np.array([[29, 1], [0, 30]]), ["a", "b"]) == "Accuracy 0.9833 on 60 faces"
    assert not caplog.records
    text = accuracy_with_interval(np.array([[10, 0], [0, 2]]), ["a", "b"])
    assert text == "Accuracy 1.0000 on 12 faces (95 % interval: 0.7575 to 1.0000)"  # Wilson: 12 / (12 + 1.96^2)
    assert [record.message for record in caplog.records] == [
        "few faces in the test split (a 10, b 2): its accuracy says little; give more photos"
    ]


def test_features_that_make_all_faces_alike_leave_the_photos_to_group_by():
    crops = crops_of("a" * 50 + "b" * 50)
    features = np.repeat([[1.0, 0.0], [0.0, 1.0]], 50, axis=0)
    split, groups, threshold = split_crops(features, crops, ["a", "b"], seed=1)
    assert threshold == math.inf
    assert len(np.unique(groups)) == 100
    assert len(split.train) >= 70
