"""The kit passes what keeps the contract, and finds what does not, by the rule's name."""

import ast
import inspect
import sys
from pathlib import Path
from types import ModuleType

import brigantine_image
import numpy as np
import pytest
from brigantine import BadParams, FieldError, Model, Params, contract
from brigantine.testing import RULES, TensorSpec, assert_plugin, examine, interpreter, tiny_image, tiny_onnx
from brigantine.testing.examination import CONTRACT, TRIED
from brigantine_image import ImagePlugin
from pydantic import Field

from tests.service.testing import faulty_media, faulty_params, faulty_rows
from tests.service.testing.chimes import Chime, ChimeParams, Rhyme, RhymeParams, chime_model
from tests.service.testing.fault import FAULTS, Fault

MNIST = Path(brigantine_image.__file__).parent / "models" / "mnist"
WITH_FAULTS = faulty_media, faulty_params, faulty_rows
"""Importing them fills `FAULTS`."""
SLOW = {"import-time", "memory", "restart"}
"""Rules that take a second; the faults of other rules are looked for without them."""
QUICK = [rule for rule in RULES if rule not in SLOW]


@pytest.fixture(scope="module")
def chimes(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model.open(chime_model(tmp_path_factory.mktemp("models")))


@pytest.mark.parametrize("plugin", [Chime, Rhyme])
def test_a_plugin_that_keeps_the_contract_has_no_findings(chimes: Model, plugin: object):
    assert examine(plugin, chimes, calls=200) == []


def test_the_shipped_plugin_passes_with_the_shipped_model():
    assert_plugin(ImagePlugin, MNIST)


def test_the_shipped_plugin_passes_with_a_model_without_labels(tmp_path: Path):
    assert examine(ImagePlugin, tiny_image(tmp_path, labels=(), channels=1), only=QUICK) == []


def test_the_shipped_plugin_passes_with_a_model_that_has_layers(tmp_path: Path):
    z = TensorSpec(name="z", dtype="float32", shape=("batch", 3, 4))
    image = TensorSpec(name="image", dtype="uint8", shape=("batch", 8, 8, 3))

    assert examine(ImagePlugin, tiny_onnx(tmp_path, "layered", "image", [z], [image]), only=QUICK) == []


def test_a_plugin_may_leave_its_graph_alone(chimes: Model):
    class Siren(Chime):
        def prepare(self, params, rng):  # type: ignore[no-untyped-def]
            return {"noise": rng.standard_normal(64, dtype=np.float32)}

        def generate(self, batch):  # type: ignore[no-untyped-def]
            return {"wave": np.tanh(batch["noise"])}

    assert examine(Siren, chimes, only=QUICK) == []


def test_fields_may_have_another_name_outside(chimes: Model):
    class Aliased(Chime):
        class params(ChimeParams):  # noqa: N801
            source: int = Field(default=1, ge=0, le=3, alias="from", description="Where from.")

    assert examine(Aliased, chimes, only=QUICK) == []


def test_params_may_have_no_fields(chimes: Model):
    class Plain(Rhyme):
        class params(Params):  # noqa: N801
            """None."""

        def prepare(self, params, rng):  # type: ignore[no-untyped-def]
            return super().prepare(RhymeParams(), rng)

    assert examine(Plain, chimes, only=QUICK) == []


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.rule}-{fault.plugin.__name__}")
def test_a_planted_fault_is_found_by_its_rule_and_by_no_other(chimes: Model, fault: Fault):
    rules = [rule for rule in RULES if rule not in SLOW or rule == fault.rule]

    found = examine(fault.plugin, chimes, name="rhyme" if issubclass(fault.plugin, Rhyme) else "chime",
                    calls=400, patience_s=2, only=rules)  # fmt: skip

    broken = {one.rule for one in found}
    assert fault.rule in broken, found
    assert broken <= {fault.rule, *fault.also}, found
    assert any(fault.says in str(one) for one in found if one.rule == fault.rule), found


def test_every_rule_that_is_tried_has_a_planted_fault():
    elsewhere = {"import-time"}  # its faults are modules, not classes
    assert set(TRIED) - elsewhere <= {fault.rule for fault in FAULTS}


def test_the_rules_of_the_contract_are_those_that_it_names():
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(contract))) if isinstance(node, ast.Call)]
    made = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Violation"]
    named = {call.args[0].value for call in made if isinstance(call.args[0], ast.Constant)}
    assert named <= set(CONTRACT)
    assert set(CONTRACT) - named == {"content"}  # this one by a variable


def test_every_rule_says_what_it_is():
    assert all(rule.says.endswith(".") and "\n" not in rule.says for rule in TRIED.values())


