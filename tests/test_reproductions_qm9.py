"""QM9 run again: reading, the network against loops in float64, its symmetries, a training."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxmtl.problems import qm9
from jaxmtl.reproductions import PUBLISHED, _molecules, delta_m, load
from jaxmtl.reproductions._experiments import EXPERIMENTS
from jaxmtl.reproductions._message_passing import (
    apply_network,
    convolve,
    gated,
    init_network,
    set_to_set,
)
from jaxmtl.reproductions._molecules import QM9, SINGLE, Data, Setup, trainer

pytestmark = pytest.mark.usefixtures("quick_compiler")

HEADER = (
    "XYZ_file,Index,SMILES,Elements,XYZ_Ang,Dipole_debye,Polarizability_bohr3,HOMO_au,LUMO_au,"
    "R2_bohr2,ZPVE_au,InternalEnergy_0K_au,InternalEnergy_298K_au,Enthalphy_298K_au,"
    "GibbsFreeEnergy_298K_au,Heatcapacity_Cv_cal_mol_K"
)
# Methane, ammonia and water as the data have them, in coordinates of their own.
FILES = (
    "\"a.xyz\",1,\"C\",\"['C','H','H','H','H']\",\"[[0,0,0],[0.63,0.63,0.63],[-0.63,-0.63,0.63],"
    '[-0.63,0.63,-0.63],[0.63,-0.63,-0.63]]",0.,13.21,-0.3877,0.1171,35.3641,0.044749,-40.47893,'
    "-40.476062,-40.475117,-40.498597,6.469",
    "\"b.xyz\",2,\"N\",\"['N','H','H','H']\",\"[[0,0,0.1],[0.94,0,-0.27],[-0.47,0.81,-0.27],"
    '[-0.47,-0.81,-2.7e-1]]",1.6256,9.46,-0.257,0.0829,26.1563,0.034358,-56.525887,-56.523026,'
    "-56.522082,-56.544961,6.316",
    '"c.xyz",3,"O","[\'O\',\'H\',\'H\']","[[0,0,0.12],[0,0.76,-0.47],[0,-0.76,-0.47]]",1.8511,'
    "6.31,-0.2928,0.0687,19.0002,0.021375,-76.404702,-76.401867,-76.400922,-76.422349,6.002",
)


@pytest.fixture
def molecules(tmp_path, monkeypatch):
    """Three molecules, one a file: charges, positions and targets in the order 2, 0, 1."""
    for i, line in enumerate(FILES):
        (tmp_path / f"qm9_part{i + 1}.csv").write_text(f"{HEADER}\n{line}\n", encoding="utf-8")
    monkeypatch.setattr(
        qm9, "package_file", lambda problem, package, path, cure: tmp_path / path.split("/")[-1]
    )
    return qm9.read_molecules(np.array([2, 0, 1]))


def network(width=4, hidden=5, heads=3):
    return init_network(jax.random.key(3), width, hidden, heads)


def apply(params, charges, positions):
    return np.asarray(jax.jit(apply_network)(params, charges, positions.astype(np.float32)))


def in_float64(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_reading(molecules):
    charges, positions, targets = molecules
    assert charges.dtype == np.uint8
    assert charges.shape == (3, 29)
    assert charges[:, :6].tolist() == [[8, 1, 1, 0, 0, 0], [6, 1, 1, 1, 1, 0], [7, 1, 1, 1, 0, 0]]
    assert not charges[:, 6:].any()
    assert positions[2, 3].tolist() == [-0.47, -0.81, -0.27]
    assert not positions[0, 3:].any()
    columns = {task: targets[:, i].tolist() for i, task in enumerate(qm9.TASKS)}
    assert columns["mu"] == [1.8511, 0, 1.6256]
    assert columns["cv"] == [6.002, 6.469, 6.316]
    assert columns["g"] == [-76.422349, -40.498597, -56.544961]


def test_energies_are_those_of_atomisation(molecules):
    """Methane: 17.17 eV at 0 K, as PyTorch Geometric's data have it; what is no energy stays."""
    charges, _, targets = molecules
    found = dict(zip(qm9.TASKS, _molecules.atomisation(charges, targets)[1], strict=True))
    electron_volts = {task: found[task] * 27.211386246 for task in ("u0", "u", "h", "g")}
    expected = {"u0": -17.1722, "u": -17.2868, "h": -17.3897, "g": -16.1519}
    assert electron_volts == pytest.approx(expected, abs=2e-4)
    assert found["alpha"] == 13.21
    assert found["zpve"] == 0.044749


