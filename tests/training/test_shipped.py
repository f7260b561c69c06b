"""The model that ships, as its card shows it."""

from brigantine.store import Store
from brigantine_training.card import CARD, SAMPLES_PICTURE, card_text
from brigantine_training.data import Dataset
from brigantine_training.evaluate import Recipe
from brigantine_training.provenance import GanProvenance
from torch import empty


def test_the_card_is_what_the_manifest_says():
    model = Store().get("mnist").open()

    assert (model.path / CARD).read_text() == card_text(model.manifest)
    assert (model.path / SAMPLES_PICTURE).is_file()


def test_it_was_judged_by_the_stated_protocol():
    """By the code as it is: after a change to it, `make scores` judges the model anew."""
    provenance = GanProvenance.read(Store().get("mnist").open().manifest)
    data, evaluation = provenance.data, provenance.evaluation
    none = empty(0)
    dataset = Dataset(data.name, none, none, none, none, (), data.sha256, data.licence, data.source)

    assert evaluation is not None
    assert evaluation.classifier == Recipe().key(dataset)
    assert (evaluation.samples, evaluation.resamples, evaluation.fid_reference) == (10_000, 3, 60_000)
