"""The study of validity: its sets are what their names say, and its table says how well they are told apart."""

import numpy as np
import pytest

from wristworld_ros.evaluation.studies import validity
from wristworld_ros.pipeline import save_model, tiny_random_model


def pair(seed):
    return np.random.default_rng(seed).integers(0, 256, (2, 48, 64, 3), dtype=np.uint8)


def test_auc_is_the_probability_that_a_good_set_has_the_higher_figure():
    good = np.array([0.9, 0.8])
    assert validity.auc(good, np.array([0.1, 0.2])) == 1
    assert validity.auc(good, good) == 0.5
    assert validity.auc(good, np.array([0.85, 0.85])) == 0.5
    assert validity.auc(good, np.array([0.95])) == 0


def test_spoilt_sets_keep_what_their_name_does_not_mention():
    images, others = pair(0), pair(1)
    sets = dict(validity.spoilt(images, others, np.random.default_rng(0)))
    assert np.array_equal(sets[validity.GOOD], images)
    assert np.array_equal(sets['anchors in the other order'][0], images[1])
    assert np.array_equal(sets['second anchor of another scene'], np.stack([images[0], others[1]]))
    assert np.array_equal(sets['upside down'][0], np.rot90(images[0], 2))
    assert np.array_equal(sets['second anchor upside down'][0], images[0])
    assert not sets['second anchor black'][1].any()
    alone = sets.pop(validity.GOOD + validity.ALONE)
    assert np.array_equal(alone, images[:1])
    assert all(images.shape == spoilt.shape for spoilt in sets.values())


def test_the_table_counts_what_a_threshold_refuses(tmp_path):
    save_model(tiny_random_model(), tmp_path / 'model')
    study = validity.Study(str(tmp_path / 'model'))
    for kind, images in validity.spoilt(pair(0), pair(1), np.random.default_rng(0)):
        study.add(kind, images)
    rows = [line.split(' | ') for line in study.table(agreement=0.001, confidence=1.0).splitlines()[2:]]
    assert len(rows) == 10 and rows[0][0] == f'| {validity.GOOD}' and rows[0][3] == '-'
    assert all(row[4] == '0%' and row[7] == '100%' and row[8] == '100% |' for row in rows)
    assert rows[1][2] == rows[1][3] == '-'  # one anchor agrees with nobody
    assert float(rows[2][3]) == pytest.approx(0.5, abs=0.5)


def test_objects_are_judged_by_their_own_pixels_and_ranks_by_their_order():
    truth = np.zeros((4, 4, 3), np.uint8)
    image, objects = truth.copy(), np.zeros((4, 4), np.uint8)
    image[0] = 255  # wrong where no object is
    image[2, 2] = 51
    assert np.isnan(validity.object_psnr(image, truth, objects))
    objects[2, 2] = 1
    assert validity.object_psnr(image, truth, objects) == pytest.approx(-20 * np.log10(0.2))
    assert validity.rank_correlation(np.array([1, 2, np.nan, 30]), np.array([5, 6, 0, 700])) == pytest.approx(1)
    assert validity.rank_correlation(np.array([1, 2, 3]), np.array([9, 8, 1])) == pytest.approx(-1)