def test_order_turns_shifts_and_empty_places_change_nothing(molecules):
    charges, positions, _ = molecules
    params = network()
    expected = apply(params, charges[:, :5], positions[:, :5])
    assert np.abs(np.diff(expected, axis=0)).max() > 1e-3
    order = np.array([3, 0, 4, 2, 1])
    turned = Rotation.random(random_state=0).apply(positions.reshape(-1, 3)).reshape(3, 29, 3)
    moved = turned + np.array([[[1.0, -2.0, 3.0]]])
    for c, p in [
        (charges[:, order], moved[:, order]),
        (charges, np.where(charges[:, :, None] > 0, positions, 7.0)),
    ]:
        np.testing.assert_allclose(apply(params, c, p), expected, rtol=2e-5, atol=2e-6)
    alone = apply(params, charges[:1, :3], positions[:1, :3])  # with no place empty
    np.testing.assert_allclose(alone[0], expected[0], rtol=2e-5, atol=2e-6)
    stretched = apply(params, charges, 1.1 * positions)
    assert np.abs(stretched - expected).max() > 1e-4


def test_messages_are_those_of_matrices_for_each_pair():
    """NNConv as PyTorch Geometric defines it, in NumPy."""
    rng, params = np.random.default_rng(0), network()["shared"]
    state, distances = rng.normal(size=(1, 5, 4)), rng.uniform(1, 3, size=(5, 5))
    distances = distances + distances.T
    neighbours = np.array([1.0, 1, 1, 1, 0])  # the last place is empty
    shares = np.outer(neighbours, neighbours) * (1 - np.eye(5)) / 3
    own = in_float64(params)
    expected, edges = np.zeros((4, 4)), np.zeros((1, 5, 5, 5))
    for i in range(4):
        for j in range(4):
            if i != j:
                z = np.maximum(distances[i, j] * own["edge"]["kernel"] + own["edge"]["bias"], 0)
                edges[0, i, j] = z / 3
                matrix = np.tensordot(z, own["message"]["kernel"], 1) + own["message"]["bias"]
                expected[i] += state[0, j] @ matrix / 3
        expected[i] += state[0, i] @ own["root"]["kernel"] + own["root"]["bias"]
    given = (jnp.asarray(x, jnp.float32) for x in (edges, shares[None], state))
    found = jax.jit(convolve)(params, *given)
    np.testing.assert_allclose(found[0, :4], expected, rtol=1e-5, atol=1e-5)


def test_gated_unit_by_hand():
    rng, cell = np.random.default_rng(1), network()["shared"]["gru"]
    inputs, state = rng.normal(size=(2, 3, 4))
    own = in_float64(cell)
    given = inputs @ own["kernel"] + own["bias"]
    kept = state @ own["state_kernel"] + own["state_bias"]
    reset = sigmoid(given[:, :4] + kept[:, :4])
    update = sigmoid(given[:, 4:8] + kept[:, 4:8])
    new = np.tanh(given[:, 8:] + reset * kept[:, 8:])
    found = jax.jit(gated)(cell, *(jnp.asarray(x, jnp.float32) for x in (inputs, state)))
    np.testing.assert_allclose(found, (1 - update) * new + update * state, rtol=1e-5, atol=1e-6)


