"""The store: finds models wherever they may lie, and publishes new ones.

Three places, the first that knows a name wins:

1. the folders of `BRIGANTINE_MODELS_DIR`, one model in each sub-folder;
2. BentoML's model store, where `brigantine models publish` puts them;
3. the folder `models/` inside the package of an installed plugin: what a plugin brings along; and in
   `BRIGANTINE_PLUGINS_DIR`, in a package or beside the files.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from .errors import ModelInvalid, ModelNotFound, SettingsInvalid
from .model import COMPANIONS, MANIFEST, Manifest, Model

__all__ = ["PLUGIN_GROUP", "Found", "Store", "models_below", "package_of", "publish"]

log = logging.getLogger(__name__)

PLUGIN_GROUP = "brigantine.plugins"
"""The entry-point group through which plugins, and the models that they bring along, are found."""

_MARKER = "brigantine"
"""The label in BentoML's store that tells our models from everybody else's."""


class Found(NamedTuple):
    """A place that looks like a model. Nothing has been verified yet."""

    name: str
    path: Path
    source: str

    def open(self) -> Model:
        """Verify the folder and read it.

        Raises:
            ModelInvalid: see `Model.open`; or the manifest carries another name than its place.
        """
        model = Model.open(self.path, self.source)
        if model.name != self.name:
            raise ModelInvalid(
                f"{self.path}: expected the model {self.name!r} as its place says, the manifest says "
                f"{model.name!r}; rename the folder, or publish it under the name that you want"
            )
        return model


class Store:
    """All models that can be found from here, by name."""

    def __init__(self, folder: Path | None = None, plugins_dir: Path | None = None) -> None:
        self._folder = folder
        self._plugins_dir = plugins_dir

    def find(self) -> dict[str, Found]:
        """Every model by name. Reads no graph; a broken model is found too, and refused when it is opened."""
        found: dict[str, Found] = {}
        for place in (*self._in_folder(), *_in_bentoml(), *_in_plugins(), *self._in_plugins_dir()):
            found.setdefault(place.name, place)
        return dict(sorted(found.items()))

    def get(self, name: str) -> Found:
        """The model called `name`.

        Raises:
            ModelNotFound: there is none of this name; the message lists those there are.
        """
        found = self.find()
        if name not in found:
            names = ", ".join(found) or "none (there is none)"
            raise ModelNotFound(f"model {name!r}: expected one of {names}")
        return found[name]

    def _in_folder(self) -> Iterator[Found]:
        if self._folder is None:
            return
        if not self._folder.is_dir():
            raise SettingsInvalid(
                f"BRIGANTINE_MODELS_DIR: expected a folder, got {self._folder}; make it, or unset the variable"
            )
        yield from models_below(self._folder, f"folder {self._folder}")

    def _in_plugins_dir(self) -> Iterator[Found]:
        if self._plugins_dir is not None:
            for folder in (self._plugins_dir, *sorted(self._plugins_dir.iterdir())):
                yield from models_below(folder / "models", f"folder {folder}")


def publish(folder: Path, name: str) -> str:
    """Put a model folder into BentoML's model store as `name` and return its tag, `name:version`.

    The model is built and verified aside and then renamed into place, so that a reader sees all of it or
    nothing. `folder` is a model, or a training run with one in `model/`. The version is a digest of the
    manifest, so publishing the same thing twice changes nothing.

    Raises:
        ModelInvalid: the folder is no valid model, or `name` is no name for one.
    """
    model = Model.open(folder / "model" if (folder / "model" / MANIFEST).is_file() else folder)
    try:
        manifest = Manifest.model_validate(model.manifest.model_dump() | {"name": name})
    except ValidationError:
        raise ModelInvalid(
            f"--name: expected lower-case letters, digits, '.', '_' and '-', at most 63, with a letter or digit "
            f"at both ends, got {name!r}"
        ) from None
    text = manifest.model_dump_json(indent=2).encode()
    version = hashlib.sha256(text).hexdigest()[:12]
    target = _bentoml_folder() / name / version
    if not (_is_sound(target) and _is_ours(f"{name}:{version}")):
        _bentoml_folder().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_beside(_bentoml_folder()), prefix="publishing-") as aside:
            staged = _stage(model, text, f"{name}:{version}", Path(aside))
            Model.open(staged)
            _put(staged, target)
    _point_latest(target)
    return f"{name}:{version}"


def _beside(store: Path) -> Path:
    """A folder from which a rename into the store stays on its file system: its parent, where that is no other one."""
    return store.parent if store.parent.stat().st_dev == store.stat().st_dev else store


def _is_sound(path: Path) -> bool:
    try:
        Model.open(path)
    except ModelInvalid:
        return False
    return True


def _put(staged: Path, target: Path) -> None:
    """Rename `staged` to `target`, in place of a damaged one."""
    target.parent.mkdir(exist_ok=True)
    if target.exists():
        os.rename(target, staged.with_name("damaged"))
    try:
        os.rename(staged, target)
    except OSError:
        if not _is_sound(target):  # else another process has just published the same
            raise


def _stage(model: Model, manifest: bytes, tag: str, aside: Path) -> Path:
    """Build the model as BentoML keeps it, in a store of its own below `aside`."""
    import bentoml  # noqa: PLC0415 - `import brigantine` must not import bentoml
    from bentoml._internal.models import ModelStore  # noqa: PLC0415

    store = ModelStore(aside)
    with bentoml.models.create(tag, labels={_MARKER: model.manifest.plugin}, _model_store=store) as staged:
        there = COMPANIONS - {MANIFEST, "model.yaml"}
        for name in [*model.manifest.files, *(name for name in there if (model.path / name).is_file())]:
            Path(staged.path_of(name)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(model.path / name, staged.path_of(name))
        Path(staged.path_of(MANIFEST)).write_bytes(manifest)
    return aside.joinpath(*tag.split(":"))


def _point_latest(target: Path) -> None:
    """Make BentoML's `name:latest` mean `target`, in one step."""
    aside = target.parent / f".latest-{os.getpid()}"
    aside.write_text(target.name)
    os.replace(aside, target.parent / "latest")


