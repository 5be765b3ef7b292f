"""The probes are compared with brute force in NumPy and with scikit-learn."""

import numpy as np
import pytest
from mindspore import Tensor, nn

from mindcv.engine import features as features_module
from mindcv.engine import probe, softmax_regression
from mindcv.engine.features import FeatureRows, Features, extract_features
from mindcv.engine.probe import check_training_images, knn_probe, linear_probe
from mindcv.engine.softmax_regression import SoftmaxRegression, StandardizedRows, minimize
from mindcv.utils.distributed import Group
from mindcv.utils.errors import UserError


def stored(rows):
    kept = FeatureRows(rows.shape[1])
    kept.append(rows)
    return kept


def clusters(rng, num_images, num_classes=7, num_features=12, spread=1.3):
    """Return features around one centre for each class, and labels."""
    centres = np.random.default_rng(1).standard_normal((num_classes, num_features))
    labels = rng.integers(0, num_classes, num_images)
    rows = centres[labels] + spread * rng.standard_normal((num_images, num_features))
    return rows.astype(np.float32), labels


def knn_by_brute_force(training, labels, queries, num_classes, k):
    """Return the votes [Q, num_classes]."""
    units = [rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1)[:, None]
             for rows in (training, queries)]  # fmt: skip
    cosines = units[1] @ units[0].T
    votes = np.zeros((len(queries), num_classes))
    for query, row in enumerate(cosines):
        for index in sorted(range(len(row)), key=lambda i: (-row[i], i))[:k]:
            votes[query, labels[index]] += np.exp(row[index] / 0.07)
    return votes


@pytest.mark.parametrize("k", [1, 5, 20, 150])
def test_knn_probe_counts_as_brute_force_does(rng, monkeypatch, k):
    monkeypatch.setattr(probe, "_QUERIES", 16)
    monkeypatch.setattr(probe, "_NEIGHBOURS", 32)  # several blocks of both
    training, labels = clusters(rng, 150)
    queries, truth = clusters(rng, 60)
    found = knn_probe(Features(stored(training), labels), Features(stored(queries), truth), 7, k).counts
    votes = knn_by_brute_force(training, labels, queries, 7, k)
    order = np.argsort(-votes, axis=1, kind="stable")
    hits = (order == truth[:, None]) & (np.take_along_axis(votes, order, axis=1) > 0)
    assert (found.num_images, found.num_top1, found.num_top5) == (60, hits[:, 0].sum(), hits[:, :5].sum())
    assert 20 < found.num_top1 < 60
    expected = np.zeros((7, 7), int)
    np.add.at(expected, (truth, order[:, 0]), 1)
    np.testing.assert_array_equal(found.confusion, expected)


def test_knn_neighbours_are_the_same_for_any_size_of_blocks(rng, monkeypatch):
    """Many rows are equal, so that the order of sums and of equal products would show."""
    rows = np.repeat(rng.standard_normal((40, 96)).astype(np.float32), 5, axis=0)[rng.permutation(200)]
    bank, queries = stored(rows), probe._as_integers(rng.standard_normal((30, 96)).astype(np.float32))
    expected = probe._nearest(queries, bank, 17)
    for size in (7, 64):
        monkeypatch.setattr(probe, "_NEIGHBOURS", size)
        parts = [probe._nearest(queries[start : start + 4], bank, 17) for start in range(0, 30, 4)]
        for place in (0, 1):
            np.testing.assert_array_equal(np.concatenate([part[place] for part in parts]), expected[place])
    products = queries.astype(object) @ probe._as_integers(rows).astype(object).T  # exact integers of Python
    for query, (similarities, indices) in enumerate(zip(*expected)):
        nearest = sorted(range(200), key=lambda i: (-products[query, i], i))[:17]
        assert indices.tolist() == nearest
        assert similarities.tolist() == [float(products[query, i]) / 2.0**48 for i in nearest]


def test_knn_probe_takes_a_class_without_votes_for_no_prediction():
    """The only neighbour votes for class 1; classes 0, 2, 3 and 4 have no votes."""
    one = stored(np.float32([[1, 0]]))
    for truth, num_top5 in ((1, 1), (0, 0)):
        found = knn_probe(Features(one, np.array([1])), Features(one, np.array([truth])), 9, 1).counts
        assert (found.num_top1, found.num_top5) == (num_top5, num_top5)


def test_check_training_images_refuses_too_few():
    labels = np.array([0, 0, 1, 1, 2])
    check_training_images("knn", labels, 5)
    with pytest.raises(UserError, match="probe_k is 6, but there are only 5 training images: give --probe_k 5 or less"):
        check_training_images("knn", labels, 6)
    with pytest.raises(UserError, match="each class has fewer than 3 of the 5 training images"):
        check_training_images("linear", labels, 1)
    check_training_images("linear", np.array([0, 0, 0, 1]), 1)


# The linear probe


