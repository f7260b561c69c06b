"""The configuration: frozen, typed, and clear about what it refuses."""

from pathlib import Path

import pytest
from brigantine_training.config import (
    RESUMABLE,
    Config,
    find_preset,
    make_config,
    parse_setting,
    read_preset,
)
from brigantine_training.errors import ConfigError
from pydantic import ValidationError

PRESETS = ("mnist", "mnist-dcgan", "mnist-mlp", "shakespeare")


def test_an_unknown_key_is_named_with_the_nearest_and_the_known_ones():
    with pytest.raises(ConfigError) as error:
        make_config({"dataset": "mnist", "gama_start": 1}, "preset x")
    message = str(error.value)
    assert "preset x" in message
    assert "'gama_start'" in message
    assert "Did you mean 'gamma_start'?" in message
    assert "batch_images" in message


@pytest.mark.parametrize(
    ("values", "part"),
    [
        (
            {"dataset": "mnist", "batch_images": 1},
            "batch_images: Input should be greater than or equal to 2, got 1",
        ),
        ({"dataset": "mnist", "loss": "hinge"}, "loss: Input should be 'relativistic' or 'non-saturating'"),
        ({"dataset": "mnist", "learning_rate": float("nan")}, "learning_rate"),
        ({}, "dataset: Field required"),
        ({"dataset": "minst"}, "dataset: expected one of mnist, tinyshakespeare, got 'minst'"),
        ({"dataset": "mnist", "loss": "non-saturating"}, "preset x: the non-saturating loss has no penalty"),
        ({"dataset": "mnist", "budget_seconds": None}, "no budget"),
    ],
)
def test_a_value_out_of_bounds_is_named(values: dict, part: str):
    with pytest.raises(ConfigError) as error:
        make_config(values, "preset x")
    assert part in str(error.value)


def test_a_configuration_is_frozen():
    config = make_config({"dataset": "mnist"}, "a test")
    with pytest.raises(ValidationError):
        config.seed = 1  # pyright: ignore[reportAttributeAccessIssue]


def test_changed_validates_again():
    config = make_config({"dataset": "mnist"}, "a test")
    assert config.changed(seed=3).seed == 3
    with pytest.raises(ConfigError):
        config.changed(seed=-1)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_holds_only_differences(name: str):
    values = read_preset(name)
    kind = type(make_config(values, name))
    for key, value in values.items():
        assert value != kind.model_fields[key].default, f"{name}: {key} is the default"


def test_a_preset_is_found_by_name_and_by_path(tmp_path: Path):
    file = tmp_path / "mine.toml"
    file.write_text('dataset = "mnist"\nseed = 4\n')
    assert read_preset(str(file)) == {"dataset": "mnist", "seed": 4}
    assert find_preset("mnist").name == "mnist.toml"


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(ConfigError, match="mnist, mnist-dcgan, mnist-mlp"):
        find_preset("mnits")
    with pytest.raises(ConfigError, match="no such file"):
        find_preset("nowhere/mnist.toml")


def test_a_preset_that_is_not_toml_is_named(tmp_path: Path):
    file = tmp_path / "mine.toml"
    file.write_text("seed: 4")
    with pytest.raises(ConfigError, match="not TOML"):
        read_preset(str(file))


@pytest.mark.parametrize(
    ("setting", "parsed"),
    [
        ("seed=4", ("seed", 4)),
        ("learning_rate = 2e-4", ("learning_rate", 2e-4)),
        ("loss=non-saturating", ("loss", "non-saturating")),
        ('loss="relativistic"', ("loss", "relativistic")),
    ],
)
def test_a_setting_is_read_as_toml_or_as_text(setting: str, parsed: tuple):
    assert parse_setting(setting) == parsed


@pytest.mark.parametrize("setting", ["seed", "=4"])
def test_a_setting_without_a_key_or_value_is_refused(setting: str):
    with pytest.raises(ConfigError, match="expected key=value"):
        parse_setting(setting)


def test_what_may_change_on_resume_are_fields():
    assert set(Config.model_fields) >= RESUMABLE