def test_set_to_set_by_hand():
    rng, cell = np.random.default_rng(2), network()["shared"]["lstm"]
    atoms, numbers = rng.normal(size=(2, 5, 4)), (5, 3)
    own, expected = in_float64(cell), []
    for x, number in zip(atoms, numbers, strict=True):
        query, memory, found = np.zeros(4), np.zeros(4), np.zeros(8)
        for _ in range(3):
            gates = found @ own["kernel"] + own["bias"]
            gates = gates + query @ own["state_kernel"] + own["state_bias"]
            entry, forget, candidate, output = gates.reshape(4, 4)
            memory = sigmoid(forget) * memory + sigmoid(entry) * np.tanh(candidate)
            query = sigmoid(output) * np.tanh(memory)
            weights = np.exp([atom @ query for atom in x[:number]])
            found = np.append(query, weights @ x[:number] / weights.sum())
        expected.append(found)
    present = np.arange(5)[None, :] < np.array(numbers)[:, None]
    found = jax.jit(set_to_set)(cell, jnp.asarray(atoms, jnp.float32), present)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.fixture
def tiny(molecules, monkeypatch):
    """The three molecules as all splits of a problem, in batches of four."""
    charges, positions, targets = molecules
    targets = _molecules.atomisation(charges, targets)
    deviations = targets.std(axis=0)
    split = {
        "charges": charges[:, :5],
        "positions": positions[:, :5].astype(np.float32),
        "targets": ((targets - targets.mean(axis=0)) / deviations).astype(np.float32),
    }
    split = jax.device_put(split)
    monkeypatch.setitem(_molecules.SETUPS, "tiny", Setup(3, 3, width=16, hidden=8, batch=4))
    data = Data(split, split, split, deviations * _molecules.UNITS)
    monkeypatch.setattr(_molecules, "load_data", lambda held_out, size: data)
    return data


@pytest.mark.slow
@pytest.mark.parametrize("row", [SINGLE, "famo"])
def test_a_training_lowers_the_errors(tiny, row):
    advanced = []
    found = trainer("tiny", 3, row, 50)(0.02, 2, 200, advanced.append)
    assert sum(advanced) == 400
    assert found["of_curve"] == [50, 100, 150, 200]
    curve = np.array(found["curve"])
    assert curve.shape == (4, 2)
    assert np.all(curve[-1] < curve[0])
    assert np.all(curve[-1] < 0.4)  # of a standard deviation; the mean alone has 0.8
    assert np.shape(found["losses"]) == np.shape(found["mae"]) == (2, 11)
    # All splits are the same here: the curve's last value is that of the errors stored.
    standardised = np.array(found["mae"]) / tiny.deviations
    np.testing.assert_allclose(standardised.mean(axis=1), curve[-1], rtol=1e-3)
    assert np.abs(np.diff(found["mae"], axis=0)).max() > 0  # the seeds differ


@pytest.mark.slow
@pytest.mark.parametrize("row", QM9)
def test_every_row_trains(tiny, row):
    found = trainer("tiny", 3, row, 20)(0.005, 1, 100, lambda n: None)
    assert found["curve"][-1][0] < found["curve"][0][0]


