"""Augmentation, targets, class weights and the order of batches."""

import dataclasses

import numpy as np
import pytest

from ferlib import batches
from ferlib.backend import keras
from ferlib.batches import Augmentation

NOTHING = Augmentation(
    flip=False, shift=0, rotation=0, zoom=0, brightness=0, contrast=0, erase=0, sharp=0
)  # fmt: skip


def change(**fields):
    return Augmentation(**{**NOTHING.__dict__, **fields})


def test_no_augmentation_changes_no_pixel(faces):
    assert np.array_equal(batches.augment(faces.images[:16], NOTHING), faces.images[:16])


def test_flip_mirrors_about_half_of_the_pictures_exactly(faces):
    images = faces.images[:200]
    flipped = batches.augment(images, change(flip=True), seed=1)
    same = (flipped == images).all(axis=(1, 2))
    mirrored = (flipped == images[:, :, ::-1]).all(axis=(1, 2))
    assert (same | mirrored).all()
    assert 60 < mirrored.sum() < 140


def test_shift_moves_a_dot_no_farther_than_asked():
    images = np.zeros((200, 48, 48), "uint8")
    images[:, 24, 24] = 255
    moved = batches.augment(images, change(shift=0.1), seed=0)
    rows, columns = zip(*(np.unravel_index(m.argmax(), m.shape) for m in moved), strict=True)
    farthest = max(np.abs(np.array(rows) - 24).max(), np.abs(np.array(columns) - 24).max())
    assert farthest == 5  # 0.1 of 48 pixels, rounded


def test_sharp_pictures_are_only_moved_by_whole_pixels(faces):
    images = np.random.default_rng(0).integers(0, 256, (60, 48, 48), "uint8")
    strong = change(shift=0.1, rotation=20, zoom=0.2)
    for share in (1.0, 0.5):
        changed = batches.augment(images, dataclasses.replace(strong, sharp=share), seed=0)
        moves = [(dy, dx) for dy in range(-5, 6) for dx in range(-5, 6)]
        inner = np.s_[6:42, 6:42]
        exact = sum(
            any((np.roll(old, move, (0, 1))[inner] == new[inner]).all() for move in moves)
            for old, new in zip(images, changed, strict=True)
        )
        assert exact == 60 if share == 1 else 20 < exact < 40


@pytest.mark.parametrize("channels", [1, 3])
def test_whole_pixels_move_as_interpolation_moves_them(channels):
    images = np.random.default_rng(0).integers(0, 256, (60, 48, 40, channels), "uint8")
    layer = batches.Augmenter(change(shift=0.2, flip=True, sharp=1.0))
    numbers = np.random.default_rng(1).uniform(-1, 1, (60, 14)).astype("float32")
    numbers, given = map(keras.ops.convert_to_tensor, (numbers, images))
    shifted = keras.ops.convert_to_numpy(layer._shifted(given, numbers))
    maps = layer._affine(numbers, 48, 40)
    moved = keras.ops.convert_to_numpy(batches._moved(keras.ops.cast(given, "float32"), maps))
    np.testing.assert_array_equal(shifted, moved.round())
    assert (shifted != images).any(axis=(1, 2, 3)).all()


def test_rotation_by_half_a_turn_stays_within_half_a_turn():
    images = np.zeros((50, 48, 48), "uint8")
    images[:, 20:28, 30:38] = 200
    turned = batches.augment(images, change(rotation=180), seed=0).astype(float)
    rows, columns = np.mgrid[:48, :48] - 23.5
    mass = turned.sum(axis=(1, 2))
    radius = np.hypot((turned * rows).sum((1, 2)) / mass, (turned * columns).sum((1, 2)) / mass)
    np.testing.assert_allclose(radius, 10.0, atol=0.5)


def test_zoom_keeps_the_centre_and_changes_the_size():
    images = np.zeros((100, 48, 48), "uint8")
    images[:, 16:32, 16:32] = 255
    area = (batches.augment(images, change(zoom=0.5), seed=0) > 127).sum(axis=(1, 2)) / 256
    assert 0.3 < area.min() < 0.7 and 1.5 < area.max() < 2.7  # 1/1.5² to 1.5², in whole pixels


def test_erasing_touches_the_share_of_pictures_asked_for():
    images = np.full((400, 48, 48), 77, "uint8")
    erased = (batches.augment(images, change(erase=0.5), seed=0) != 77).any(axis=(1, 2))
    assert 150 < erased.sum() < 250


def test_augmented_pictures_stay_uint8_and_repeat_with_the_seed(faces):
    strong = Augmentation(brightness=0.5, contrast=0.9, erase=1.0)
    once, again = (batches.augment(faces.images[:8], strong, seed=3) for _ in range(2))
    other = batches.augment(faces.images[:8], strong, seed=4)
    assert once.dtype == np.uint8 and np.array_equal(once, again)
    assert not np.array_equal(once, other)