def test_softmax_regression_finds_the_weights_of_scikit_learn(rng, monkeypatch):
    monkeypatch.setattr(softmax_regression, "_TOLERANCE", 1e-8)
    linear_model = pytest.importorskip("sklearn.linear_model")
    training, labels = clusters(rng, 300)
    l2 = 0.01
    rows = StandardizedRows(stored(training * np.arange(1, 13, dtype=np.float32) + 5), labels, 7)
    regression = SoftmaxRegression(rows.chosen(np.ones(300, bool)), 7, l2)
    regression.fit()
    assert regression.has_converged
    x = training.astype(np.float64) * np.arange(1, 13) + 5
    x = (x - x.mean(0)) / x.std(0)
    other = linear_model.LogisticRegression(C=1 / (l2 * 300), tol=1e-9, max_iter=5000).fit(x, labels)
    np.testing.assert_allclose(regression.weights[:, :-1], other.coef_, atol=1e-4)
    np.testing.assert_allclose(regression.weights[:, -1], other.intercept_ - other.intercept_.mean(), atol=1e-4)


def test_softmax_regression_has_the_gradient_of_its_loss(rng):
    training, labels = clusters(rng, 40)
    regression = SoftmaxRegression(StandardizedRows(stored(training), labels, 7).chosen(labels < 6), 7, 0.1)
    point, direction = rng.standard_normal((2, 7 * 13))
    h = 1e-5
    slope = (regression._loss(point + h * direction)[0] - regression._loss(point - h * direction)[0]) / (2 * h)
    assert regression._loss(point)[1] @ direction == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("is_kept", [True, False])
def test_softmax_regression_reads_rows_in_blocks(rng, monkeypatch, is_kept):
    training, labels = clusters(rng, 90)
    monkeypatch.setattr(softmax_regression, "_KEPT_BYTES", 1 << 20 if is_kept else 0)
    chosen = labels != 2
    point = rng.standard_normal(7 * 13)
    expected = SoftmaxRegression(StandardizedRows(stored(training), labels, 7).chosen(chosen), 7, 0.1)
    assert len(list(expected.rows)) == 1
    expected = expected._loss(point)
    monkeypatch.setattr(features_module, "_BLOCK_BYTES", 12 * 4 * 7)  # 7 rows
    found = SoftmaxRegression(StandardizedRows(stored(training), labels, 7).chosen(chosen), 7, 0.1)
    assert len(list(found.rows)) == 13
    monkeypatch.setattr(softmax_regression, "_MAX_LOGITS", 7 * 3)  # 3 rows
    smaller = SoftmaxRegression(StandardizedRows(stored(training), labels, 7).chosen(chosen), 7, 0.1)
    assert max(len(rows) for rows, _ in smaller.rows) == 3
    for one, other in zip(found._loss(point), expected):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)


def test_softmax_regression_has_the_same_bits_for_any_number_of_threads(rng):
    threadpoolctl = pytest.importorskip("threadpoolctl")
    training, labels = clusters(rng, 3000, num_features=200, spread=8.0)
    found = []
    for threads in (1, 2, 5):
        with threadpoolctl.threadpool_limits(threads):
            rows = StandardizedRows(stored(training), labels, 7)
            regression = SoftmaxRegression(rows.chosen(labels < 9), 7, 1e-4)
            found.append((regression.fit().tobytes(), regression.num_iterations))
    assert found[0] == found[1] == found[2]


def test_matrix_products_of_the_regression_are_exact(rng):
    rows = StandardizedRows(stored(rng.standard_cauchy((2000, 6)).astype(np.float32)), np.zeros(2000, int), 7)
    ((features, _),) = rows.chosen(np.ones(2000, bool))
    factor = rng.standard_normal((2000, 5))
    found = softmax_regression._product(features.T, factor)
    largest = 2.0 ** np.ceil(np.log2(np.abs(factor).max()))
    rounded = np.rint(factor / largest * 2.0**40)
    integers = (features / rows.unit).astype(np.int64).astype(object).T @ rounded.astype(np.int64).astype(object)
    np.testing.assert_array_equal(found, integers.astype(float) * (rows.unit * largest * 2.0**-40))


def test_standardized_rows_of_a_constant_feature_are_zero(rng):
    rows = np.full((50, 2), 0.1, np.float32)
    rows[:, 1] = rng.standard_normal(50)
    ((standardized, _),) = StandardizedRows(stored(rows), np.zeros(50, int), 7).chosen(np.ones(50, bool))
    assert (standardized[:, 0] == 0).all()
    assert standardized[:, 1].std() == pytest.approx(1)


def test_minimize_finds_the_minimum_of_a_badly_scaled_parabola(rng):
    curvature = 10.0 ** np.arange(-2, 4)
    centre = rng.standard_normal(6)
    found = minimize(lambda x: (0.5 * (curvature * (x - centre) ** 2).sum(), curvature * (x - centre)), np.zeros(6),
                     1e-8, 500)  # fmt: skip
    assert found.has_converged
    np.testing.assert_allclose(found.point, centre, atol=1e-5)