@pytest.mark.slow
def test_the_first_step_of_equal_weights_is_adams_by_hand(tiny):
    """One step: every parameter moves by the learning rate against the sign of its gradient."""
    split = tiny.train
    key = jax.random.split(jax.random.key(0), 1)[0]
    rows = jax.random.randint(jax.random.fold_in(key, 0), (4,), 0, 3)
    batch = jax.tree.map(lambda x: x[rows], split)

    def loss(params):
        outputs = apply_network(params, batch["charges"], batch["positions"])
        return jnp.mean((outputs - batch["targets"]) ** 2)

    params = init_network(key, 16, 8, 11)
    grad = jax.jit(jax.grad(loss))(params)
    moved = jax.tree.map(lambda p, g: p - 0.01 * g / (jnp.abs(g) + 1e-8), params, grad)
    outputs = jax.jit(apply_network)(moved, split["charges"], split["positions"])
    expected = np.abs(np.asarray(outputs - split["targets"], np.float64)).mean(axis=0)
    found = trainer("tiny", 3, "equal", 1)(0.01, 1, 1, lambda n: None)
    np.testing.assert_allclose(found["mae"][0], expected * tiny.deviations, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("row", [SINGLE, "famo", "mgda"])
def test_side_by_side_networks_train_as_one_after_the_other(tiny, row, monkeypatch):
    """The program of a GPU, on a CPU."""
    found = []
    for backend in ("cpu", "gpu"):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        found.append(trainer("tiny", 3, row, 4)(0.01, 2, 8, lambda n: None)["mae"])
    # Adam makes whole steps of the rounding of gradients near zero; tasks differ by factors.
    np.testing.assert_allclose(found[1], found[0], rtol=1e-2)


def test_the_network_starts_as_pytorch_has_it():
    """Every array is uniform up to 1 / sqrt(inputs), a recurrent cell's up to 1 / sqrt(width)."""
    params = init_network(jax.random.key(0), 16, 8, 11)["shared"]
    for layer, inputs in {"embed": 7, "message": 8, "root": 16, "gru": 16, "lstm": 16}.items():
        kernel = np.asarray(params[layer]["kernel"], np.float64) * inputs**0.5
        assert 0.9 < np.abs(kernel).max() <= 1
        np.testing.assert_allclose(kernel.std(), 3**-0.5, rtol=0.15)
    assert not params["root"]["bias"].any()


def test_data_that_do_not_suffice():
    with pytest.raises(ValueError, match="size must leave 20000 of the 130831 molecules"):
        _molecules.load_data(10_000, 110_832)


def test_data_where_they_are_installed():
    if importlib.util.find_spec("qm9pack") is None:
        pytest.skip("qm9pack, which carries the data, is not installed")
    data = _molecules.load_data.__wrapped__(20, 100)
    targets = np.asarray(data.train["targets"], np.float64)
    np.testing.assert_allclose(targets.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(targets.std(axis=0), 1, rtol=1e-5)
    assert [len(split["charges"]) for split in data[:3]] == [100, 20, 20]
    energies = dict(zip(qm9.TASKS, data.deviations, strict=True))
    assert 5e3 < energies["u0"] < 2e4  # meV


def test_delta_m_by_hand():
    alone = np.array([[1.0, 10], [3, 30]])  # means 2 and 20
    rows = {SINGLE: alone, "equal": np.array([[4.0, 10], [2, 30]])}
    runs = [
        {"problem": "qm9", "size": 7, "rate": 0.1, "steps": 5, "row": row, "mae": mae.tolist()}
        for row, mae in rows.items()
    ]
    found = delta_m(runs)
    np.testing.assert_allclose(found["equal"], [25, 25])
    np.testing.assert_allclose(found[SINGLE], [-50, 50])
    diverged = {**runs[1], "mae": [[None, 1.0], [2.0, 20.0]]}
    np.testing.assert_array_equal(delta_m([runs[0], diverged])["equal"], [np.nan, 0])
    for wrong in (runs[1:], [*runs, runs[1]], [runs[0], {**runs[1], "steps": 6}], []):
        with pytest.raises(ValueError, match="runs must be of one problem"):
            delta_m(wrong)


def test_what_is_stored():
    experiment, runs = EXPERIMENTS["qm9"], load("qm9")
    for run in runs:
        assert np.shape(run["mae"]) == np.shape(run["losses"]) == (run["seeds"], 11)
        assert run["of_curve"][-1] == run["steps"]
        assert np.shape(run["curve"]) == (len(run["of_curve"]), run["seeds"])
    assert set(PUBLISHED["qm9"]) < set(experiment.rows)