def test_a_strength_out_of_range_is_refused():
    with pytest.raises(ValueError, match="shift is 2; it must lie in 0 to 0.5"):
        Augmentation(shift=2)


def test_targets_blend_labels_with_votes():
    votes = np.zeros((3, 10), "float32")
    votes[0, [1, 0]] = 8, 2  # happiness, neutral
    votes[1, 9] = 10  # no face: the label alone is left
    votes[2, 7] = 10  # contempt is none of the seven
    made = batches.targets([6, 2, 0], votes, ferplus_weight=0.5)
    np.testing.assert_allclose(made[0], [0, 0, 0, 0.4, 0, 0, 0.6], atol=1e-6)
    np.testing.assert_array_equal(made[1:], np.eye(7)[[2, 0]])
    with pytest.raises(ValueError, match="fer2013new.csv"):
        batches.targets([6], ferplus_weight=0.5)


def test_an_answer_of_one_tagger_alone_is_no_vote():
    votes = np.zeros((2, 10), "float32")
    votes[0, [1, 0, 3, 9]] = 6, 2, 1, 1
    votes[1, [0, 1, 2, 3]] = 1  # nothing is left but the label
    made = batches.targets([4, 4], votes, ferplus_weight=1.0)
    np.testing.assert_allclose(made, [[0, 0, 0, 0.75, 0, 0, 0.25], np.eye(7)[4]])


def test_votes_go_to_classes_by_their_names():
    votes = np.zeros((3, 10), "float32")
    votes[:, [1, 7, 0]] = 4, 4, 2  # happiness, contempt, neutral
    eight = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral", "contempt")
    made = batches.targets([7, 3, 0], votes, classes=eight, ferplus_weight=1.0)
    np.testing.assert_allclose(made, [[0, 0, 0, 0.4, 0, 0, 0.2, 0.4]] * 3, atol=1e-6)
    made = batches.targets([0, 1, 2], votes, classes=("neutral", "glad", "Happy"), ferplus_weight=1)
    np.testing.assert_allclose(made, [[1 / 3, 0, 2 / 3], [0, 1, 0], [1 / 3, 0, 2 / 3]], atol=1e-6)
    made = batches.targets([0, 1, 1], votes, classes=("negative", "positive"), ferplus_weight=1.0)
    np.testing.assert_array_equal(made, np.eye(2)[[0, 1, 1]])


def test_targets_and_weights_of_other_classes():
    made = batches.targets([7, 0], classes=8)
    np.testing.assert_array_equal(made, np.eye(8)[[7, 0]])
    votes = np.zeros((2, 10), "float32")
    votes[:, 1] = 5
    blended = batches.targets([6, 0], votes, classes=7, ferplus_weight=0.5)
    np.testing.assert_array_equal(blended[:, 3], [0.5, 0.5])
    assert batches.class_weights([0, 1, 1], classes=3) == {0: 1.5, 1: 0.75, 2: 1.0}


def test_class_weights_balance_the_labels():
    labels = np.repeat([0, 1, 3], [60, 10, 30])
    weights = batches.class_weights(labels)
    totals = [weights[label] * (labels == label).sum() for label in (0, 1, 3)]
    np.testing.assert_allclose(totals, 100 / 3)
    assert weights[6] == 1.0


def test_an_epoch_repeats_and_the_next_one_differs(faces):
    def epoch(number, mixup=0.2):
        feed = batches.Batches(
            faces.images, np.eye(7, dtype="float32")[faces.labels], batch_size=64, mixup=mixup
        )
        feed.start_epoch(number)
        return [feed[i] for i in range(len(feed))]

    for (x, y), (again_x, again_y) in zip(epoch(1), epoch(1), strict=True):
        assert np.array_equal(x, again_x) and np.array_equal(y, again_y)
    assert not np.array_equal(epoch(0)[0][0], epoch(1)[0][0])
    labels = np.concatenate([y for _, y in epoch(0, mixup=0)])
    assert len(labels) == len(faces) // 64 * 64 and set(labels.sum(axis=1)) == {1.0}


def test_mixup_blends_pictures_and_targets_alike():
    images = np.stack([np.zeros((48, 48)), np.full((48, 48), 200)] * 8).astype("uint8")
    hot = np.eye(7, dtype="float32")[[0, 1] * 8]
    x, y = batches.Batches(images, hot, batch_size=16, mixup=1.0)[0]
    np.testing.assert_allclose(x[:, 0, 0, 0] / 200, y[:, 1], atol=0.01)
    assert ((y > 0.05) & (y < 0.95)).any()
