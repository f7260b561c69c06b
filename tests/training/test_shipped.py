"""The model that ships, as its card shows it."""

from brigantine.store import Store
from brigantine_training.card import CARD, SAMPLES_PICTURE, card_text
from brigantine_training.provenance import Provenance


def test_the_card_is_what_the_manifest_says():
    model = Store().get("mnist").open()

    assert (model.path / CARD).read_text() == card_text(model.manifest)
    assert (model.path / SAMPLES_PICTURE).is_file()


def test_it_was_judged_by_the_stated_protocol():
    evaluation = Provenance.read(Store().get("mnist").open().manifest).evaluation

    assert evaluation is not None
    assert (evaluation.samples, evaluation.resamples, evaluation.fid_reference) == (10_000, 3, 60_000)
