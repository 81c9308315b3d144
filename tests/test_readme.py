"""The README's example runs as it stands."""

import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_ten_lines_run():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)

    def features(params, batch):
        return jnp.tanh(batch @ params["trunk"]["w"])

    names = {
        "params": {"trunk": {"w": jnp.ones((3, 4))}, "depth": jnp.ones(4), "labels": jnp.ones(4)},
        "batch": jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32),
        "depth_loss": lambda p, b: jnp.mean((features(p, b) @ p["depth"] - 3.0) ** 2),
        "label_loss": lambda p, b: jnp.mean(jnp.logaddexp(0, -features(p, b) @ p["labels"])),
    }
    exec(code, names)
    assert names["opt_state"][0].task_weights.shape == (2,)
    assert np.all(names["opt_state"][0].task_weights > 0)
    assert set(names["losses"]) == {"depth", "labels"}


def test_links_and_pictures_are_there():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if not target.startswith("http"):
            assert (Path(__file__).parent.parent / target).exists(), target