def _bentoml_folder() -> Path:
    from bentoml._internal.configuration.containers import BentoMLContainer  # noqa: PLC0415

    return Path(BentoMLContainer.model_store_dir.get())


def _in_bentoml() -> Iterator[Found]:
    """The latest version of each model that we published; others' models are not ours to judge."""
    root = _bentoml_folder()
    if not root.is_dir():
        return
    for latest in sorted(root.glob("*/latest")):
        path = latest.parent / latest.read_text().strip()
        if (path / MANIFEST).is_file() and _is_ours(f"{path.parent.name}:{path.name}"):
            yield Found(latest.parent.name, path, "bentoml")


def _is_ours(tag: str) -> bool:
    from bentoml._internal.models import ModelStore  # noqa: PLC0415 - `import brigantine` must not import bentoml

    try:
        return _MARKER in ModelStore(_bentoml_folder()).get(tag).info.labels
    except Exception as error:  # whatever BentoML, its YAML or its codecs make of a damaged model.yaml
        log.warning(
            "%s in BentoML's model store is left out: its model.yaml cannot be read (%r); publish the model again",
            tag, error,
        )  # fmt: skip
        return False


def _in_plugins() -> Iterator[Found]:
    for entry in metadata.entry_points(group=PLUGIN_GROUP):
        package = package_of(entry.value)
        try:
            spec = importlib.util.find_spec(package)
        except (ImportError, ValueError):  # no name of a module; discovery says so
            continue
        for root in (spec.submodule_search_locations if spec else None) or ():
            yield from models_below(Path(root) / "models", f"plugin {package}")


def package_of(target: str) -> str:
    """The package of an entry point `package.module:attribute`."""
    return target.partition(":")[0].partition(".")[0].strip()


def models_below(folder: Path, source: str) -> Iterator[Found]:
    """Every folder in `folder` that looks like a model, or may not be looked at: that is said when it is opened."""
    for place in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            looks_like_one = (place / MANIFEST).is_file()
        except PermissionError:
            looks_like_one = True
        if looks_like_one:
            yield Found(place.name, place, source)