def test_linear_probe_chooses_the_strength_that_is_best_on_held_out_images(rng, monkeypatch):
    linear_model = pytest.importorskip("sklearn.linear_model")
    training, labels = clusters(rng, 200, spread=2.5)
    queries, truth = clusters(rng, 100, spread=2.5)
    monkeypatch.setattr(probe, "STRENGTHS", (10.0, 0.1, 1e-3))
    result = linear_probe(Features(stored(training), labels), Features(stored(queries), truth), 7)

    mean, std = training.mean(0, dtype=np.float64), training.std(0, dtype=np.float64)
    x, y = (training - mean) / std, (queries - mean) / std
    held_out = np.zeros(200, bool)
    for label in range(7):
        held_out[np.flatnonzero(labels == label)[2::5]] = True
    scores = {}
    for l2 in (10.0, 0.1, 1e-3):
        fit = linear_model.LogisticRegression(C=1 / (l2 * (~held_out).sum()), tol=1e-8, max_iter=5000)
        scores[l2] = fit.fit(x[~held_out], labels[~held_out]).score(x[held_out], labels[held_out])
    best = max(scores.values())
    assert scores[result.settings["l2"]] == best
    fit = linear_model.LogisticRegression(C=1 / (result.settings["l2"] * 200), tol=1e-8, max_iter=5000).fit(x, labels)
    assert result.counts.num_top1 == (fit.predict(y) == truth).sum()
    assert result.num_training_images == 200 and result.settings["has_converged"]
    assert 0.3 < result.counts.top1 < 1


def test_linear_probe_warns_when_it_has_not_converged(rng, monkeypatch, capsys):
    monkeypatch.setattr(softmax_regression, "_MAX_ITERATIONS", 2)
    training, labels = clusters(rng, 60)
    data = Features(stored(training), labels)
    assert not linear_probe(data, data, 7).settings["has_converged"]
    assert "warning: the linear probe has not converged in 2 iterations" in capsys.readouterr().err


# The features


class Loader:
    """A loader of arrays with the share of one of several processes."""

    def __init__(self, images, labels, rank=0, size=1):
        self.images, self.labels = images[rank::size], labels[rank::size]

    def get_batch_size(self):
        return 4

    def get_dataset_size(self):
        return -(-len(self.labels) // 4)

    def batches(self):
        for start in range(0, len(self.labels), 4):
            yield self.images[start : start + 4], self.labels[start : start + 4]


class Linear(nn.Cell):
    def __init__(self, weight):
        super().__init__()
        self.weight = Tensor(weight)

    def construct(self, x):
        return x @ self.weight


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("count", [2, 11])
def test_extract_features_keeps_the_order_of_the_data_set_for_any_number_of_processes(
    processes, rng, monkeypatch, size, count
):
    images = rng.standard_normal((count, 5)).astype(np.float32)
    labels = rng.integers(0, 4, count).astype(np.int32)
    network = Linear(rng.standard_normal((5, 3)).astype(np.float32))
    alone = extract_features(network, Loader(images, labels), 3, Group(), "")
    np.testing.assert_allclose(alone.rows.read(0, 99), images @ network.weight.asnumpy(), rtol=1e-5, atol=1e-6)
    monkeypatch.setattr(features_module, "_BLOCK_BYTES", 2 * 3 * 4 * size)  # two rows of each process

    def share(rank):
        return extract_features(network, Loader(images, labels, rank, size), 3, Group(rank, size), "")

    main, *others = processes.run(share, size)
    assert others == [None] * (size - 1)
    np.testing.assert_array_equal(main.labels, labels)
    assert main.rows.read(0, 99).tobytes() == alone.rows.read(0, 99).tobytes()


def test_extract_features_refuses_features_that_are_not_finite():
    images = np.full((4, 2), np.inf, np.float32)
    with pytest.raises(UserError, match="features are not finite"):
        extract_features(Linear(np.ones((2, 2), np.float32)), Loader(images, np.zeros(4, int)), 2, Group(), "")


def test_feature_rows_are_read_as_they_were_written(rng):
    rows = FeatureRows(3)
    parts = [rng.standard_normal((count, 3)).astype(np.float32) for count in (2, 0, 5)]
    for part in parts:
        rows.append(part)
    whole = np.concatenate(parts)
    assert rows.shape == (7, 3) and rows.nbytes == whole.nbytes
    np.testing.assert_array_equal(rows.read(1, 3), whole[1:3])
    np.testing.assert_array_equal(np.concatenate(list(rows.blocks())), whole)
    rows.append(whole[:1])  # after reading
    np.testing.assert_array_equal(rows.read(6, 99), np.concatenate([whole[6:], whole[:1]]))


def test_feature_rows_name_the_folder_that_cannot_be_written(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=rf"cannot keep the features in folder '{tmp_path}/no': No such file.*output"):
        FeatureRows(3, tmp_path / "no")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "no"))
    with pytest.raises(UserError, match=rf"folder '{tmp_path}/no': No such file.*TMPDIR names another"):
        FeatureRows(3)


def test_feature_rows_say_when_the_disk_is_full(tmp_path):
    rows = FeatureRows(3, tmp_path)
    rows._file = open("/dev/full", "r+b", buffering=0)  # noqa: SIM115
    with pytest.raises(UserError, match=rf"cannot keep the features in folder '{tmp_path}': No space left on device"):
        rows.append(np.ones((5, 3), np.float32))
    rows.close()