def written(folder: Path, name: str, head: str) -> type:
    """A class in a module of its own, which begins with `head`; only its file is there, and it is not imported here."""
    file = folder / f"{name}.py"
    file.write_text(f"{head}\nfrom tests.service.testing.chimes import Rhyme\n")
    module = sys.modules[name] = ModuleType(name)
    module.__file__ = str(file)
    return type("Slow", (Rhyme,), {"__module__": name})


@pytest.mark.parametrize(
    ("head", "says"),
    [
        ("import time; time.sleep(0.9)", "expected at most 0.8 s, got "),
        ("import torch", "expected neither torch nor bentoml, got torch"),
        ("import bentoml, torch", "got bentoml and torch"),
        ("raise ValueError('no bell')", "expected an import in a fresh interpreter, got ValueError: no bell"),
    ],
)
def test_an_import_that_costs_too_much_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chimes: Model, head: str, says: str
):
    for heavy in ("bentoml", "torch"):
        (tmp_path / f"{heavy}.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "slow_module", sys)  # gives it back afterwards
    monkeypatch.setattr(interpreter, "_MOST_S", 0.8)
    plugin = written(tmp_path, "slow_module", head)

    [found] = examine(plugin, chimes, only=["import-time"])

    assert (found.rule, found.where) == ("import-time", "import slow_module")
    assert says in str(found)


def test_a_model_that_is_none_is_a_finding_and_the_rules_that_need_it_are_silent(tmp_path: Path):
    [found] = examine(Chime, tmp_path / "nowhere")

    assert found.rule == "load"
    assert "nowhere: expected a model's folder, found nothing of this name" in found.got


def test_all_findings_are_in_the_assertion(chimes: Model):
    class Careless(Chime):
        name = "Care Less"
        plural = "S "

    with pytest.raises(AssertionError) as raised:
        assert_plugin(Careless, chimes, calls=10, patience_s=1)

    said = str(raised.value)
    assert said.startswith("2 findings\nname: ")
    assert "\nplural: " in said


def test_a_rule_that_is_unknown_is_named(chimes: Model):
    with pytest.raises(ValueError, match=r"expected some of subclass, .*, got no-such"):
        examine(Chime, chimes, only=["no-such"])


def test_a_rule_that_raises_is_a_finding_with_the_line(chimes: Model):
    class Moody(Chime):
        calls = 0

        def render(self, row, params, media_type):  # type: ignore[no-untyped-def]
            Moody.calls += 1
            if Moody.calls > 20:
                raise ZeroDivisionError("by nought")
            return super().render(row, params, media_type)

    [found] = examine(Moody, chimes, only=["seeds"])

    assert found.rule == "seeds"
    assert found.got.startswith("ZeroDivisionError: by nought (test_examination.py:")


@pytest.mark.parametrize(
    ("method", "error", "remedy"),
    [
        ("render", ZeroDivisionError("by nought"), "mend test_examination.py:"),
        ("generate", ZeroDivisionError("by nought"), "mend test_examination.py:"),
        ("generate", KeyError("wavs"), "; the row has z, label"),
        (
            "prepare",
            BadParams([FieldError("pitch", "more", "10")]),
            "let the defaults be a request that every model",
        ),
    ],
)
def test_the_remedy_is_that_of_the_fault(chimes: Model, method: str, error: Exception, remedy: str):
    def fail(self, *arguments):  # type: ignore[no-untyped-def]
        raise error

    plugin = type("Failing", (Chime,), {method: fail, "__module__": __name__})

    [found] = examine(plugin, chimes, only=["defaults"])

    assert remedy in found.remedy


def test_the_line_that_keeps_a_plugin_from_loading_is_named(chimes: Model):
    class Unloadable(Chime):
        def load(self):  # type: ignore[no-untyped-def]
            raise FileNotFoundError("no clapper")

    [found] = examine(Unloadable, chimes, only=["load"])

    assert found.got.startswith("FileNotFoundError: no clapper (test_examination.py:")


def test_a_plugin_that_ends_the_process_is_a_finding(chimes: Model):
    class Quitting(Chime):
        def prepare(self, params, rng):  # type: ignore[no-untyped-def]
            raise SystemExit(3)

    [found] = examine(Quitting, chimes, only=QUICK)

    assert found.rule == "defaults"
    assert "SystemExit(3), which would end the service (test_examination.py:" in found.got


def test_the_global_generators_are_left_as_they_were(chimes: Model):
    import random

    random.seed(5)
    expected = random.Random(5).random()

    examine(Chime, chimes, only=["seeds", "prepare-randomness"])

    assert random.random() == expected
