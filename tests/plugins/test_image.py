from pathlib import Path

import numpy as np
import pytest
from brigantine import BadParams, Model, Session
from brigantine.store import Store
from brigantine_image import ImageParams, ImagePlugin

from tests.tiny import SIDE, Z_DIM, tiny_model


@pytest.fixture
def plugin(tmp_path: Path) -> ImagePlugin:
    model = Model.open(tiny_model(tmp_path))
    return ImagePlugin(model, Session.open(model))


def label_of(plugin: ImagePlugin, **params: object) -> int:
    row = plugin.prepare(ImageParams.model_validate(params), np.random.default_rng(3))
    return int(row["label"])


@pytest.mark.parametrize("label", [2, "two", "Two ", "2"])
def test_a_label_is_asked_for_by_index_or_by_any_name(plugin: ImagePlugin, label: object):
    assert label_of(plugin, label=label) == 2


@pytest.mark.parametrize("label", [3, 65_535, "three", ""])
def test_an_unknown_label_lists_those_there_are(plugin: ImagePlugin, label: object):
    with pytest.raises(BadParams, match="label: expected an index from 0 to 2 or one of zero, one, two, got"):
        label_of(plugin, label=label)


@pytest.mark.parametrize(("prompt", "label"), [("two", 2), ("Draw me a TWO, please", 2), ("a 1", 1)])
def test_a_prompt_that_names_one_label_chooses_it(plugin: ImagePlugin, prompt: str, label: int):
    assert label_of(plugin, prompt=prompt) == label


@pytest.mark.parametrize("prompt", ["a cat", "one or two", "twofold", ""])
def test_a_prompt_that_names_none_or_several_leaves_it_to_the_seed(plugin: ImagePlugin, prompt: str):
    assert label_of(plugin, prompt=prompt) == label_of(plugin)


def test_a_long_prompt_is_read_once_a_request_and_not_once_a_row(plugin: ImagePlugin):
    params = ImageParams(prompt="a b " * 8000)
    for _ in range(20):
        plugin.prepare(params, np.random.default_rng(0))

    assert plugin.named_in.cache_info().misses == 1


def test_a_label_wins_over_the_prompt(plugin: ImagePlugin):
    assert label_of(plugin, prompt="two", label=1) == 1


def test_the_latent_does_not_depend_on_the_label(plugin: ImagePlugin):
    z = [
        plugin.prepare(ImageParams.model_validate(params), np.random.default_rng(3))["z"]
        for params in ({}, {"label": 1}, {"prompt": "two"})
    ]

    assert z[0].shape == (Z_DIM,)
    assert all(np.array_equal(z[0], other) for other in z[1:])


def test_render_says_what_was_drawn_and_how_large(plugin: ImagePlugin):
    row = {"image": np.zeros((SIDE, 9, 1), np.uint8), "label": np.int64(1)}

    media = plugin.render(row, ImageParams(), "image/png")

    assert media.info == {"size": f"9x{SIDE}", "label": "one"}


def test_a_model_without_labels_takes_none(tmp_path: Path, plugin: ImagePlugin):
    plugin.labels = ()

    with pytest.raises(BadParams, match="expected no label: the model tiny has none"):
        plugin.prepare(ImageParams(label=1), np.random.default_rng(0))


def test_a_model_that_draws_no_images_is_refused(tmp_path: Path):
    specs = [{"name": "tokens", "dtype": "int64", "shape": ["batch", 8]}]
    model = Model.open(tiny_model(tmp_path, inputs=specs))

    with pytest.raises(ValueError, match=r"expected the inputs z and perhaps label.*got \['tokens'\]"):
        ImagePlugin(model, Session(model, None))


def test_the_shipped_model_draws_28_by_28(tmp_path: Path):
    model = Store().get("mnist").open()

    assert model.manifest.outputs[0].shape[1:] == (28, 28, 1)
    assert sum(file.stat().st_size for file in model.path.iterdir()) <= 4_000_000
    assert [label.name for label in model.manifest.labels][7] == "seven"


def test_the_shipped_model_is_as_good_as_its_card_promises():
    """`make scores` measures these again; its card is made from the same manifest."""
    scores = Store().get("mnist").open().manifest.scores

    assert scores["fid"].value <= 0.35
    assert scores["accuracy"].value >= 0.988
    assert scores["coverage"].value >= 0.88
    assert 0.40 <= scores["memorisation_auc"].value <= 0.60
    assert {score.samples for score in scores.values()} == {10_000}
